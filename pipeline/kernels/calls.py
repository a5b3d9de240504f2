"""The kernels as Python functions: each checks its arguments and calls what was chosen.

Inputs are never modified. Wrong dtypes raise ``TypeError``; wrong shapes, non-contiguous or
read-only arrays and outputs that overlap an input raise ``ValueError``. The GIL is released while
a C kernel runs. ``threads`` is an upper bound; ``None`` means ``REPMLP_EDGE_KERNEL_THREADS``, or
what pays on this machine.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.axis import MAX_EXTENT, Axis, Int32Array
from pipeline.kernels.checks import check_apart, check_array
from pipeline.kernels.colours import Colours
from pipeline.kernels.dispatch import active, thread_count
from pipeline.kernels.reference import NO_CLASS, Int64Array, LabelTiles, LogitTiles, UInt8Array
from pipeline.kernels.taps import Taps


def resize(
    frame: UInt8Array, rows: Taps, cols: Taps, out: UInt8Array, *, threads: int | None = None
) -> None:
    """Resize a frame: means over areas where it shrinks, linear where it grows. See ``taps``.

    Args:
        frame: (rows.source, cols.source, 3) uint8.
        rows: the vertical taps.
        cols: the horizontal taps.
        out: (rows.target, cols.target, 3) uint8, written whole.
        threads: see the module.
    """
    check_array("frame", frame, np.uint8, (rows.source, cols.source, 3))
    check_array("out", out, np.uint8, (rows.target, cols.target, 3), writable=True)
    check_apart("out", out, frame)
    active().resize(frame, rows, cols, out, thread_count(threads))


def cut_tiles(
    frame: UInt8Array, origins: Int32Array, out: UInt8Array, *, threads: int | None = None
) -> None:
    """Copy tiles out of a frame, its borders reflected (OpenCV's ``BORDER_REFLECT_101``).

    Args:
        frame: (H, W, 3) uint8, any size from 1x1 up.
        origins: (T, 2) int32, row and column of each tile's first pixel; may lie outside.
        out: (T, h, w, 3) uint8, written whole: the engine's own buffer, say.
        threads: see the module.
    """
    check_array("frame", frame, np.uint8, (None, None, 3))
    check_array("origins", origins, np.int32, (None, 2))
    check_array("out", out, np.uint8, (len(origins), None, None, 3), writable=True)
    check_apart("out", out, frame, origins)
    if (np.abs(origins.astype(np.int64)) > MAX_EXTENT).any():
        raise ValueError(f"tile origins must lie within {MAX_EXTENT} pixels of the frame")
    active().cut_tiles(frame, origins, out, thread_count(threads))


def blend_argmax(
    tiles: LogitTiles,
    rows: Axis,
    cols: Axis,
    out: UInt8Array,
    *,
    threads: int | None = None,
) -> None:
    """Tiles' logits to labels: blend, sample bilinearly, take the greatest; one fused pass.

    A label is the first class of greatest value. NaN and minus infinity never win; where nothing
    else is left the label is 255. See ``reference.blend_argmax`` for the formulas.

    Args:
        tiles: rows.tiles * cols.tiles arrays (C, rows.size, cols.size) float32, row-major over the
            tile grid, 1 <= C <= 255. A (T, C, h, w) array is such a sequence.
        rows: the vertical axis.
        cols: the horizontal axis.
        out: (rows.samples, cols.samples) uint8, written whole.
        threads: see the module.
    """
    count = rows.tiles * cols.tiles
    if len(tiles) != count:
        raise ValueError(f"{len(tiles)} tiles, expected {rows.tiles} x {cols.tiles}")
    check_array("tiles[0]", tiles[0], np.float32, (None, rows.size, cols.size))
    classes = len(tiles[0])
    if classes > NO_CLASS:
        raise ValueError(f"{classes} classes do not fit into uint8 labels")
    for index, tile in enumerate(tiles):
        check_array(f"tiles[{index}]", tile, np.float32, (classes, rows.size, cols.size))
        check_apart("out", out, tile)
    check_array("out", out, np.uint8, (rows.samples, cols.samples), writable=True)
    active().blend_argmax(tiles, rows, cols, out, thread_count(threads))


def pick_labels(
    tiles: LabelTiles,
    rows: Int32Array,
    cols: Int32Array,
    per_row: int,
    out: UInt8Array,
    *,
    threads: int | None = None,
) -> None:
    """Labels of overlapping tiles, each pixel from the one tile and place that its tables name.

    ``out[y, x] = tiles[rows[0, y] * per_row + cols[0, x]][rows[1, y], cols[1, x]]``

    Args:
        tiles: arrays (h, w) uint8, row-major over the tile grid.
        rows: (2, H) int32, tile row and row within the tile, of each output row.
        cols: (2, W) int32, the same for columns.
        per_row: tiles in a row of the tile grid.
        out: (H, W) uint8, written whole.
        threads: see the module.
    """
    check_array("rows", rows, np.int32, (2, None))
    check_array("cols", cols, np.int32, (2, None))
    check_array("out", out, np.uint8, (rows.shape[1], cols.shape[1]), writable=True)
    if not len(tiles) or per_row < 1 or len(tiles) % per_row:
        raise ValueError(f"{len(tiles)} tiles do not make rows of {per_row}")
    check_array("tiles[0]", tiles[0], np.uint8, (None, None))
    height, width = tiles[0].shape
    for index, tile in enumerate(tiles):
        check_array(f"tiles[{index}]", tile, np.uint8, (height, width))
        check_apart("out", out, tile)
    limits = np.array([[len(tiles) // per_row, height], [per_row, width]])
    for name, table, limit in (("rows", rows, limits[0]), ("cols", cols, limits[1])):
        if (table < 0).any() or (table >= limit[:, None]).any():
            raise ValueError(f"{name} points outside the tiles")
    active().pick_labels(tiles, rows, cols, per_row, out, thread_count(threads))


def overlay(
    frame: UInt8Array,
    labels: UInt8Array,
    colours: Colours,
    out: UInt8Array | None = None,
    *,
    threads: int | None = None,
) -> UInt8Array:
    """Paint labels over a frame: ``(frame * (256 - a) + colour * a + 128) >> 8``.

    Args:
        frame: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8.
        colours: which label is painted in which colour, and the opacity a / 256.
        out: (H, W, 3) uint8, written whole; may be ``frame`` itself. ``None`` makes a new one.
        threads: see the module.

    Returns:
        ``out``.
    """
    check_array("frame", frame, np.uint8, (None, None, 3))
    check_array("labels", labels, np.uint8, frame.shape[:2])
    if out is None:
        out = np.empty_like(frame)
    check_array("out", out, np.uint8, frame.shape, writable=True)
    check_apart("out", out, labels)
    if out.ctypes.data != frame.ctypes.data:
        check_apart("out", out, frame)
    active().overlay(frame, labels, colours, out, thread_count(threads))
    return out


def confusion(
    truth: UInt8Array,
    prediction: UInt8Array,
    matrix: Int64Array,
    *,
    ignore: int = 255,
    threads: int | None = None,
) -> None:
    """Add a frame to a confusion matrix: ``matrix[truth, prediction] += 1`` for each pixel.

    Args:
        truth: uint8 train ids, any shape. Pixels that are ``ignore`` do not count.
        prediction: uint8 train ids, the same shape.
        matrix: (C, C) int64, or (C, C + 1), whose last column then counts the pixels whose
            prediction is no class (255 where a network gave only NaN, say).
        ignore: the truth that does not count.
        threads: see the module.

    Raises:
        ValueError: a truth that is neither a class nor ``ignore``; or, with a (C, C) matrix, a
            counted pixel whose prediction is no class. The matrix is then unchanged.
    """
    shape = truth.shape if isinstance(truth, np.ndarray) else (None,)
    check_array("truth", truth, np.uint8, shape)
    check_array("prediction", prediction, np.uint8, shape)
    check_array("matrix", matrix, np.int64, (None, None), writable=True)
    check_apart("matrix", matrix, truth, prediction)
    classes, columns = matrix.shape
    if columns - classes not in (0, 1) or classes > 255:
        raise ValueError(f"matrix has shape {matrix.shape}, expected (C, C) or (C, C + 1)")
    if not 0 <= ignore <= 255:
        raise ValueError(f"ignore {ignore} is not within 0 .. 255")
    counts = active().confusion(truth, prediction, classes, ignore, thread_count(threads))
    if counts[classes].any():
        raise ValueError(
            f"{counts[classes].sum()} pixels of the truth are neither below {classes} nor {ignore}"
        )
    if columns == classes and counts[:, classes].any():
        raise ValueError(
            f"{counts[:, classes].sum()} predictions are no class below {classes}; "
            "a (C, C + 1) matrix counts them"
        )
    matrix += counts[:classes, :columns]
