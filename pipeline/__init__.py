"""From artifact to artifact: stages, engines, the inference path, video, report."""

PRECISIONS = ("fp32", "fp16", "int8", "int8+fp16")
"""What an engine may be built in; the last is TensorRT's, with fp16 where int8 is not."""

BACKENDS = ("openvino", "tensorrt", "all")
"""What an engine may be built for; the last is both."""

DEFAULT_SHAPE = (512, 1024)
"""(height, width) of an engine's input unless told otherwise."""
