"""From artifact to artifact: stages, engines, the inference path, video, report."""

from typing import Literal, TypeAlias, get_args

OpenVINOPrecision: TypeAlias = Literal["fp32", "fp16", "int8"]
Precision: TypeAlias = Literal[OpenVINOPrecision, "int8+fp16"]
"""What an engine may be built in; the last is TensorRT's, with fp16 where int8 is not."""
OPENVINO_PRECISIONS: tuple[OpenVINOPrecision, ...] = get_args(OpenVINOPrecision)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
