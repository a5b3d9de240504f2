"""Where tiles lie on a frame, and how their results become the frame's own pixels again.

A frame of H x W is resized to a *picture* of h x w and the picture is covered by tiles:

* ``fit``: the largest picture of the frame's aspect that one tile holds, in the tile's middle;
* ``cover``: the frame times ``scale``, under as few tiles as overlap by at least ``overlap``,
  evenly spread.

A tile hangs over the picture's edge where the picture is smaller than a tile or no multiple of 4;
there it holds the picture's reflection, which never reaches the output. Every tile begins at a
multiple of 4 from the first, so that the tiles' stride-4 logits fall on one grid and are blended
there, before anything is interpolated: the grid is what one large tile would have given.

Output pixel Y lies at ``(Y + 1/2) * h / H`` pixels of the picture, and, p being the number of
pixels the first tile begins before the picture, at ``((Y + 1/2) * h / H + p) / 4 - 1/2`` steps of
the grid. One bilinear sampling goes from the grid to the frame, whatever the sizes.

The blend weights are separable. Along one axis, where tile k overlaps its neighbours by l and r
cells, its ramp is ``min(1, (i + 1/2) / l, (size - i - 1/2) / r)`` at cell i, divided by the sum of
all ramps there: one where a tile is alone, never zero, least at the tile's edge, where the network
knew least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.kernels import Axis, Taps, resize_taps

TileMode: TypeAlias = Literal["fit", "cover"]

STRIDE = 4
"""Pixels per cell of the logits' grid."""

DEFAULT_OVERLAP = 0.25
"""Least part of a tile that it shares with its neighbour."""

MAX_TILES = 4096
"""More tiles than this for one frame is a mistaken scale, not a wish."""

MAX_PICTURE = 1 << 28
"""Most pixels of a picture: 0.8 GB."""

MAX_TILED = 1 << 29
"""Most pixels of a frame's tiles together: their logits take 2.5 GB with 19 classes."""

MAX_SIDE = 1 << 16
"""Longest side of a picture, in pixels."""


@dataclass(frozen=True, eq=False)
class TilePlan:
    """How frames of one size are cut up and put together. Made by ``plan_tiles``; immutable.

    Attributes:
        frame: (H, W) of the frames.
        picture: (h, w) they are resized to before they are cut; equal to ``frame`` if not at all.
        tile: (height, width) of a tile in pixels.
        origins: (T, 2) int32, row and column in the picture of each tile's first pixel, row-major
            over the tile grid; negative where a tile hangs over the picture's edge.
        resizing: the vertical and horizontal taps for ``resize`` from frame to picture; ``None``
            where they are of one size.
        rows, cols: the axes for ``blend_argmax``, in cells.
        row_picks, col_picks: (2, H) and (2, W) int32 tables for ``pick_labels``: of which tile
            row (column) each output row (column) is taken, and which row (column) of that tile.
    """

    frame: tuple[int, int]
    picture: tuple[int, int]
    tile: tuple[int, int]
    origins: npt.NDArray[np.int32]
    resizing: tuple[Taps, Taps] | None
    rows: Axis
    cols: Axis
    row_picks: npt.NDArray[np.int32]
    col_picks: npt.NDArray[np.int32]

    @property
    def count(self) -> int:
        """How many tiles cover a frame."""
        return len(self.origins)

    def patch_edges(
        self, patch: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Where the edges of the network's patches fall inside the frame, to draw them.

        Args:
            patch: (height, width) of a patch in pixels of a tile.

        Returns:
            Row and column positions in pixels of the frame, ascending, strictly inside it.
        """
        if min(patch) < 1:
            raise ValueError(f"a patch of {patch[0]}x{patch[1]} pixels has no edges")
        found = []
        for dim in range(2):
            starts = np.unique(self.origins[:, dim]).astype(np.float64)
            steps = np.append(np.arange(0, self.tile[dim], patch[dim]), self.tile[dim])
            edges = np.unique(starts[:, None] + steps) * self.frame[dim] / self.picture[dim]
            found.append(edges[(edges > 0) & (edges < self.frame[dim])])
        return found[0], found[1]


def plan_tiles(
    frame: tuple[int, int],
    tile: tuple[int, int],
    *,
    mode: TileMode = "fit",
    overlap: float = DEFAULT_OVERLAP,
    scale: float = 1.0,
) -> TilePlan:
    """Lay tiles over frames of one size.

    Args:
        frame: (H, W) of the frames, from 1x1 up.
        tile: (height, width) of the engine's input; multiples of 4.
        mode: ``fit`` or ``cover``, see the module.
        overlap: for ``cover``, the least part of a tile shared with its neighbour, 0 <= o < 1.
        scale: for ``cover``, the picture's size over the frame's.

    Raises:
        UsageError: an option out of range, more than 4096 tiles, or gigabytes for one frame.
        ValueError: a size that is none.
    """
    if min(frame) < 1 or max(frame) > MAX_SIDE:
        raise ValueError(f"a frame of {frame[0]}x{frame[1]} pixels cannot be tiled")
    if min(tile) < STRIDE or tile[0] % STRIDE or tile[1] % STRIDE:
        raise ValueError(f"a tile of {tile[0]}x{tile[1]} pixels is no multiple of {STRIDE}")
    check_options(mode, overlap, scale)
    picture = _fitted(frame, tile) if mode == "fit" else _scaled(frame, scale)
    starts = [_starts(picture[dim], tile[dim], overlap) for dim in range(2)]
    if len(starts[0]) * len(starts[1]) > MAX_TILES:
        raise UsageError(
            f"covering {picture[0]}x{picture[1]} pixels takes {len(starts[0])}x{len(starts[1])} "
            f"tiles of {tile[0]}x{tile[1]}; lower --overlap or --scale"
        )
    pixels = len(starts[0]) * len(starts[1]) * tile[0] * tile[1]
    if mode == "cover" and (picture[0] * picture[1] > MAX_PICTURE or pixels > MAX_TILED):
        raise UsageError(
            f"covering {picture[0]}x{picture[1]} pixels with {len(starts[0])}x{len(starts[1])} "
            f"tiles of {tile[0]}x{tile[1]} takes gigabytes a frame; lower --overlap or --scale"
        )
    axes = [_axis(starts[d], frame[d], picture[d], tile[d]) for d in range(2)]
    picks = [_picks(axes[d], starts[d], frame[d], picture[d]) for d in range(2)]
    grid = np.meshgrid(starts[0], starts[1], indexing="ij")
    origins = np.stack(grid, axis=-1).reshape(-1, 2).astype(np.int32)
    origins.flags.writeable = False
    resizing = None
    if picture != frame:
        resizing = (resize_taps(frame[0], picture[0]), resize_taps(frame[1], picture[1]))
    return TilePlan(frame, picture, tile, origins, resizing, axes[0], axes[1], picks[0], picks[1])


def check_options(mode: str, overlap: float, scale: float) -> None:
    """Refuse tiling options that cannot be, before the first frame is there.

    Raises:
        UsageError: naming the option.
    """
    if mode not in ("fit", "cover"):
        raise UsageError(f"--tiles {mode} is neither 'fit' nor 'cover'")
    if not 0 <= overlap < 1:
        raise UsageError(f"--overlap {overlap} is not within 0 <= overlap < 1")
    if not (0 < scale <= 16):
        raise UsageError(f"--scale {scale} is not within 0 < scale <= 16")
    if mode == "fit" and scale != 1:
        raise UsageError("--scale needs --tiles cover: 'fit' chooses the scale itself")


def _fitted(frame: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the frame's aspect within a tile; the tighter side fits exactly."""
    factor = min(tile[0] / frame[0], tile[1] / frame[1])
    height, width = (
        min(tile[dim], max(1, math.floor(frame[dim] * factor + 0.5))) for dim in range(2)
    )
    return height, width


def _scaled(frame: tuple[int, int], scale: float) -> tuple[int, int]:
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in frame)
    if max(height, width) > MAX_SIDE:
        raise UsageError(
            f"--scale {scale} makes a picture of {height}x{width} pixels; "
            f"the longest side may have {MAX_SIDE}"
        )
    return height, width


