"""Ship or not: the one rule that the report, its exit code and the build gate share.

    passed  <=>  mIoU(reference) - mIoU(candidate)      <= max_drop        and
                 IoU_c(reference) - IoU_c(candidate)    <= max_class_drop  for every class c
                                                                           that the truth holds

in points, from one confusion matrix over all frames. The rule looks at nothing else: the same
matrices and limits always give the same verdict. How sure it is, is a second question, answered
by the confidence interval of the drop and said in words (``confidence``), never by changing it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calibration.cityscapes import CLASS_NAMES
from pipeline.errors import UsageError
from pipeline.report.bootstrap import Interval
from pipeline.report.metrics import Counts, check_confusion, class_iou, mean_over_classes

MAX_DROP = 0.5
MAX_CLASS_DROP = 2.0
_ROUNDING = 1e-9
"""Points by which float64 sums may miss a drop that is exactly at its limit."""

Confidence = Literal["clear", "open", "unknown"]


@dataclass(frozen=True)
class ClassChange:
    """What became of one class, in points; ``drop`` is positive where the candidate is worse."""

    train_id: int
    name: str
    reference: float
    candidate: float
    drop: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of the gate.

    Attributes:
        passed: see the module.
        reference, candidate: mIoU in points over the classes the truth holds.
        drop: their difference, positive where the candidate is worse.
        miou_passed: whether that is within ``max_drop``.
        max_drop, max_class_drop: the limits it was held to.
        classes: every class the truth holds, by train id.
        worst: the class with the greatest drop; of equals the one of lower train id.
        reasons: one line for every limit that was broken; empty when passed.
    """

    passed: bool
    reference: float
    candidate: float
    drop: float
    miou_passed: bool
    max_drop: float
    max_class_drop: float
    classes: tuple[ClassChange, ...]
    worst: ClassChange
    reasons: tuple[str, ...]


def gate(
    reference_confusions: Counts,
    candidate_confusions: Counts,
    max_drop: float = MAX_DROP,
    max_class_drop: float = MAX_CLASS_DROP,
    *,
    names: Sequence[str] = CLASS_NAMES,
) -> Verdict:
    """Hold a candidate to its reference.

    Args:
        reference_confusions: (C, C), (C, C + 1), or a stack of them over frames, which is summed.
        candidate_confusions: the same over the same pixels.
        max_drop: greatest loss of mIoU allowed, in points, >= 0.
        max_class_drop: greatest loss of one class's IoU allowed, in points, >= 0.
        names: of the C classes.

    Raises:
        UsageError: a limit that is negative or not a number.
        ValueError: matrices of different shapes or of different truths, or without a scored pixel.
    """
    check_limits(max_drop, max_class_drop)
    reference, candidate = _summed(reference_confusions), _summed(candidate_confusions)
    if len(names) != len(reference):
        raise ValueError(f"{len(names)} names for {len(reference)} classes")
    if not np.array_equal(reference.sum(-1), candidate.sum(-1)):
        raise ValueError("reference and candidate were scored on different pixels")
    if not reference.any():
        raise ValueError("no pixel was scored")
    before, after = class_iou(reference), class_iou(candidate)
    classes = tuple(
        _change(c, names[c], float(before[c]), float(after[c]), max_class_drop)
        for c in np.flatnonzero(np.isfinite(before)).tolist()
    )
    means = float(mean_over_classes(before)), float(mean_over_classes(after))
    drop = means[0] - means[1]
    kept = drop <= max_drop + _ROUNDING
    reasons = [] if kept else [f"mIoU drops {drop:.2f} points, {max_drop:g} are allowed"]
    reasons += [
        f"{change.name} drops {change.drop:.2f} points, {max_class_drop:g} are allowed"
        for change in sorted(classes, key=lambda change: -change.drop)
        if not change.passed
    ]
    return Verdict(
        passed=not reasons,
        reference=means[0],
        candidate=means[1],
        drop=drop,
        miou_passed=kept,
        max_drop=max_drop,
        max_class_drop=max_class_drop,
        classes=classes,
        worst=max(classes, key=lambda change: change.drop),
        reasons=tuple(reasons),
    )


def check_limits(max_drop: float, max_class_drop: float) -> None:
    """Refuse limits that cannot be, before hours of evaluation. Raises ``UsageError``."""
    for option, limit in (("--max-drop", max_drop), ("--max-class-drop", max_class_drop)):
        if not math.isfinite(limit) or limit < 0:
            raise UsageError(f"{option} {limit}: must be a number of points, 0 or more")


def confidence(verdict: Verdict, drop: Interval | None) -> Confidence:
    """Whether other frames of the same kind would give the same answer on mIoU.

    ``clear`` where the whole interval of the drop lies on the drop's own side of ``max_drop``,
    ``open`` where the limit lies within it, ``unknown`` without an interval (too few frames).
    """
    if drop is None:
        return "unknown"
    kept = verdict.miou_passed
    settled = drop.high <= verdict.max_drop if kept else drop.low > verdict.max_drop
    return "clear" if settled else "open"


def headline(verdict: Verdict) -> str:
    """The verdict in one line, without its confidence."""
    worst = verdict.worst
    moved = f"mIoU {verdict.reference:.2f} → {verdict.candidate:.2f} ({signed(-verdict.drop)})"
    least = f"worst class {worst.name} ({signed(-worst.drop)})"
    return f"{'PASSED' if verdict.passed else 'REGRESSION'}: {moved}, {least}"


def signed(points: float) -> str:
    """A difference with its sign, a true minus, and none where its two decimals are nothing."""
    text = f"{abs(points):.2f}"
    if float(text) == 0:
        return text
    return ("+" if points > 0 else "−") + text


def _change(c: int, name: str, before: float, after: float, limit: float) -> ClassChange:
    drop = before - after
    return ClassChange(c, name, before, after, drop, drop <= limit + _ROUNDING)


def _summed(confusions: Counts) -> Counts:
    check_confusion(confusions)
    if confusions.ndim > 3 or confusions.dtype.kind not in "iu":
        raise ValueError(f"{confusions.dtype} {confusions.shape} are no counts of frames")
    return confusions if confusions.ndim == 2 else confusions.sum(0, dtype=np.int64)
