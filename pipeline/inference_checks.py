"""What an engine, a frame and a label map must be for ``pipeline.inference``."""

from __future__ import annotations

import numpy as np

from pipeline.engines.base import Engine
from pipeline.errors import EngineError
from pipeline.tiles import STRIDE


def engine_shape(engine: Engine) -> tuple[int, int, int, int | None]:
    """(batch, height, width, classes) of an engine; classes is ``None`` where it gives labels.

    Raises:
        EngineError: its input or output is neither kind of ``engines.base``.
    """
    if len(engine.inputs) != 1 or len(engine.outputs) != 1:
        raise EngineError(f"{engine.info.path} has not exactly one input and one output")
    given, gives = engine.inputs[0], engine.outputs[0]
    if given.layout != "NHWC" or given.dtype != "uint8" or given.shape[3:] != (3,):
        raise EngineError(
            f"{engine.info.path} takes {given.dtype} {given.layout} {given.shape}, "
            "not uint8 NHWC frames of 3 channels"
        )
    batch, height, width = given.shape[:3]
    if height % STRIDE or width % STRIDE:
        raise EngineError(
            f"{engine.info.path} takes frames of {height}x{width}, no multiple of {STRIDE}"
        )
    if gives.layout == "NHW" and gives.dtype == "uint8" and gives.shape == (batch, height, width):
        return batch, height, width, None
    if gives.layout == "NCHW" and gives.dtype == "float32" and len(gives.shape) == 4:
        classes = gives.shape[1]
        expected = (batch, classes, height // STRIDE, width // STRIDE)
        if gives.shape == expected:
            return batch, height, width, classes
    raise EngineError(
        f"{engine.info.path} gives {gives.dtype} {gives.layout} {gives.shape}, neither float32 "
        "NCHW logits at stride 4 nor uint8 NHW labels of its input's size"
    )


def check_frame(bgr: object) -> None:
    """Refuse what is no (H, W, 3) uint8 C-contiguous array, by ``TypeError`` or ``ValueError``."""
    if not isinstance(bgr, np.ndarray) or bgr.dtype != np.uint8:
        kind = bgr.dtype if isinstance(bgr, np.ndarray) else type(bgr).__name__
        raise TypeError(f"a frame is a uint8 array, not {kind}")
    if bgr.ndim != 3 or bgr.shape[2] != 3 or 0 in bgr.shape:
        raise ValueError(f"a frame has shape (H, W, 3), not {bgr.shape}")
    if not bgr.flags.c_contiguous:
        raise ValueError("a frame is C-contiguous; pass np.ascontiguousarray(frame)")


def check_labels(out: object, shape: tuple[int, int]) -> None:
    """Refuse what is no writable C-contiguous uint8 array of this shape, in the same way."""
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8:
        raise TypeError("out is a uint8 array")
    if out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out is a writable C-contiguous array of shape {shape}")