def _starts(picture: int, tile: int, overlap: float) -> npt.NDArray[np.int64]:
    """First pixel of each tile along one axis, in the picture; steps are multiples of 4.

    With s = ceil(picture / 4) cells to cover by tiles of t and a shared part of at least v, there
    are n = ceil((s - t) / (t - v)) + 1 tiles, tile k at cell floor(k (s - t) / (n - 1)). Since
    (s - t) / (n - 1) <= t - v, no step is longer than t - v.
    """
    if picture <= tile:
        return np.array([-((tile - picture) // 2 // STRIDE * STRIDE)])
    cells = tile // STRIDE
    last = -(-picture // STRIDE) - cells
    shared = min(math.ceil(overlap * cells), cells - 1)
    gaps = -(-last // (cells - shared))
    return np.arange(gaps + 1) * last // gaps * STRIDE


def _axis(starts: npt.NDArray[np.int64], frame: int, picture: int, tile: int) -> Axis:
    size = tile // STRIDE
    origins = (starts - starts[0]) // STRIDE
    position = ((np.arange(frame) + 0.5) * picture / frame - starts[0]) / STRIDE - 0.5
    index = np.floor(position)
    return Axis(
        size=size,
        origins=origins,
        weights=_ramps(origins, size),
        cells=(index + 1).astype(np.int32),
        fractions=(position - index).astype(np.float32),
    )


def _ramps(origins: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float32]:
    """Blend weights (n, size), see the module."""
    middle = np.arange(size) + 0.5
    ramps = np.ones((len(origins), size))
    shared = size - np.diff(origins)
    for k, overlap in enumerate(shared):
        if overlap > 0:
            ramps[k] = np.minimum(ramps[k], (size - middle) / overlap)
            ramps[k + 1] = np.minimum(ramps[k + 1], middle / overlap)
    total = np.zeros(int(origins[-1]) + size)
    for origin, ramp in zip(origins, ramps, strict=True):
        total[origin : origin + size] += ramp
    for origin, ramp in zip(origins, ramps, strict=True):
        ramp /= total[origin : origin + size]
    return ramps.astype(np.float32)


def _picks(
    axis: Axis, starts: npt.NDArray[np.int64], frame: int, picture: int
) -> npt.NDArray[np.int32]:
    """(2, frame): the tile with the greatest weight at each sample's nearest pixel, and the place.

    Labels cannot be averaged, so each pixel is taken from the tile that sees it farthest from
    that tile's edge.
    """
    nearest = np.floor((np.arange(frame) + 0.5) * picture / frame).astype(np.int64)
    canvas = np.minimum(nearest, picture - 1) - starts[0]
    cell = canvas // STRIDE
    heaviest = np.full(frame, -1.0)
    table = np.zeros((2, frame), np.int32)
    for k, origin in enumerate(axis.origins.astype(np.int64)):
        inside = (cell >= origin) & (cell < origin + axis.size)
        weight = np.where(inside, axis.weights[k][np.clip(cell - origin, 0, axis.size - 1)], -1)
        better = weight > heaviest
        heaviest[better] = weight[better]
        table[0, better] = k
        table[1, better] = (canvas - origin * STRIDE)[better]
    table.flags.writeable = False
    return table
