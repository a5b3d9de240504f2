"""Resampling along one axis as a matrix: what adaptive pooling and bilinear upsampling are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pooling_matrix(size: int, bins: int) -> npt.NDArray[np.float64]:
    """(bins, size): adaptive average pooling. Bin i averages floor(in/b) to ceil((i+1)n/b)."""
    matrix = np.zeros((bins, size))
    for i in range(bins):
        start, stop = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


def bilinear_matrix(size: int, target: int) -> npt.NDArray[np.float64]:
    """(target, size): half-pixel linear interpolation, clamped at the ends.

    Output t lies at (t + 1/2) size / target - 1/2 of the input.
    """
    matrix = np.zeros((target, size))
    for t in range(target):
        position = max((t + 0.5) * size / target - 0.5, 0.0)
        low = min(int(position), size - 1)
        high = min(low + 1, size - 1)
        part = position - low
        matrix[t, low] += 1.0 - part
        matrix[t, high] += part
    return matrix
