"""What each kernel computes, written to be read. The C kernels give the same bytes.

Used as the oracle of the tests and where no C compiler is. Arguments are those of the public
functions of the package, already checked; ``threads`` is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.kernels.axis import Axis, Float32Array, Int32Array
from pipeline.kernels.colours import Colours
from pipeline.kernels.taps import Taps

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
IntArray = npt.NDArray[np.integer]
LogitTiles: TypeAlias = Sequence[Float32Array] | Float32Array
LabelTiles: TypeAlias = Sequence[UInt8Array] | UInt8Array
"""Tiles one by one, or as one array whose first axis they are."""

NO_CLASS = 255
"""The label of a pixel where no class has a value above minus infinity."""


def resize(frame: UInt8Array, rows: Taps, cols: Taps, out: UInt8Array, threads: int = 1) -> None:
    """``out[y, x] = round(sum over k of rows[y, k] * sum over l of cols[x, l] * frame[...])``.

    In whole numbers: across first, rounded to 64ths; then down, rounded to bytes; halves up.
    """
    across = (_weighted(frame.transpose(1, 0, 2), cols) + (1 << 7)) >> 8
    down = (_weighted(across.transpose(1, 0, 2), rows) + (1 << 19)) >> 20
    out[...] = down.astype(np.uint8)


def _weighted(array: IntArray, taps: Taps) -> Int64Array:
    """The taps applied to the first axis, in ``taps.ONE``ths."""
    total = np.zeros((taps.target, *array.shape[1:]), np.int64)
    for k in range(taps.weights.shape[1]):
        total += taps.weights[:, k, None, None].astype(np.int64) * array[taps.first + k]
    return total


def reflect(index: IntArray, length: int) -> IntArray:
    """Fold any index into 0 .. length-1 by mirrors at the first and last pixel's centre.

    OpenCV's ``BORDER_REFLECT_101``, ``dcb|abcd|cba``, continued for ever: the period is
    2 (length - 1), and a single pixel repeats.
    """
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.mod(index, period)
    mirrored: IntArray = np.minimum(folded, period - folded)
    return mirrored


def cut_tiles(frame: UInt8Array, origins: Int32Array, out: UInt8Array, threads: int = 1) -> None:
    """``out[t, y, x] = frame[reflect(origins[t, 0] + y), reflect(origins[t, 1] + x)]``."""
    height, width = frame.shape[:2]
    for tile, (y, x) in zip(out, origins.astype(np.int64), strict=True):
        rows = reflect(np.arange(tile.shape[0]) + y, height)
        columns = reflect(np.arange(tile.shape[1]) + x, width)
        tile[...] = frame[rows[:, None], columns]


def blend(tiles: LogitTiles, rows: Axis, cols: Axis) -> Float32Array:
    """The tiles' logits (C, h, w), row-major over the tile grid, as one grid (C, H, W)."""
    grid = np.zeros((len(tiles[0]), rows.extent, cols.extent), np.float32)
    for index, tile in enumerate(tiles):
        i, j = divmod(index, cols.tiles)
        y, x = int(rows.origins[i]), int(cols.origins[j])
        weight = rows.weights[i][:, None] * cols.weights[j]
        grid[:, y : y + rows.size, x : x + cols.size] += weight * tile
    return grid


def winners(values: Float32Array) -> UInt8Array:
    """The first class of greatest value, over axis 0; NaN and minus infinity never win."""
    best = np.full(values.shape[1:], -np.inf, np.float32)
    label = np.full(values.shape[1:], NO_CLASS, np.uint8)
    for index, value in enumerate(values):
        better = value > best
        np.copyto(best, value, where=better)
        label[better] = index
    return label


def blend_argmax(
    tiles: LogitTiles, rows: Axis, cols: Axis, out: UInt8Array, threads: int = 1
) -> None:
    """Blend on the stride-4 grid, sample it bilinearly, label each pixel with its winner.

    Where one class wins at all four grid points around a pixel it wins the pixel: a convex
    combination keeps the order of its terms. Said explicitly, because rounding may turn "greater
    at each corner" into a tie between them, and because the kernel need not look at such cells.
    Elsewhere the products and sums are single precision, vertical first, never contracted.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        grid = blend(tiles, rows, cols)
        corner = winners(grid)
        y0, y1 = _neighbours(rows)
        x0, x1 = _neighbours(cols)
        fy, fx = rows.fractions[:, None], cols.fractions
        best = np.full(out.shape, -np.inf, np.float32)
        out[...] = NO_CLASS
        for index, plane in enumerate(grid):
            lines = (np.float32(1) - fy) * plane[y0] + fy * plane[y1]
            value = (np.float32(1) - fx) * lines[:, x0] + fx * lines[:, x1]
            better = value > best
            np.copyto(best, value, where=better)
            out[better] = index
    above, below = corner[y0], corner[y1]
    first = above[:, x0]
    agreed = (first == above[:, x1]) & (first == below[:, x0]) & (first == below[:, x1])
    out[agreed] = first[agreed]


def _neighbours(axis: Axis) -> tuple[IntArray, IntArray]:
    """The grid points before and after each sample, edges repeated."""
    last = axis.extent - 1
    return np.clip(axis.cells - 1, 0, last), np.clip(axis.cells, 0, last)


def pick_labels(
    tiles: LabelTiles,
    rows: Int32Array,
    cols: Int32Array,
    per_row: int,
    out: UInt8Array,
    threads: int = 1,
) -> None:
    """``out[y, x] = tiles[rows[0, y] * per_row + cols[0, x]][rows[1, y], cols[1, x]]``."""
    for i in np.unique(rows[0]):
        ys = np.flatnonzero(rows[0] == i)
        for j in np.unique(cols[0]):
            xs = np.flatnonzero(cols[0] == j)
            tile = tiles[int(i) * per_row + int(j)]
            out[np.ix_(ys, xs)] = tile[np.ix_(rows[1, ys], cols[1, xs])]


def overlay(
    frame: UInt8Array, labels: UInt8Array, colours: Colours, out: UInt8Array, threads: int = 1
) -> None:
    """``(frame * (256 - a) + colour * a + 128) >> 8`` where the label is painted, else the frame.

    Whole numbers throughout: opacity 0 gives the frame and opacity 1 the colour, exactly.
    """
    alpha = colours.alpha
    mixed = frame.astype(np.uint32) * (256 - alpha)
    entries = colours.entries[labels]
    mixed += entries[..., :3].astype(np.uint32) * alpha + 128
    painted = entries[..., 3:] != 0
    out[...] = np.where(painted, (mixed >> 8).astype(np.uint8), frame)


def confusion(
    truth: UInt8Array, prediction: UInt8Array, classes: int, ignore: int, threads: int = 1
) -> Int64Array:
    """Counts (classes + 1, classes + 1): row truth, column prediction.

    The last column counts predictions that are no class, the last row truths that are none; where
    the truth is ``ignore`` a pixel is not counted at all.
    """
    counted = truth != ignore
    rows = np.minimum(truth[counted], classes).astype(np.int64)
    columns = np.minimum(prediction[counted], classes).astype(np.int64)
    side = classes + 1
    return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)
