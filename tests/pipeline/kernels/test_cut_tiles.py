from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import cut_tiles


def padded(frame: np.ndarray[Any, Any], margin: int) -> np.ndarray[Any, Any]:
    """NumPy's own reflection, which goes on for as far as it is asked to."""
    return np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    tile=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    origins=st.lists(st.tuples(st.integers(-70, 40), st.integers(-70, 40)), min_size=1, max_size=4),
    offset=st.integers(0, 17),
    seed=st.integers(0, 99),
)
def test_any_frame_any_tile(
    mode: str,
    guarded: Any,
    size: tuple[int, int],
    tile: tuple[int, int],
    origins: list[tuple[int, int]],
    offset: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    before = frame.copy()
    out = guarded((len(origins), *tile, 3), offset)
    cut_tiles(frame, np.array(origins, np.int32), out.array)
    around = padded(frame, 100)
    for got, (y, x) in zip(out.array, origins, strict=True):
        want = around[y + 100 : y + 100 + tile[0], x + 100 : x + 100 + tile[1]]
        np.testing.assert_array_equal(got, want)
    out.check()
    np.testing.assert_array_equal(frame, before)


def test_the_border_is_opencvs(mode: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    out = np.empty((1, 37 + 40, 53 + 60, 3), np.uint8)
    cut_tiles(frame, np.array([[-20, -30]], np.int32), out)
    want = cv2.copyMakeBorder(frame, 20, 20, 30, 30, cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(out[0], want)


@pytest.mark.parametrize("origin", [(1 << 24), -(1 << 24)])
def test_the_farthest_origins(mode: str, origin: int) -> None:
    frame = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    out = np.empty((1, 2, 2, 3), np.uint8)
    cut_tiles(frame, np.array([[origin, origin]], np.int32), out)
    folded = [[abs((origin + i + n - 1) % (2 * n - 2) - n + 1) for i in range(2)] for n in (5, 7)]
    np.testing.assert_array_equal(out[0], frame[np.ix_(folded[0], folded[1])])
    with pytest.raises(ValueError, match="origins"):
        cut_tiles(frame, np.array([[origin * 2, 0]], np.int32), out)


def test_threads_share_without_a_seam(mode: str) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
    origins = np.array([[-30, -20], [300, 900], [600, 1000]], np.int32)
    outs = [np.empty((3, 700, 1100, 3), np.uint8) for _ in range(2)]
    cut_tiles(frame, origins, outs[0], threads=1)
    cut_tiles(frame, origins, outs[1], threads=5)
    np.testing.assert_array_equal(outs[0], outs[1])


FRAME = np.zeros((8, 8, 3), np.uint8)
ORIGINS = np.zeros((1, 2), np.int32)
OUT = np.zeros((1, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "origins", "out", "error"),
    [
        (FRAME.astype(np.int8), ORIGINS, OUT, TypeError),
        (FRAME.tolist(), ORIGINS, OUT, TypeError),
        (FRAME[:, :, :2], ORIGINS, OUT, ValueError),
        (FRAME[:, ::2], ORIGINS, OUT, ValueError),
        (FRAME[:, 1:], ORIGINS, OUT, ValueError),
        (FRAME[::-1], ORIGINS, OUT, ValueError),
        (FRAME[:0], ORIGINS, OUT, ValueError),
        (FRAME, ORIGINS.astype(np.int64), OUT, TypeError),
        (FRAME, ORIGINS[0], OUT, ValueError),
        (FRAME, ORIGINS, OUT[:, :, :, :1], ValueError),
        (FRAME, ORIGINS, np.zeros((2, 4, 4, 3), np.uint8), ValueError),
        (FRAME, ORIGINS, OUT.astype(np.float32), TypeError),
        (FRAME, ORIGINS, np.broadcast_to(OUT, OUT.shape), ValueError),
        (FRAME, ORIGINS, FRAME[None, :4, :4].reshape(1, 4, 4, 3)[:, ::-1], ValueError),
        (FRAME, ORIGINS, FRAME.reshape(1, 8, 8, 3), ValueError),
    ],
)
def test_what_is_refused(
    mode: str, frame: Any, origins: Any, out: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        cut_tiles(frame, origins, out)
    with pytest.raises(ValueError, match="threads"):
        cut_tiles(FRAME, ORIGINS, OUT, threads=0)
