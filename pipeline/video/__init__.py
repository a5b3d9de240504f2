"""Video in, segmented video out: sources, the threads between, drawing, sinks.

options.py     the command's options, and what they ask for together
session.py     from what was asked for to a run: sources and sinks around one engine
checks.py      requests that are refused before anything is opened
source.py      what a source is, and how its name is read
urls.py        URLs as sources, never shown with what may be secret in them
names.py       what streams and their files are called
roi.py         the part of a frame that is segmented
readers/       one module per kind of source: FFmpeg (files, URLs), camera, images, streets
patience.py    calls that may never return, given a hard end
feed.py        a source kept open: newest frame of a live one, every frame of a file
shelf.py       a source's frames that are ready, and the buffers they use
lateness.py    how far a live stream lies behind its own clock
frames.py      Frame, Segmentation, and the pools they live in
runner.py      capture -> infer -> output, overlapped; one failure stops all
streams.py     one stream's parts, and when its next frame may be segmented
output.py      one stream's end of the pipeline: draw, then the sinks
draw.py        overlay, legend, figures
panels.py      the small panels they stand on
edges.py       where patches and tiles meet on the frame
sinks/         video file, label PNGs, window, MJPEG over HTTP, Prometheus
metrics.py     counters and histograms of flat memory
summary.py     what a run reports

Importing this package imports neither torch nor onnx, and PyAV only where a video is opened.
"""
