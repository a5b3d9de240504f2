"""Which source pixels make up each pixel of a resized axis, and by how much.

With f = source / target, pixel x of the target covers the source from ``x f`` to ``(x + 1) f``.

* shrinking (f > 1): its value is the mean over that stretch, so the weight of source pixel i is
  the length of ``[i, i + 1] ∩ [x f, (x + 1) f]`` over f. Every source pixel counts alike and
  nothing is aliased; OpenCV calls it ``INTER_AREA``.
* enlarging (f <= 1): linear interpolation at the stretch's middle, between the two source pixels
  whose middles lie around it; beyond the outermost middles the edge repeats. OpenCV's
  ``INTER_LINEAR``.

Weights are whole 16384ths (``ONE``) that sum to exactly one, so that a resize is exact arithmetic
in integers: every kernel gives the same bytes, and one colour stays that colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.kernels.axis import MAX_EXTENT, Int32Array

Int16Array = npt.NDArray[np.int16]

ONE: Final = 16384
"""What the weights of a target pixel sum to; EDGE_TAPS_ONE in kernels.h."""


@dataclass(frozen=True, eq=False)
class Taps:
    """Weights of one axis. Made by ``resize_taps``; read-only.

    Attributes:
        source: length of the source axis.
        first: (target,) int32, the first source pixel of each target pixel.
        weights: (target, taps) int16, those of source pixels first .. first + taps - 1, which
            all exist, in 16384ths; a row sums to 16384.
    """

    source: int
    first: Int32Array
    weights: Int16Array

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.first.shape != self.weights.shape[:1]:
            raise ValueError("taps need one row of weights for each first pixel")
        if self.first.dtype != np.int32 or self.weights.dtype != np.int16:
            raise ValueError("taps are int32 positions and int16 weights")
        last = self.first.astype(np.int64) + self.weights.shape[1]
        if not len(self.first) or self.first.min() < 0 or last.max() > self.source:
            raise ValueError(f"taps lie outside the {self.source} pixels of their source")
        sums = self.weights.sum(axis=1, dtype=np.int64)
        if not ((self.weights >= 0).all() and (sums == ONE).all()):
            raise ValueError(f"weights of taps must not be negative, and sum to {ONE}")
        if not (self.first.flags.c_contiguous and self.weights.flags.c_contiguous):
            raise ValueError("taps must be C-contiguous")
        self.first.flags.writeable = False
        self.weights.flags.writeable = False

    @property
    def target(self) -> int:
        """Length of the resized axis."""
        return len(self.first)


def resize_taps(source: int, target: int) -> Taps:
    """The taps that resize an axis, see the module.

    Raises:
        ValueError: a length that is none.
    """
    if not (1 <= source <= MAX_EXTENT and 1 <= target <= MAX_EXTENT):
        raise ValueError(f"an axis of {source} pixels cannot become one of {target}")
    factor = source / target
    begin: npt.NDArray[np.float64] = np.arange(target, dtype=np.float64) * factor
    if source > target:
        return _mean_taps(source, begin, begin + factor)
    middle = np.clip(begin + factor / 2 - 0.5, 0, source - 1)
    first = np.minimum(np.floor(middle), max(source - 2, 0))
    after = middle - first
    weights = np.stack([1 - after, after], axis=1)[:, : min(source, 2)]
    return Taps(source, first.astype(np.int32), _whole(weights))


def _mean_taps(source: int, begin: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> Taps:
    # A hair's breadth of a pixel is rounding, not part of the stretch.
    low = np.floor(begin + 1e-9).astype(np.int64)
    high = np.minimum(np.ceil(end - 1e-9).astype(np.int64), source)
    taps = int((high - low).max())
    first = np.minimum(low, source - taps)
    pixel = first[:, None] + np.arange(taps)
    covered = np.minimum(pixel + 1, end[:, None]) - np.maximum(pixel, begin[:, None])
    covered[(pixel < low[:, None]) | (pixel >= high[:, None])] = 0
    weights = np.maximum(covered, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return Taps(source, first.astype(np.int32), _whole(weights))


def _whole(weights: npt.NDArray[np.float64]) -> Int16Array:
    """Rows that sum to one in whole ``ONE``ths that do: what rounding down left goes to those that
    lost most by it."""
    scaled = weights * ONE
    whole = np.floor(scaled).astype(np.int64)
    missing = ONE - whole.sum(axis=1)
    rank = np.argsort(np.argsort(whole - scaled, axis=1, kind="stable"), axis=1)
    return np.ascontiguousarray(whole + (rank < missing[:, None]), np.int16)
