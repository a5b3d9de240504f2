"""One axis of a tiled picture: where tiles lie on it, how they blend, where the output samples it.

Everything the kernels do along y they do along x too, so a two-dimensional plan is two of these.

The unit is the *cell*, one step of the logits' stride-4 grid. Tiles ``k = 0 .. n-1``, each ``size``
cells long, begin at ``origins[k]`` and together form one grid of ``extent = origins[-1] + size``
cells. There the network's outputs live, so there they are blended:

    grid[g] = sum over k of weights[k, g - origins[k]] * tile_k[g - origins[k]]

Output sample ``u`` lies between grid points ``cells[u] - 1`` and ``cells[u]``, a fraction
``fractions[u]`` of the way; a point outside the grid repeats its edge:

    out[u] = (1 - fractions[u]) * grid[clip(cells[u] - 1)] + fractions[u] * grid[clip(cells[u])]

For an up-sampling by 4 that is exactly torch's ``interpolate(mode="bilinear",
align_corners=False)``: sample u lies at (u + 1/2) / 4 - 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]

MAX_EXTENT = 1 << 24
"""Longest axis, in cells and in samples: far beyond any picture, far below int32's end."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a tiled picture. Immutable: the arrays are copied and made read-only.

    Args:
        size: length of a tile, in cells.
        origins: (n,) where each tile begins, in cells; the first at 0, ascending, without gaps.
        weights: (n, size) blend weights, all > 0, which sum to one at every grid point.
        cells: (samples,) ascending, 0 .. extent: the sample lies between grid points c-1 and c.
        fractions: (samples,) 0 <= f <= 1, how far along it lies.

    Raises:
        ValueError: where one of these does not hold.
    """

    size: int
    origins: Int32Array
    weights: Float32Array
    cells: Int32Array
    fractions: Float32Array

    def __post_init__(self) -> None:
        for name, dtype in (
            ("origins", np.int32),
            ("weights", np.float32),
            ("cells", np.int32),
            ("fractions", np.float32),
        ):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), dtype))
        self._check_tiles()
        self._check_samples()

    @property
    def tiles(self) -> int:
        """How many tiles lie along this axis."""
        return len(self.origins)

    @property
    def extent(self) -> int:
        """Length of the blended grid, in cells."""
        return int(self.origins[-1]) + self.size

    @property
    def samples(self) -> int:
        """Length of the output along this axis, in pixels."""
        return len(self.cells)

    def _check_tiles(self) -> None:
        if self.origins.ndim != 1 or not len(self.origins) or self.size < 1:
            raise ValueError("an axis needs at least one tile of at least one cell")
        steps = np.diff(self.origins.astype(np.int64))
        if self.origins[0] != 0 or (steps < 0).any() or (steps > self.size).any():
            raise ValueError("tile origins must begin at 0, ascend, and leave no gap")
        if self.extent > MAX_EXTENT:
            raise ValueError(f"an axis of {self.extent} cells is longer than {MAX_EXTENT}")
        if self.weights.shape != (len(self.origins), self.size):
            raise ValueError(
                f"weights have shape {self.weights.shape}, expected "
                f"{(len(self.origins), self.size)}"
            )
        total = np.zeros(self.extent)
        for origin, weight in zip(self.origins, self.weights, strict=True):
            total[origin : origin + self.size] += weight
        if not ((self.weights > 0).all() and np.allclose(total, 1, atol=1e-5)):
            raise ValueError("blend weights must be positive and sum to one at every cell")

    def _check_samples(self) -> None:
        cells, fractions = self.cells, self.fractions
        if cells.ndim != 1 or cells.shape != fractions.shape or not len(cells):
            raise ValueError("cells and fractions must be two lists of the same length, not empty")
        if len(cells) > MAX_EXTENT:
            raise ValueError(f"an output of {len(cells)} pixels is longer than {MAX_EXTENT}")
        if cells[0] < 0 or cells[-1] > self.extent or (np.diff(cells) < 0).any():
            raise ValueError(f"cells must ascend within 0 .. {self.extent}")
        if not ((fractions >= 0) & (fractions <= 1)).all():
            raise ValueError("fractions must lie within 0 .. 1")


def _frozen(name: str, value: object, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A private read-only copy; integers must be integers, so that nothing is truncated."""
    array = np.asarray(value)
    if array.dtype.kind not in ("iu" if dtype is np.int32 else "iuf"):
        raise ValueError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    copy = np.array(array, dtype=dtype, order="C", copy=True)
    if not np.array_equal(copy, array) and dtype is np.int32:
        raise ValueError(f"{name} does not fit into int32")
    copy.flags.writeable = False
    return copy
