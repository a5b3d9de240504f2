from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.kernels import Axis
from pipeline.kernels.axis import MAX_EXTENT
from tests.pipeline.kernels.axes import upsample_axis


def test_half_pixel_positions() -> None:
    axis = upsample_axis(3)
    position = axis.cells - 1 + axis.fractions
    np.testing.assert_allclose(position, (np.arange(12) + 0.5) / 4 - 0.5)
    assert (axis.tiles, axis.extent, axis.samples) == (1, 3, 12)


def test_it_keeps_its_own_copy() -> None:
    weights = np.ones((1, 2), np.float32)
    axis = Axis(
        2, np.array([0], np.int32), weights, np.array([1], np.int32), np.array([0.5], np.float32)
    )
    weights[...] = 7
    assert (axis.weights == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        axis.cells[0] = 9


@pytest.mark.parametrize(
    ("size", "origins", "weights", "cells", "fractions"),
    [
        (0, [0], np.ones((1, 0)), [0], [0]),
        (2, [], np.ones((0, 2)), [0], [0]),
        (2, [1], np.ones((1, 2)), [0], [0]),
        (2, [0, -1], np.ones((2, 2)), [0], [0]),
        (2, [0, 3], np.ones((2, 2)), [0], [0]),
        (2, [0], np.ones((1, 3)), [0], [0]),
        (2, [0], np.ones((2, 2)), [0], [0]),
        (2, [0], np.full((1, 2), 0.9), [0], [0]),
        (2, [0], [[1, np.nan]], [0], [0]),
        (2, [0, 0], [[0.0, 1], [1, 0]], [0], [0]),
        (2, [0], np.ones((1, 2)), [], []),
        (2, [0], np.ones((1, 2)), [0, 1], [0]),
        (2, [0], np.ones((1, 2)), [[0]], [[0]]),
        (2, [0], np.ones((1, 2)), [3], [0]),
        (2, [0], np.ones((1, 2)), [-1], [0]),
        (2, [0], np.ones((1, 2)), [1, 0], [0, 0]),
        (2, [0], np.ones((1, 2)), [0.5], [0]),
        (2, [0], np.ones((1, 2)), [1 << 33], [0]),
        (2, [0], np.ones((1, 2)), [0], [-0.1]),
        (2, [0], np.ones((1, 2)), [0], [1.1]),
        (2, [0], np.ones((1, 2)), [0], [np.nan]),
        (MAX_EXTENT + 1, [0], np.ones((1, 2)), [0], [0]),
    ],
)
def test_what_cannot_be(size: int, origins: Any, weights: Any, cells: Any, fractions: Any) -> None:
    with pytest.raises(ValueError, match=r"tile|axis|weights|cells|fractions|int32|origins"):
        Axis(size, origins, weights, cells, fractions)
