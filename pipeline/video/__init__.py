"""Video in, segmented video out: sources, the threads between, drawing, sinks.

source.py      what a source is, and how its name is read
readers/       one module per kind of source: FFmpeg (files, URLs), camera, images, streets
patience.py    calls that may never return, given a hard end
feed.py        a source kept open: newest frame of a live one, every frame of a file
frames.py      Frame, Segmentation, and the pools they live in
runner.py      capture -> infer -> output, overlapped; one failure stops all
output.py      one stream's end of the pipeline: draw, then the sinks
draw.py        overlay, legend, figures
sinks/         video file, label PNGs, window, MJPEG over HTTP, Prometheus
metrics.py     counters and histograms of flat memory
summary.py     what a run reports

Importing this package imports neither torch nor onnx, and PyAV only where a video is opened.
"""
