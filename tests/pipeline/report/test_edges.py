"""The patch-edge statistic on frames whose effect is known because it was put there."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report import wording
from pipeline.report.bootstrap import LEAST_FRAMES, Interval
from pipeline.report.edges import MARGIN, edge_verdict, patch_edges
from pipeline.report.schema import PatchEdges
from pipeline.report.zones import (
    OUTCOMES_SHAPE,
    border_bins,
    count_outcomes,
    edge_surplus,
    patch_map,
)
from pipeline.tiles import plan_tiles
from pipeline.wording import counted

SHAPE, PATCH = (128, 192), (64, 64)
MAP = patch_map(plan_tiles(SHAPE, SHAPE), PATCH)
NEAR = MAP.bins <= 1


def _measure(truth: np.ndarray, rate: np.ndarray, *, frames: int = 30) -> PatchEdges:
    """The section for a reference that is right, and a candidate wrong at these rates."""
    rng = np.random.default_rng(0)
    surplus, outcomes = [], np.zeros(OUTCOMES_SHAPE, np.int64)
    border = border_bins(truth)
    for _ in range(frames):
        candidate = np.where(rng.random(SHAPE) < rate, 18, truth).astype(np.uint8)
        table = count_outcomes(truth, truth, candidate, border, MAP)
        surplus.append(edge_surplus(table))
        outcomes += table.sum(0)
    found = patch_edges(np.array(surplus), outcomes, PATCH, resamples=500)
    assert found is not None
    return found


@pytest.fixture
def truth() -> np.ndarray:
    """Four classes, mixed everywhere."""
    mixed: np.ndarray = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
    return mixed


def test_an_effect_of_five_points_is_found_and_called_worse(truth: np.ndarray) -> None:
    found = _measure(truth, np.where(NEAR, 0.15, 0.10))
    assert found.candidate.excess == pytest.approx(5, abs=0.6)
    assert found.candidate.interval is not None
    assert found.candidate.interval.low < 5 < found.candidate.interval.high
    assert found.verdict == "worse"
    assert found.candidate.near == pytest.approx(15, abs=0.5)
    assert found.candidate.interior == pytest.approx(10, abs=0.5)
    # The reference is right everywhere, so every error of the candidate is a disagreement.
    assert found.reference.excess == 0
    assert found.disagreement == found.candidate
    assert found.change == found.candidate.excess
    assert found.change_interval == found.candidate.interval
    assert found.compared > 95


def test_no_effect_is_called_as_good(truth: np.ndarray) -> None:
    found = _measure(truth, np.full(SHAPE, 0.2))
    assert found.candidate.excess == pytest.approx(0, abs=0.6)
    assert found.verdict == "as good"


def test_edges_that_lie_where_it_is_hard_are_not_blamed(truth: np.ndarray) -> None:
    # The middle rows, through which an edge goes, are hard, and less so from left to right.
    rows, cols = np.arange(SHAPE[0])[:, None], np.arange(SHAPE[1])
    rate = np.where(abs(rows - 63.5) < 32, 0.5, 0.05) * (1 - cols / SHAPE[1])
    found = _measure(truth, rate)
    assert found.candidate.near - found.candidate.interior > 4
    assert found.candidate.excess == pytest.approx(0, abs=0.6)


def test_edges_that_only_hold_harder_classes_and_borders_are_not_blamed() -> None:
    # A hard class stands in a band along the edge at row 64 only, and borders are hard anywhere.
    truth = np.zeros(SHAPE, np.uint8)
    truth[50:78] = 5
    rate = np.where(truth == 5, 0.6, 0.02)
    rate = np.where(border_bins(truth) == 0, 0.8, rate)
    found = _measure(truth, rate)
    assert found.candidate.near - found.candidate.interior > 5
    assert found.candidate.excess == pytest.approx(0, abs=0.8)


@pytest.mark.parametrize("frames", [1, 2, LEAST_FRAMES - 1])
def test_few_frames_are_undecided(truth: np.ndarray, frames: int) -> None:
    found = _measure(truth, np.zeros(SHAPE), frames=frames)
    assert found.verdict == "undecided"
    assert found.candidate.interval is None
    assert wording.edges(found).startswith(f"Undecided: {counted(frames, 'frame')} give")


def test_only_frames_in_which_a_pixel_was_compared_count(truth: np.ndarray) -> None:
    assert _measure(truth, np.zeros(SHAPE), frames=LEAST_FRAMES).verdict == "as good"
    surplus = np.zeros((30, 4))
    surplus[: LEAST_FRAMES - 1, 0] = 100
    outcomes = np.ones(OUTCOMES_SHAPE, np.int64)
    found = patch_edges(surplus, outcomes, PATCH, resamples=50)
    assert found is not None
    assert (found.verdict, found.compared_frames) == ("undecided", LEAST_FRAMES - 1)


def test_no_edges_are_no_section() -> None:
    assert patch_edges(np.zeros((3, 4)), np.zeros((19, 6, 7, 5), np.int64), PATCH) is None


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
