"""Medians, percentiles and paired ratios against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.benchmark.statistics import median, paired_ratio, percentile

times = st.floats(1e-6, 1e6)


@given(st.lists(times, min_size=1, max_size=60), st.floats(0, 1))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    expected = float(np.percentile(values, 100 * share))
    assert percentile(values, share) == pytest.approx(expected, rel=1e-9)
    assert median(values) == pytest.approx(float(np.median(values)), rel=1e-12)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=30))
def test_ratios_are_paired_by_round(rounds: list[tuple[float, float]]) -> None:
    above, below = [a for a, _ in rounds], [b for _, b in rounds]
    ratios = np.asarray(above) / np.asarray(below)
    found = paired_ratio(above, below)
    assert found.value == pytest.approx(float(np.median(ratios)))
    assert (found.low, found.high) == pytest.approx((float(ratios.min()), float(ratios.max())))


def test_what_slows_a_whole_round_leaves_the_ratio_alone() -> None:
    slow = np.array([1.0, 7.0, 1.0, 3.0])
    found = paired_ratio(list(20 * slow), list(5 * slow))
    assert (found.value, found.low, found.high) == (4, 4, 4)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_a_percentile_needs_finite_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        percentile(values, 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_lies_within_0_and_1(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], share)


@pytest.mark.parametrize(
    ("above", "below"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [float("nan")])]
)
def test_rounds_that_cannot_be_paired(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match="round"):
        paired_ratio(above, below)
