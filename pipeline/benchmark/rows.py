"""From samples to rows: medians, spread, ratios to a baseline, and the pairs that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.benchmark import app, contenders, path, runner
from pipeline.benchmark.contenders import Entry
from pipeline.benchmark.schema import Comparison, Group, Ratio, Row
from pipeline.benchmark.statistics import median, paired_ratio, percentile
from pipeline.benchmark.turns import Found

# Named here too, lest a table or a test need torch; ``torch_forms`` has the contenders.
TORCH_TRAIN, TORCH_DEPLOY = "torch train form", "torch deploy form"

WHAT: Final[Mapping[str, str]] = {
    **path.WHAT, **contenders.WHAT, **app.WHAT, **runner.WHAT,
    TORCH_TRAIN: "PyTorch eager on the checkpoint as it was trained, float32, inference_mode",
    TORCH_DEPLOY: "the same with its locality injected, as the engines have it",
}  # fmt: skip

GROUPS: Final[Mapping[Group, tuple[str, ...]]] = {
    "stages": path.STAGES,
    "engines": (
        TORCH_TRAIN, TORCH_DEPLOY, contenders.ORT_FP32, contenders.ORT_INT8, contenders.FP32,
        contenders.BF16, contenders.INT8, app.APP_LATENCY,
    ),
    "end to end": (app.APP_THROUGHPUT, runner.BUSY, runner.LABELS, runner.OVERLAY),
    "start": (runner.IMPORT, runner.FIRST_FRAME),
}  # fmt: skip
"""Every row there is, in the order in which they are shown and measured."""

_BASELINES: Final[Mapping[Group, tuple[str, ...]]] = {
    "stages": (path.ENGINE,),
    "engines": (TORCH_TRAIN, TORCH_DEPLOY, contenders.FP32),
    "end to end": (app.APP_THROUGHPUT, runner.BUSY),
    "start": (),
}
"""What the rows of a group are compared with: the first of these that was measured."""

LIMITS_MS: Final[Mapping[str, float]] = {runner.IMPORT: 500.0, runner.FIRST_FRAME: 1000.0}
"""The most that the project allows itself, on any machine of today."""

_PAIRS: Final[Sequence[tuple[str, str, float | None]]] = (
    (contenders.INT8, TORCH_TRAIN, 8.0),
    (contenders.INT8, TORCH_DEPLOY, None),
    (contenders.INT8, contenders.ORT_FP32, 3.0),
    (contenders.INT8, contenders.ORT_INT8, None),
    (contenders.INT8, contenders.FP32, 3.0),
    (contenders.INT8, contenders.BF16, None),
    (contenders.INT8, app.APP_LATENCY, None),
    (runner.LABELS, app.APP_THROUGHPUT, 0.85),
    (runner.OVERLAY, app.APP_THROUGHPUT, 0.7),
)
"""(name, against, times as fast that is aimed at)."""


def make_rows(entries: Mapping[str, Entry], found: Found) -> list[Row]:
    """A row for everything in ``GROUPS``, measured or not.

    Args:
        entries: by name of the row.
        found: what the turns gave.
    """
    rows = []
    for group, names in GROUPS.items():
        baseline = next((name for name in _BASELINES[group] if name in found.rounds), None)
        rows += [_row(name, group, entries[name], found, baseline) for name in names]
    return rows


def _row(name: str, group: Group, entry: Entry, found: Found, baseline: str | None) -> Row:
    facts = entry.facts
    rounds = found.rounds.get(name)
    if rounds is None:
        return Row(
            name=name, group=group, what=WHAT[name], median_ms=None, p95_ms=None, low_ms=None,
            high_ms=None, fps=None, rounds_ms=[], samples=0, ratio=None, limit_ms=None,
            precision=None, executed=None, threads=None,
            skipped=entry.reason or found.failed.get(name) or "it was not run",
        )  # fmt: skip
    note = f"; {entry.note}" if entry.note else ""
    samples = [sample for each in rounds for sample in each]
    middles = [median(each) for each in rounds]
    middle = median(samples)
    return Row(
        name=name, group=group, what=WHAT[name] + note,
        median_ms=_round(middle), p95_ms=_round(percentile(samples, 0.95)),
        low_ms=_round(min(middles)), high_ms=_round(max(middles)),
        fps=_round(1e3 / middle) if group in ("engines", "end to end") else None,
        rounds_ms=[_round(each) for each in middles], samples=len(samples),
        ratio=_ratio(found, name, baseline), limit_ms=LIMITS_MS.get(name),
        precision=facts.precision,
        executed=dict(facts.executed) if facts.executed else None, threads=facts.threads,
        skipped=None,
    )  # fmt: skip


def _ratio(found: Found, name: str, baseline: str | None) -> Ratio | None:
    if baseline is None or baseline == name:
        return None
    paired = paired_ratio(_medians(found, baseline), _medians(found, name))
    return Ratio(
        baseline=baseline, value=_round(paired.value), low=_round(paired.low),
        high=_round(paired.high),
    )  # fmt: skip


def compare(found: Found, *, targets: bool) -> list[Comparison]:
    """The pairs that the project aims at something for, or that readers ask about.

    Args:
        found: what the turns gave; pairs of which one side is missing are left out.
        targets: whether the targets hold here: they are set for two cores at 512x1024.
    """
    comparisons = []
    for name, against, aim in _PAIRS:
        if name not in found.rounds or against not in found.rounds:
            continue
        paired = paired_ratio(_medians(found, against), _medians(found, name))
        target = aim if targets else None
        comparisons.append(
            Comparison(
                name=name,
                against=against,
                ratio=_round(paired.value),
                low=_round(paired.low),
                high=_round(paired.high),
                target=target,
                met=None if target is None else paired.value >= target,
            )
        )
    return comparisons


def _medians(found: Found, name: str) -> list[float]:
    return [median(each) for each in found.rounds[name]]


def _round(value: float) -> float:
    """To five significant digits: more than any of this means, and short in a file."""
    return float(f"{value:.5g}")
