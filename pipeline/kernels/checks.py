"""What an argument must be before its address is handed to C.

A wrong one is a programmer's error, hence the built-in exception types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.kernels.axis import MAX_EXTENT


def check_array(
    name: str,
    value: object,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
    *,
    writable: bool = False,
) -> None:
    """Refuse anything but a C-contiguous, aligned, native array of this dtype and shape.

    Args:
        name: how the message calls it.
        value: what was passed.
        dtype: the exact dtype.
        shape: the exact shape; ``None`` is any length from 1 up.
        writable: whether it is written to.

    Raises:
        TypeError: not an ndarray, or another dtype.
        ValueError: another shape, empty, not contiguous, misaligned, read-only.
    """
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy array, not {type(value).__name__}")
    array: npt.NDArray[Any] = value
    if array.dtype != np.dtype(dtype) or not array.dtype.isnative:
        raise TypeError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    fits = array.ndim == len(shape) and all(
        have == want if want is not None else 0 < have <= MAX_EXTENT
        for have, want in zip(array.shape, shape, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {array.shape}, expected ({wanted})")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"{name} is not C-contiguous; pass np.ascontiguousarray({name})")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} is read-only")


def check_apart(name: str, out: npt.NDArray[Any], *others: npt.NDArray[Any]) -> None:
    """Refuse an output that shares memory with an input: the input would change while it is read.

    Raises:
        ValueError: they overlap.
    """
    if any(np.may_share_memory(out, other) for other in others):
        raise ValueError(f"{name} shares memory with an input")
