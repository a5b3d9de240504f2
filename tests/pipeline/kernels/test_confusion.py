from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import confusion


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    classes=st.sampled_from([1, 2, 19, 255]),
    ignore=st.sampled_from([255, 254, 0, 7]),
    offset=st.integers(0, 9),
    run=st.integers(1, 40),
    seed=st.integers(0, 999),
)
def test_every_pixel_is_counted_once(
    mode: str,
    size: tuple[int, int],
    classes: int,
    ignore: int,
    offset: int,
    run: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    pixels = size[0] * size[1]
    labels = [c for c in range(classes) if c != ignore] or [0]
    room = np.empty(2 * pixels + offset, np.uint8)
    truth, prediction = room[offset : offset + pixels], room[offset + pixels :]
    truth[...] = np.repeat(rng.choice([*labels, ignore], pixels), run)[:pixels]
    prediction[...] = np.repeat(rng.integers(0, min(256, classes + 3), pixels), run)[:pixels]
    before = room.copy()
    matrix = rng.integers(0, 1 << 40, (classes, classes + 1))
    want = matrix.copy()
    for t, p in zip(truth.tolist(), prediction.tolist(), strict=True):
        if t != ignore:
            want[t, min(p, classes)] += 1
    confusion(truth.reshape(size), prediction.reshape(size), matrix, ignore=ignore)
    np.testing.assert_array_equal(matrix, want)
    np.testing.assert_array_equal(room, before)


def test_it_is_opencvs_histogram(mode: str) -> None:
    rng = np.random.default_rng(1)
    truth, prediction = (
        cv2.resize(
            rng.integers(0, 19, (20, 40), np.uint8), (640, 321), interpolation=cv2.INTER_NEAREST
        )
        for _ in range(2)
    )
    matrix = np.zeros((19, 19), np.int64)
    confusion(truth, prediction, matrix, threads=1)
    want = cv2.calcHist([truth, prediction], [0, 1], None, [19, 19], [0, 19, 0, 19])
    np.testing.assert_array_equal(matrix, want.astype(np.int64))


def test_threads_share_without_a_loss(mode: str) -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 19, (2000, 2300), np.uint8)
    prediction = truth.copy()
    prediction[::3] = rng.integers(0, 19, prediction[::3].shape, np.uint8)
    one, many = np.zeros((19, 19), np.int64), np.zeros((19, 19), np.int64)
    confusion(truth, prediction, one, threads=1)
    confusion(truth, prediction, many, threads=4)
    assert many.sum() == truth.size
    np.testing.assert_array_equal(one, many)


def test_an_unknown_truth_is_an_error_and_changes_nothing(mode: str) -> None:
    matrix = np.ones((3, 4), np.int64)
    truth = np.array([0, 1, 3, 255], np.uint8)
    with pytest.raises(ValueError, match="1 pixels of the truth"):
        confusion(truth, np.zeros(4, np.uint8), matrix)
    assert (matrix == 1).all()


def test_an_unknown_prediction_needs_a_column(mode: str) -> None:
    truth, prediction = np.array([0, 1, 255], np.uint8), np.array([0, 255, 9], np.uint8)
    square = np.zeros((2, 2), np.int64)
    with pytest.raises(ValueError, match="1 predictions are no class"):
        confusion(truth, prediction, square)
    assert not square.any()
    wider = np.zeros((2, 3), np.int64)
    confusion(truth, prediction, wider)
    np.testing.assert_array_equal(wider, [[1, 0, 0], [0, 0, 1]])


TRUTH = np.zeros((4, 6), np.uint8)
MATRIX = np.zeros((3, 3), np.int64)


@pytest.mark.parametrize(
    ("truth", "prediction", "matrix", "ignore", "error"),
    [
        (TRUTH.astype(np.int8), TRUTH, MATRIX, 255, TypeError),
        (TRUTH.tolist(), TRUTH, MATRIX, 255, TypeError),
        (TRUTH, TRUTH[:3], MATRIX, 255, ValueError),
        (TRUTH, TRUTH.reshape(-1), MATRIX, 255, ValueError),
        (TRUTH[:, ::2], TRUTH[:, ::2], MATRIX, 255, ValueError),
        (TRUTH, TRUTH, MATRIX.astype(np.int32), 255, TypeError),
        (TRUTH, TRUTH, MATRIX.astype(np.float64), 255, TypeError),
        (TRUTH, TRUTH, np.zeros((3, 5), np.int64), 255, ValueError),
        (TRUTH, TRUTH, np.zeros((3, 2), np.int64), 255, ValueError),
        (TRUTH, TRUTH, np.zeros((256, 256), np.int64), 255, ValueError),
        (TRUTH, TRUTH, MATRIX.T[::-1], 255, ValueError),
        (TRUTH, TRUTH, np.broadcast_to(MATRIX, (3, 3)), 255, ValueError),
        (TRUTH, TRUTH, MATRIX, 256, ValueError),
        (TRUTH, TRUTH, MATRIX, -1, ValueError),
    ],
)
def test_what_is_refused(
    mode: str, truth: Any, prediction: Any, matrix: Any, ignore: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        confusion(truth, prediction, matrix, ignore=ignore)
