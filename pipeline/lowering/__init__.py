"""Lowering: a deploy-form network becomes an ONNX graph, one node at a time, under its own names.

The graph is written by hand rather than traced: every node is called after the module it came
from, FC3 is a MatMul in the layout that needs the fewest transposes, and BatchNorms, the image's
normalisation and its channel order are folded where that is exact.
"""
