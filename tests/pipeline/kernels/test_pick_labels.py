from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import pick_labels


@settings(max_examples=60, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    tile=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    offset=st.integers(0, 9),
    seed=st.integers(0, 999),
)
def test_each_pixel_comes_from_where_its_tables_say(
    mode: str,
    guarded: Any,
    grid: tuple[int, int],
    tile: tuple[int, int],
    size: tuple[int, int],
    offset: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, (grid[0] * grid[1], *tile), np.uint8)
    tables = []
    for dim in range(2):
        owner = rng.integers(0, grid[dim], size[dim])
        if seed % 2:
            owner.sort()
        place = rng.integers(0, tile[dim], size[dim])
        tables.append(np.stack([owner, place]).astype(np.int32))
    rows, cols = tables
    out = guarded(size, offset)
    pick_labels(tiles, rows, cols, grid[1], out.array)
    for y, x in np.ndindex(*size):
        index = rows[0, y] * grid[1] + cols[0, x]
        assert out.array[y, x] == tiles[index, rows[1, y], cols[1, x]]
    out.check()


def test_threads_share_without_a_seam(mode: str) -> None:
    rng = np.random.default_rng(1)
    tiles = rng.integers(0, 256, (4, 512, 1024), np.uint8)
    rows = np.stack([np.arange(1100) >= 600, np.arange(1100) % 512]).astype(np.int32)
    cols = np.stack([np.arange(1900) >= 1000, np.arange(1900) % 1024]).astype(np.int32)
    outs = [np.empty((1100, 1900), np.uint8) for _ in range(2)]
    pick_labels(tiles, rows, cols, 2, outs[0], threads=1)
    pick_labels(tiles, rows, cols, 2, outs[1], threads=4)
    np.testing.assert_array_equal(outs[0], outs[1])


TILES = np.zeros((2, 4, 5), np.uint8)
ROWS = np.zeros((2, 3), np.int32)
COLS = np.zeros((2, 6), np.int32)
OUT = np.zeros((3, 6), np.uint8)


@pytest.mark.parametrize(
    ("tiles", "rows", "cols", "per_row", "out", "error"),
    [
        (TILES.astype(np.int64), ROWS, COLS, 2, OUT, TypeError),
        (TILES[:, :, ::2], ROWS, COLS, 2, OUT, ValueError),
        (TILES, ROWS.astype(np.int64), COLS, 2, OUT, TypeError),
        (TILES, ROWS, COLS[:1], 2, OUT, ValueError),
        (TILES, ROWS, COLS, 0, OUT, ValueError),
        (TILES, ROWS, COLS, 3, OUT, ValueError),
        ([], ROWS, COLS, 1, OUT, ValueError),
        (TILES, ROWS, COLS, 2, OUT[:2], ValueError),
        (TILES, ROWS + 1, COLS, 2, OUT, ValueError),
        (TILES, ROWS, COLS - 1, 2, OUT, ValueError),
        (TILES, ROWS, COLS + np.array([[0], [5]], np.int32), 2, OUT, ValueError),
        (TILES, ROWS, COLS + np.array([[2], [0]], np.int32), 2, OUT, ValueError),
    ],
)
def test_what_is_refused(
    mode: str,
    tiles: Any,
    rows: Any,
    cols: Any,
    per_row: int,
    out: Any,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        pick_labels(tiles, rows, cols, per_row, out)
