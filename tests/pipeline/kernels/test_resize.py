from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import Taps, reference, resize, resize_taps
from pipeline.kernels.taps import ONE

SIDE = st.integers(1, 60)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=60, deadline=None)
@given(source=st.tuples(SIDE, SIDE), target=st.tuples(SIDE, SIDE), offset=st.integers(0, 9))
def test_every_mode_gives_the_reference_bytes(
    mode: str, guarded: Any, source: tuple[int, int], target: tuple[int, int], offset: int
) -> None:
    room = np.empty(source[0] * source[1] * 3 + offset, np.uint8)
    frame = room[offset:].reshape(*source, 3)
    frame[...] = texture(*source)
    before = frame.copy()
    rows, cols = (resize_taps(s, t) for s, t in zip(source, target, strict=True))
    out = guarded((*target, 3), offset)
    resize(frame, rows, cols, out.array)
    want = np.empty_like(out.array)
    reference.resize(frame, rows, cols, want)
    np.testing.assert_array_equal(out.array, want)
    out.check()
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((40, 60), (20, 30)),
        ((41, 61), (20, 30)),
        ((108, 192), (51, 91)),
        ((72, 96), (51, 68)),
        ((100, 100), (7, 3)),
        ((30, 40), (51, 68)),
        ((9, 9), (100, 100)),
        ((33, 44), (33, 44)),
    ],
)
def test_it_is_opencvs(mode: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    """OpenCV interpolates in 2048ths, we in 16384ths: they may differ by one and no more."""
    frame = texture(*source)
    out = np.empty((*target, 3), np.uint8)
    resize(frame, resize_taps(source[0], target[0]), resize_taps(source[1], target[1]), out)
    method = cv2.INTER_AREA if source[0] > target[0] else cv2.INTER_LINEAR
    want = cv2.resize(frame, target[::-1], interpolation=method)
    assert int(np.abs(out.astype(int) - want).max()) <= 1
    assert (out != want).mean() < 0.15


@settings(max_examples=100, deadline=None)
@given(target=st.integers(1, 200), extra=st.integers(1, 300))
def test_shrinking_takes_the_exact_mean(target: int, extra: int) -> None:
    """In exact arithmetic: the length of each source pixel's overlap with the target's."""
    source = target + extra
    taps = resize_taps(source, target)
    factor = Fraction(source, target)
    for x in range(0, target, max(1, target // 7)):
        begin, end = x * factor, (x + 1) * factor
        exact = {}
        for i in range(int(begin), min(source, int(end) + 1)):
            length = min(end, Fraction(i + 1)) - max(begin, Fraction(i))
            exact[i] = max(length, Fraction(0)) / factor
        got = {int(taps.first[x]) + k: float(w) / ONE for k, w in enumerate(taps.weights[x])}
        for i in got.keys() | exact.keys():  # whole numbers of ONE: the next below or above
            assert got.get(i, 0) == pytest.approx(float(exact.get(i, 0)), abs=1.001 / ONE)


@settings(max_examples=100, deadline=None)
@given(source=st.integers(1, 200), extra=st.integers(0, 300))
def test_enlarging_interpolates_between_the_middles(source: int, extra: int) -> None:
    """A ramp comes out as a ramp, flat beyond the outermost middles."""
    target = source + extra
    taps = resize_taps(source, target)
    ramp = np.arange(source, dtype=np.float64)
    values = sum(taps.weights[:, k] / ONE * ramp[taps.first + k] for k in (0, 1)[: min(source, 2)])
    middle = (np.arange(target) + 0.5) * source / target - 0.5
    np.testing.assert_allclose(values, np.clip(middle, 0, source - 1), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(target=st.tuples(st.integers(1, 20), st.integers(1, 70)), offset=st.integers(0, 9))
def test_half_the_size_is_the_mean_of_four(
    mode: str, guarded: Any, target: tuple[int, int], offset: int
) -> None:
    """It has a loop of its own; the frame ends where its memory ends."""
    height, width = 2 * target[0], 2 * target[1]
    frame = np.empty(height * width * 3 + offset, np.uint8)[offset:].reshape(height, width, 3)
    frame[...] = texture(height, width, seed=width)
    out = guarded((*target, 3), offset)
    resize(frame, resize_taps(height, target[0]), resize_taps(width, target[1]), out.array)
    four = frame.reshape(target[0], 2, target[1], 2, 3).sum((1, 3), dtype=np.int64)
    np.testing.assert_array_equal(out.array, (four + 2) >> 2)
    out.check()


def test_one_colour_stays_that_colour(mode: str) -> None:
    for value in (0, 1, 127, 254, 255):
        frame = np.full((13, 29, 3), value, np.uint8)
        for target in ((5, 7), (40, 90), (13, 29), (1, 1)):
            out = np.empty((*target, 3), np.uint8)
            resize(frame, resize_taps(13, target[0]), resize_taps(29, target[1]), out)
            assert (out == value).all()


def test_threads_share_without_a_seam(mode: str) -> None:
    frame = texture(1080, 1920)
    for target in ((512, 910), (540, 960)):
        rows, cols = resize_taps(1080, target[0]), resize_taps(1920, target[1])
        outs = [np.empty((*target, 3), np.uint8) for _ in range(2)]
        resize(frame, rows, cols, outs[0], threads=1)
        resize(frame, rows, cols, outs[1], threads=5)
        np.testing.assert_array_equal(outs[0], outs[1])


FRAME = np.zeros((8, 9, 3), np.uint8)
ROWS, COLS = resize_taps(8, 4), resize_taps(9, 5)
OUT = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "out", "error"),
    [
        (FRAME.astype(np.float32), OUT, TypeError),
        (FRAME[:7], OUT, ValueError),
        (FRAME[:, ::-1], OUT, ValueError),
        (FRAME, OUT[:3], ValueError),
        (FRAME, OUT.astype(np.int16), TypeError),
        (FRAME, np.broadcast_to(OUT, OUT.shape), ValueError),
        (FRAME, FRAME.reshape(-1)[:60].reshape(4, 5, 3), ValueError),
    ],
)
def test_what_is_refused(mode: str, frame: Any, out: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        resize(frame, ROWS, COLS, out)


@pytest.mark.parametrize(
    ("source", "first", "weights"),
    [
        (3, [0], [[8192, 8191]]),
        (3, [0], [[20000, -3616]]),
        (3, [2], [[8192, 8192]]),
        (3, [-1], [[8192, 8192]]),
        (3, [0, 1], [[8192, 8192]]),
        (3, [], np.zeros((0, 2))),
        (3, [0], [[32767, 32767, 32767]]),
    ],
)
def test_taps_that_cannot_be(source: int, first: Any, weights: Any) -> None:
    with pytest.raises(ValueError, match=r"taps|weights"):
        Taps(source, np.array(first, np.int32), np.array(weights, np.int16))


def test_taps_of_another_type() -> None:
    with pytest.raises(ValueError, match="int16 weights"):
        Taps(3, np.array([0], np.int32), np.array([[0.5, 0.5]], np.float32))


@pytest.mark.parametrize("factor", [1.3, 2.0, 3.7, 4.3, 6.5, 11.0])
def test_it_is_the_mean_in_double_precision(mode: str, factor: float) -> None:
    """However many taps there are; half a grey level is rounding, the rest that of the weights."""
    source = (37, 83)
    target = (int(source[0] / factor), int(source[1] / factor))
    frame = texture(*source)
    out = np.empty((*target, 3), np.uint8)
    rows, cols = (resize_taps(s, t) for s, t in zip(source, target, strict=True))
    resize(frame, rows, cols, out)
    down, across = (coverage(s, t) for s, t in zip(source, target, strict=True))
    exact = np.einsum("yi,xj,ijc->yxc", down, across, frame.astype(np.float64))
    assert np.abs(out - exact).max() < 0.5 + 0.05


def coverage(source: int, target: int) -> np.ndarray[Any, Any]:
    """(target, source): the share of each target pixel that lies in each source pixel."""
    edges = np.arange(target + 1) * source / target
    left, right = np.arange(source), np.arange(source) + 1
    length = np.minimum(right, edges[1:, None]) - np.maximum(left, edges[:-1, None])
    return np.asarray(np.maximum(length, 0) * target / source)


def test_lengths_that_cannot_be() -> None:
    for source, target in ((0, 1), (1, 0), (1 << 25, 3)):
        with pytest.raises(ValueError, match="cannot become"):
            resize_taps(source, target)
