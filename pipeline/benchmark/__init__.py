"""Speed, measured in turns within one run and shown with its spread.

statistics   medians, percentiles, ratios paired by round
schema       the object that ``scripts/benchmark.py --json`` prints
machine      what measured: CPU, versions, how busy it was
turns        contenders take turns, round by round
contenders   engines of every runtime on one tile; torch_forms holds torch's
app          OpenVINO's own benchmark_app
path         the stages of a frame's path, one after the other
runner       file to labels and file to overlay; import, and command to first frame
run          all of it, from options to the object
roofline     multiply-adds and bytes of every layer against what this CPU can do
table, page  the README's table and an HTML page, from those objects
"""
