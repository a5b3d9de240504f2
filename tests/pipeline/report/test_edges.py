"""The patch-edge statistic on frames whose effect is known because it was put there."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.bootstrap import Interval
from pipeline.report.edges import MARGIN, edge_verdict, patch_edge_report
from pipeline.report.zones import OUTCOMES_SHAPE, Outcome


def _frame(
    rng: np.random.Generator, cells: dict[tuple[int, int, int], tuple[int, float]]
) -> np.ndarray:
    """A table with, at (class, border bin, patch bin): pixels, and the candidate's error rate."""
    table = np.zeros(OUTCOMES_SHAPE, np.int64)
    for place, (pixels, rate) in cells.items():
        wrong = int(rng.binomial(pixels, rate))
        table[place][Outcome.LOST] = wrong
        table[place][Outcome.RIGHT] = pixels - wrong
    return table


def _frames(cells: dict[tuple[int, int, int], tuple[int, float]], count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([_frame(rng, cells) for _ in range(count)])


def test_an_effect_of_five_points_is_found_and_called_worse() -> None:
    # Patch bins 0 and 1 are within 8 pixels of an edge; 10 % wrong inside, 15 % near.
    found = patch_edge_report(_frames({(0, 2, 0): (2000, 0.15), (0, 2, 3): (8000, 0.10)}))
    assert found is not None
    assert found.candidate.excess == pytest.approx(5, abs=0.3)
    assert found.candidate.interval is not None
    assert found.candidate.interval.low < 5 < found.candidate.interval.high
    assert found.verdict == "worse"
    # The reference is right everywhere, so every error of the candidate is a disagreement.
    assert found.reference.excess == 0
    assert found.disagreement == found.candidate
    assert found.change == found.candidate.excess
    assert found.change_interval == found.candidate.interval


def test_edges_that_only_lie_where_borders_are_are_not_blamed() -> None:
    # Near label borders (bin 0) 40 % are wrong wherever they lie, elsewhere 5 %; patch edges have
    # most of the borders. The raw rates differ by far, the adjusted one must not.
    cells = {
        (0, 0, 0): (3000, 0.40), (0, 5, 0): (1000, 0.05),
        (0, 0, 4): (1000, 0.40), (0, 5, 4): (9000, 0.05),
    }  # fmt: skip
    found = patch_edge_report(_frames(cells))
    assert found is not None
    assert found.candidate.near - found.candidate.interior > 15
    assert found.candidate.excess == pytest.approx(0, abs=0.4)
    assert found.verdict == "as good"


def test_edges_that_only_hold_harder_classes_are_not_blamed() -> None:
    cells = {
        (5, 0, 1): (3000, 0.50), (0, 0, 1): (1000, 0.01),
        (5, 0, 2): (1000, 0.50), (0, 0, 2): (9000, 0.01),
    }  # fmt: skip
    found = patch_edge_report(_frames(cells))
    assert found is not None
    assert found.candidate.excess == pytest.approx(0, abs=0.5)
    assert found.verdict == "as good"


def test_the_excess_by_hand() -> None:
    table = np.zeros((1, *OUTCOMES_SHAPE), np.int64)
    table[0, 0, 0, 0, Outcome.SAME_MISTAKE], table[0, 0, 0, 0, Outcome.RIGHT] = 30, 70
    table[0, 0, 0, 5, Outcome.SAME_MISTAKE], table[0, 0, 0, 5, Outcome.RIGHT] = 20, 180
    table[0, 1, 0, 1, Outcome.LOST], table[0, 1, 0, 1, Outcome.RIGHT] = 10, 10
    table[0, 1, 0, 3, Outcome.GAINED], table[0, 1, 0, 3, Outcome.RIGHT] = 1, 9
    table[0, 2, 0, 0, Outcome.OTHER_MISTAKE] = 50  # no interior of its like: left out
    found = patch_edge_report(table)
    assert found is not None
    # reference: (30 - 100 * 20/200) + (0 - 20 * 1/10) of 120; candidate: 20 + (10 - 0) of 120.
    assert found.reference.excess == pytest.approx(100 * 18 / 120)
    assert found.candidate.excess == pytest.approx(100 * 30 / 120)
    assert found.disagreement.excess == pytest.approx(100 * (10 - 20 * 0.1) / 120)
    assert found.candidate.near == pytest.approx(100 * 90 / 170)
    assert found.candidate.interior == pytest.approx(100 * 20 / 210)
    assert found.candidate.interval is None
    assert found.verdict == "undecided"


def test_without_edges_or_interiors_there_is_no_section() -> None:
    assert patch_edge_report(_frames({(0, 0, 5): (100, 0.1)}, 3)) is None
    assert patch_edge_report(_frames({(0, 0, 0): (100, 0.1)}, 3)) is None


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Interval(-3, MARGIN), "as good"),
        (Interval(-3, MARGIN + 0.01), "undecided"),
        (Interval(MARGIN + 0.01, 9), "worse"),
        (Interval(MARGIN, 9), "undecided"),
        (None, "undecided"),
    ],
)
def test_the_margin_decides(found: Interval | None, verdict: str) -> None:
    assert edge_verdict(found) == verdict
