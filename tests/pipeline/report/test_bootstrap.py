"""Resampling against a plain loop, and intervals against theory where theory has one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import bootstrap
from pipeline.report.bootstrap import interval, intervals, resample


def _mean(totals: np.ndarray) -> np.ndarray:
    shares: np.ndarray = totals[:, 0] / totals[:, 1]
    return shares


def test_totals_are_those_of_the_frames_drawn() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 100, (7, 2, 3)), rng.integers(0, 100, (7,))

    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.column_stack([a.reshape(len(a), -1), b])

    found = resample([first, second], both, resamples=50, seed=11)
    drawn = np.random.default_rng(11).multinomial(7, [1 / 7] * 7, size=50)
    for weights, values in zip(drawn, found, strict=True):
        chosen = [frame for frame in range(7) for _ in range(weights[frame])]
        assert len(chosen) == 7
        expected = [*sum(first[f] for f in chosen).ravel(), sum(second[f] for f in chosen)]
        np.testing.assert_array_equal(values, expected)


def test_chunks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).integers(1, 9, (20, 2))
    whole = resample([table], _mean, resamples=300, seed=5)
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 140)
    np.testing.assert_array_equal(resample([table], _mean, resamples=300, seed=5), whole)


def test_seeds_repeat_and_differ() -> None:
    table = np.random.default_rng(0).integers(1, 9, (20, 2))
    first = resample([table], _mean, resamples=40, seed=1)
    np.testing.assert_array_equal(first, resample([table], _mean, resamples=40, seed=1))
    assert (first != resample([table], _mean, resamples=40, seed=2)).any()


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    # Of 400 frames of one pixel each, right with probability 0.3: 1.96 sqrt(p (1 - p) / 400).
    hits = (np.random.default_rng(1).random(400) < 0.3).astype(np.int64)
    table = np.column_stack([hits, np.ones_like(hits)])
    found = interval(resample([table], _mean, resamples=4000, seed=0))
    assert found is not None
    share = hits.mean()
    half = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert found.low == pytest.approx(share - half, abs=0.006)
    assert found.high == pytest.approx(share + half, abs=0.006)


def test_intervals_cover_the_truth_about_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        table = np.column_stack([rng.poisson(30, 60), np.full(60, 100)])
        found = interval(resample([table], _mean, resamples=400, seed=trial))
        assert found is not None
        covered += found.low <= 0.3 <= found.high
    assert 178 <= covered <= 199  # 95 % of 200 is 190, its standard deviation 3.1


def test_equal_frames_leave_no_doubt() -> None:
    found = interval(resample([np.full((9, 2), 4)], _mean, resamples=50))
    assert found is not None
    assert found.low == found.high == 1


@given(st.integers(0, 99), st.integers(2, 12))
def test_the_interval_lies_within_the_frames(seed: int, frames: int) -> None:
    table = np.random.default_rng(seed).integers(1, 50, (frames, 2))
    shares = table[:, 0] / table[:, 1]
    found = interval(resample([table], _mean, resamples=60, seed=seed))
    assert found is not None
    assert shares.min() - 1e-12 <= found.low <= found.high <= shares.max() + 1e-12


def test_missing_values_are_left_out_and_all_missing_is_none() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    low, high = intervals(values)
    assert 1 <= low[0] <= high[0] <= 3
    assert np.isnan(low[1])
    assert interval(values[:, 1]) is None


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        resample([np.zeros((0, 2))], _mean)
    with pytest.raises(ValueError, match="at least one frame"):
        resample([np.zeros((2, 2)), np.zeros((3, 2))], _mean)
    with pytest.raises(ValueError, match="resamples"):
        resample([np.ones((2, 2))], _mean, resamples=0)
