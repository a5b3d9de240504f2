from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import Colours, overlay


def runs(rng: np.random.Generator, count: int, labels: list[int]) -> np.ndarray[Any, Any]:
    """Labels in runs of any length, as segmentations have them."""
    lengths = rng.integers(1, 60, count)
    return np.repeat(rng.choice(labels, count), lengths)[:count].astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    opacity=st.floats(0, 1),
    offset=st.integers(0, 33),
    count=st.sampled_from([1, 3, 19, 200, 256]),
    in_place=st.booleans(),
    seed=st.integers(0, 999),
)
def test_the_mixture_is_the_exact_one_rounded(
    mode: str,
    guarded: Any,
    size: tuple[int, int],
    opacity: float,
    offset: int,
    count: int,
    in_place: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (count, 3))
    shown = sorted(set(rng.integers(0, count, 1 + count // 2).tolist()))
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    labels = runs(rng, size[0] * size[1], [*range(min(count, 30)), 100, 255]).reshape(size)
    before = frame.copy(), labels.copy()
    out = guarded((*size, 3), offset)
    source = frame
    if in_place:
        out.array[...] = frame
        source = out.array
    result = overlay(source, labels, Colours(palette, opacity, shown), out.array)
    assert result is out.array
    share = Fraction(round(opacity * 256), 256)
    places = [(int(rng.integers(size[0])), int(rng.integers(size[1]))) for _ in range(99)]
    for y, x in [*places, (size[0] - 1, size[1] - 1)]:  # exact arithmetic is slow
        label = int(labels[y, x])
        for channel in range(3):
            want = Fraction(int(frame[y, x, channel]))
            if label in shown:
                want = (1 - share) * want + share * int(palette[label, channel])
            assert int(out.array[y, x, channel]) == int(want + Fraction(1, 2))
    np.testing.assert_array_equal(frame, before[0])
    np.testing.assert_array_equal(labels, before[1])
    out.check()


def test_it_is_opencvs_weighted_sum_within_a_step(mode: str) -> None:
    """``addWeighted`` rounds from floating point, so it may differ by one and no more."""
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 256, (200, 333, 3), np.uint8)
    palette = rng.integers(0, 256, (19, 3), np.uint8)
    labels = runs(rng, 200 * 333, list(range(19))).reshape(200, 333)
    got = overlay(frame, labels, Colours(palette, 0.6))
    share = round(0.6 * 256) / 256
    want = cv2.addWeighted(frame, 1 - share, palette[labels], share, 0)
    assert int(np.abs(got.astype(int) - want).max()) <= 1


def test_the_ends_of_opacity_are_exact(mode: str) -> None:
    frame = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)
    palette = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(overlay(frame, labels, Colours(palette, 0.0)), frame)
    np.testing.assert_array_equal(overlay(frame, labels, Colours(palette, 1.0)), palette[labels])
    bare = overlay(frame, labels, Colours(palette, 1.0, classes=()))
    np.testing.assert_array_equal(bare, frame)


def test_threads_share_without_a_seam(mode: str) -> None:
    rng = np.random.default_rng(4)
    frame = rng.integers(0, 256, (1081, 1921, 3), np.uint8)
    labels = runs(rng, 1081 * 1921, [0, 1, 2, 18, 255]).reshape(1081, 1921)
    colours = Colours(rng.integers(0, 256, (19, 3)), 0.3, classes=[0, 2, 18])
    one, many = (overlay(frame, labels, colours, threads=n) for n in (1, 6))
    np.testing.assert_array_equal(one, many)


FRAME = np.zeros((4, 6, 3), np.uint8)
LABELS = np.zeros((4, 6), np.uint8)
COLOURS = Colours([[1, 2, 3]])


@pytest.mark.parametrize(
    ("frame", "labels", "out", "error"),
    [
        (FRAME.astype(np.float32), LABELS, None, TypeError),
        (FRAME[:, :, :2], LABELS, None, ValueError),
        (FRAME[:, ::2], LABELS[:, ::2], None, ValueError),
        (FRAME, LABELS.astype(np.int64), None, TypeError),
        (FRAME, LABELS[:3], None, ValueError),
        (FRAME, LABELS.T.copy().T, None, ValueError),
        (FRAME, LABELS, np.zeros((4, 5, 3), np.uint8), ValueError),
        (FRAME, LABELS, np.broadcast_to(FRAME, FRAME.shape), ValueError),
        (FRAME, LABELS, np.zeros((4, 6, 3), np.int16), TypeError),
        (FRAME, FRAME.reshape(-1)[:24].reshape(4, 6), FRAME, ValueError),
    ],
)
def test_what_is_refused(
    mode: str, frame: Any, labels: Any, out: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        overlay(frame, labels, COLOURS, out)


def test_an_output_that_overlaps_the_frame_elsewhere_is_refused(mode: str) -> None:
    room = np.zeros(4 * 6 * 3 + 3, np.uint8)
    frame, out = room[:-3].reshape(4, 6, 3), room[3:].reshape(4, 6, 3)
    with pytest.raises(ValueError, match="shares memory"):
        overlay(frame, LABELS, COLOURS, out)


@pytest.mark.parametrize(
    ("palette", "opacity", "classes"),
    [
        ([[0, 0]], 0.5, None),
        (np.zeros((257, 3)), 0.5, None),
        ([[0, 0, 256]], 0.5, None),
        ([[0, 0, -1]], 0.5, None),
        ([[0.5, 0, 1]], 0.5, None),
        ([[0, 0, 0]], 1.01, None),
        ([[0, 0, 0]], float("nan"), None),
        ([[0, 0, 0]], 0.5, [1]),
        ([[0, 0, 0]], 0.5, [-1]),
    ],
)
def test_colours_that_cannot_be(palette: Any, opacity: float, classes: Any) -> None:
    with pytest.raises(ValueError, match=r"palette|opacity|classes"):
        Colours(palette, opacity, classes)
