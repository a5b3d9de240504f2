"""Quantiles close to either end of large arrays, to the bit as ``numpy.quantile`` has them.

A percentile range asks each activation of each frame for its 0.01 and 99.99 percentiles, and
``numpy.quantile`` moves the whole array about, in float64, to find the two. Both lie among the few
values beyond a threshold that a sample suggests. Those are gathered and sorted out alone, and
whether they were enough is known, not hoped for: the threshold only decides how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_SAMPLES, _STRIDE = 1 << 14, 16
_WORTH_IT = 1 << 12
"""Values below which NumPy's own way takes no longer."""
_FAR_FROM_ENDS = 0.01
"""A quantile further in than this has too many values beyond it to gather."""


def quantiles(
    a: npt.NDArray[Any], q: float | Sequence[float], axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """``numpy.quantile`` of ``a`` in float64, by its default ``linear`` method (Hyndman and Fan,
    type 7).

    Args:
        a: numbers of any shape.
        q: one quantile or several, from 0 to 1.
        axis: what is reduced; everything by default.
        keepdims: keep reduced axes, of size 1.

    Returns:
        float64, the axis of ``q`` (where it is a sequence) before those of ``a`` that are left.
    """
    wanted = np.asarray(q, np.float64)
    reduced = _axes(axis, a.ndim)
    kept = [i for i in range(a.ndim) if i not in reduced]
    rows = a.transpose(*kept, *reduced).reshape(*(a.shape[i] for i in kept), -1)
    near_ends = np.all(np.minimum(wanted, 1 - wanted) <= _FAR_FROM_ENDS)
    if a.dtype != np.float32 or rows.shape[-1] < _WORTH_IT or not near_ends:
        found = np.quantile(a.astype(np.float64), q, axis=tuple(reduced), keepdims=keepdims)
        return np.asarray(found)
    flat = rows.reshape(-1, rows.shape[-1])
    each = np.array([[_quantile(row, float(one)) for row in flat] for one in wanted.ravel()])
    left = [1 if i in reduced else a.shape[i] for i in range(a.ndim)] if keepdims else (
        [a.shape[i] for i in kept]
    )  # fmt: skip
    return each.reshape(*wanted.shape, *left)


def _axes(axis: int | Sequence[int] | None, dimensions: int) -> list[int]:
    if axis is None:
        return list(range(dimensions))
    return sorted({i % dimensions for i in ([axis] if isinstance(axis, int) else axis)})


def _quantile(row: npt.NDArray[np.float32], q: float) -> float:
    place = q * (row.size - 1)
    below = int(place)
    share = place - below
    above = min(below + 1, row.size - 1)
    if q <= 0.5:
        low, high = _smallest(row, below, above)
    else:
        high, low = (-v for v in _smallest(-row, row.size - 1 - above, row.size - 1 - below))
    # As NumPy does it, so that not even the last bit differs.
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def _smallest(row: npt.NDArray[np.float32], first: int, second: int) -> tuple[float, float]:
    """The values at two neighbouring places near the beginning of the sorted row."""
    least = row.min()
    if np.isnan(least):
        return float("nan"), float("nan")
    if np.count_nonzero(row == least) > second:  # as behind a ReLU, whose least is half of it
        return float(least), float(least)
    sample = np.sort(row[:: max(row.size // _SAMPLES, _STRIDE)])
    # Twice as many as are asked for, and some more for the sample's own luck.
    limit = sample[min(2 * (second + 1) * sample.size // row.size + 16, sample.size - 1)]
    few = row[row <= limit]
    if few.size <= second:
        few = row.copy()
    few.partition((first, second))
    return float(few[first]), float(few[second])
