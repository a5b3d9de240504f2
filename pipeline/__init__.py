"""From artifact to artifact: stages, engines, the inference path, video, report."""

from typing import Literal, TypeAlias, get_args

OpenVINOPrecision: TypeAlias = Literal["fp32", "fp16", "int8"]
Precision: TypeAlias = Literal[OpenVINOPrecision, "int8+fp16"]
"""What an engine may be built in; the last is TensorRT's, with fp16 where int8 is not."""
EngineBackend: TypeAlias = Literal["openvino", "tensorrt"]
Backend: TypeAlias = Literal[EngineBackend, "all"]
"""What an engine may be built for; the last is both."""
Injection: TypeAlias = Literal["full", "split", "auto", "train"]
"""Form of locality injection, see ``models.locality``: ``auto`` chooses one for each block,
``train`` merges nothing."""
OPENVINO_PRECISIONS: tuple[OpenVINOPrecision, ...] = get_args(OpenVINOPrecision)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKENDS: tuple[Backend, ...] = get_args(Backend)
INJECTIONS: tuple[Injection, ...] = get_args(Injection)

DEFAULT_SHAPE = (512, 1024)
"""(height, width) of an engine's input unless told otherwise."""
