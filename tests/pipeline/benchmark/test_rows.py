"""Rows against NumPy: medians, p95, spread, ratios; what is missing says why."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.benchmark.app import APP_LATENCY, APP_THROUGHPUT
from pipeline.benchmark.contenders import FP32, INT8
from pipeline.benchmark.path import ENGINE, STAGES
from pipeline.benchmark.rows import GROUPS, TORCH_DEPLOY, TORCH_TRAIN, WHAT, compare, make_rows
from pipeline.benchmark.runner import BUSY, FIRST_FRAME, LABELS
from pipeline.benchmark.schema import Row
from pipeline.benchmark.turns import Found
from tests.pipeline.benchmark.samples import NAMES, entries, found


def rows_of(missing: dict[str, str] | None = None) -> dict[str, Row]:
    return {row.name: row for row in make_rows(entries(missing), found(missing))}


def test_every_row_is_there_once_with_its_words() -> None:
    rows = make_rows(entries(), found())
    assert [row.name for row in rows] == NAMES
    assert set(NAMES) == set(WHAT)
    assert len(set(NAMES)) == len(NAMES) == sum(map(len, GROUPS.values()))


@pytest.mark.parametrize("name", [INT8, LABELS, FIRST_FRAME, STAGES[0]])
def test_figures_are_numpys(name: str) -> None:
    row, rounds = rows_of()[name], np.asarray(found().rounds[name])
    middles = np.median(rounds, axis=1)
    assert row.median_ms == pytest.approx(np.median(rounds), rel=1e-4)
    assert row.p95_ms == pytest.approx(np.percentile(rounds, 95), rel=1e-4)
    assert row.rounds_ms == pytest.approx(list(middles), rel=1e-4)
    assert (row.low_ms, row.high_ms) == pytest.approx((middles.min(), middles.max()), rel=1e-4)
    assert row.samples == rounds.size


def test_ratios_are_to_the_groups_baseline_by_round() -> None:
    taken = found()
    taken.rounds[INT8] = [[10.0], [20.0], [40.0]]
    taken.rounds[TORCH_TRAIN] = [[80.0], [180.0], [200.0]]
    rows = {row.name: row for row in make_rows(entries(), taken)}
    ratio = rows[INT8].ratio
    assert ratio is not None
    assert (ratio.baseline, ratio.value, ratio.low, ratio.high) == (TORCH_TRAIN, 8, 5, 9)
    assert rows[TORCH_TRAIN].ratio is None
    for name, baseline in (
        (STAGES[0], ENGINE),
        (LABELS, APP_THROUGHPUT),
        (APP_LATENCY, TORCH_TRAIN),
    ):
        found_ratio = rows[name].ratio
        assert found_ratio is not None
        assert found_ratio.baseline == baseline
    assert rows[FIRST_FRAME].ratio is None
    assert rows[FIRST_FRAME].limit_ms == 1000
    assert rows[FIRST_FRAME].fps is None


def test_without_the_first_baseline_the_next_one_serves() -> None:
    rows = rows_of({TORCH_TRAIN: "no torch", TORCH_DEPLOY: "no torch", APP_THROUGHPUT: "no app"})
    for name, baseline in ((INT8, FP32), (LABELS, BUSY)):
        ratio = rows[name].ratio
        assert ratio is not None
        assert ratio.baseline == baseline


def test_a_row_that_cannot_run_says_why() -> None:
    row = rows_of({TORCH_TRAIN: "torch is not here"})[TORCH_TRAIN]
    assert row.skipped == "torch is not here"
    assert (row.median_ms, row.p95_ms, row.fps, row.ratio, row.rounds_ms) == (None,) * 4 + ([],)
    taken = found()
    del taken.rounds[INT8]
    taken.failed[INT8] = "the device is gone"
    rows = {row.name: row for row in make_rows(entries(), taken)}
    assert rows[INT8].skipped == "the device is gone"


def test_a_row_has_figures_or_a_reason_never_both() -> None:
    whole = rows_of()[INT8].model_dump()
    with pytest.raises(ValidationError, match="figures or a reason"):
        Row.model_validate(whole | {"skipped": "why?"})
    with pytest.raises(ValidationError, match="figures or a reason"):
        Row.model_validate(whole | {"median_ms": None})


def test_pairs_are_wins_and_losses() -> None:
    taken = Found(
        {
            INT8: [[10.0], [10.0]], TORCH_TRAIN: [[90.0], [70.0]], FP32: [[25.0], [30.0]],
            APP_LATENCY: [[9.0], [9.0]],
        }
    )  # fmt: skip
    pairs = {each.against: each for each in compare(taken, targets=True)}
    assert set(pairs) == {TORCH_TRAIN, FP32, APP_LATENCY}
    assert (pairs[TORCH_TRAIN].ratio, pairs[TORCH_TRAIN].met) == (8, True)
    assert (pairs[FP32].ratio, pairs[FP32].met) == (2.75, False)
    assert (pairs[APP_LATENCY].ratio, pairs[APP_LATENCY].met) == (0.9, None)
    assert all(each.target is None for each in compare(taken, targets=False))
