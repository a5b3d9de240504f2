"""From records to the figures of the report. Reads no picture and runs no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import CLASS_NAMES
from pipeline.report import schema
from pipeline.report.attribution import attribute
from pipeline.report.bootstrap import LEAST_FRAMES, RESAMPLES, Interval, Values, interval, resample
from pipeline.report.edges import patch_edges
from pipeline.report.metrics import (
    class_accuracy,
    class_iou,
    mean_over_classes,
    pixel_accuracy,
    score,
)
from pipeline.report.records import RecordArray
from pipeline.report.verdict import (
    MAX_CLASS_DROP,
    MAX_DROP,
    ClassChange,
    confidence,
    gate,
    headline,
)
from pipeline.report.where import changed_frames, disagreement, share
from pipeline.report.zones import differing

CONFUSION_CHANGES = 12


@dataclass(frozen=True)
class ReportOptions:
    """What the figures depend on beside the records.

    Attributes:
        max_drop: see ``verdict``, points.
        max_class_drop: see ``verdict``, points.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        reference: how the report calls the reference.
        candidate: how it calls the candidate.
        patch: (height, width) of the network's patches, ``None`` if not known.
        calibrated_frames: how many of the frames calibrated the candidate, if that is known.
        left_out: one line for each frame that was not scored.
        sensitivity: rows of that chart, if it was measured.
        sensitivity_frames: on how many frames.
        float_layers: the candidate's that are not in int8, where that is known.
        provenance: plain JSON.
    """

    max_drop: float = MAX_DROP
    max_class_drop: float = MAX_CLASS_DROP
    resamples: int = RESAMPLES
    seed: int = 0
    reference: str = "reference"
    candidate: str = "candidate"
    patch: tuple[int, int] | None = None
    calibrated_frames: int | None = None
    left_out: tuple[str, ...] = ()
    sensitivity: tuple[schema.SensitivityRow, ...] | None = None
    sensitivity_frames: int | None = None
    float_layers: schema.FloatLayers | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def summarise(records: RecordArray, names: Sequence[str], options: ReportOptions) -> schema.Report:
    """Every figure of the report.

    Args:
        records: (F,) from ``evaluate``.
        names: of the F frames.
        options: see there.

    Raises:
        UsageError: a limit that cannot be.
        ValueError: ``names`` is not one for each record, or nothing was scored.
    """
    if len(names) != len(records):
        raise ValueError(f"{len(names)} names for {len(records)} frames")
    before, after = (records[f].sum(0, dtype=np.int64) for f in ("reference", "candidate"))
    verdict = gate(before, after, options.max_drop, options.max_class_drop)
    held = np.asarray(records["reference"].any(-1), np.bool_)
    drops = _drops(records, held, options)
    drop = drops.miou
    rows = _class_rows(records, held, verdict.classes, drops.classes)
    worst = next(row for row in rows if row.name == verdict.worst.name)
    times = 1000.0 * records["seconds"]
    outcomes = records["outcomes"].sum(0, dtype=np.int64)
    return schema.Report(
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        passed=verdict.passed,
        summary=headline(verdict),
        confidence=confidence(verdict, drop),
        reasons=list(verdict.reasons),
        limits=schema.Limits(max_drop=options.max_drop, max_class_drop=options.max_class_drop),
        drop=verdict.drop,
        drop_interval=schema.as_range(drop),
        miou_passed=verdict.miou_passed,
        pixel_accuracy_drop_interval=schema.as_range(drops.pixel),
        mean_class_accuracy_drop_interval=schema.as_range(drops.mean_class),
        worst_class=schema.WorstClass(
            name=worst.name,
            drop=worst.drop,
            drop_interval=worst.drop_interval,
            passed=worst.passed,
        ),
        reference=_contender(options.reference, before, times[:, 0]),
        candidate=_contender(options.candidate, after, times[:, 1]),
        speedup=float(np.median(times[:, 0, 1] / times[:, 1, 1])),
        classes=rows,
        absent_classes=_absent(before, after),
        frames=len(records),
        scored_frames=int(held.any(-1).sum()),
        frame_names=list(names),
        calibrated_frames=options.calibrated_frames,
        left_out=list(options.left_out),
        scored_pixels=int(before.sum()),
        attribution=attribute(
            records,
            resamples=options.resamples,
            seed=options.seed,
        ),
        confusions=_confusions(before, after),
        disagreement=disagreement(records, outcomes),
        patch_edges=patch_edges(
            records["edges"],
            outcomes,
            options.patch,
            resamples=options.resamples,
            seed=options.seed,
        ),
        changed_frames=changed_frames(records, names),
        sensitivity=None if options.sensitivity is None else list(options.sensitivity),
        sensitivity_frames=options.sensitivity_frames,
        float_layers=options.float_layers,
        provenance=options.provenance,
    )


@dataclass(frozen=True)
class _Drops:
    """Intervals of the drops."""

    miou: Interval | None
    pixel: Interval | None
    mean_class: Interval | None
    classes: tuple[Interval | None, ...]


def _drops(records: RecordArray, held: npt.NDArray[np.bool_], options: ReportOptions) -> _Drops:
    """Intervals, where enough frames tell; ``held`` (F, C) says which classes the truth of each
    frame holds. Of a class only frames that hold it tell."""
    if held.any(-1).sum() < LEAST_FRAMES:
        return _Drops(None, None, None, (None,) * len(CLASS_NAMES))

    def statistic(before: Values, after: Values) -> Values:
        ious = class_iou(before), class_iou(after)
        accuracies = class_accuracy(before), class_accuracy(after)
        return np.column_stack(
            [
                mean_over_classes(ious[0]) - mean_over_classes(ious[1]),
                pixel_accuracy(before) - pixel_accuracy(after),
                mean_over_classes(accuracies[0]) - mean_over_classes(accuracies[1]),
                ious[0] - ious[1],
            ]
        )

    values = resample(
        [records["reference"], records["candidate"]],
        statistic,
        resamples=options.resamples,
        seed=options.seed,
    )
    found = [interval(values[:, column]) for column in range(values.shape[1])]
    classes = (
        each if count >= LEAST_FRAMES else None
        for each, count in zip(found[3:], held.sum(0), strict=True)
    )
    return _Drops(found[0], found[1], found[2], tuple(classes))


def _contender(
    name: str, confusion: npt.NDArray[np.int64], times: npt.NDArray[np.float64]
) -> schema.Contender:
    scores = score(confusion)
    return schema.Contender(
        name=name,
        miou=scores.miou,
        official_miou=scores.official_miou,
        pixel_accuracy=scores.pixel_accuracy,
        mean_class_accuracy=scores.mean_class_accuracy,
        latency_ms=schema.Latency(engine=_timing(times[:, 0]), frame=_timing(times[:, 1])),
    )


def _timing(times: npt.NDArray[np.float64]) -> schema.Timing:
    p50, p95 = np.percentile(times, [50, 95])
    return schema.Timing(p50=float(p50), p95=float(p95), mean=float(times.mean()))


def _class_rows(
    records: RecordArray,
    held: npt.NDArray[np.bool_],
    changes: Sequence[ClassChange],
    drops: Sequence[Interval | None],
) -> list[schema.ClassRow]:
    outcomes = records["outcomes"].sum((0, 2, 3), dtype=np.int64)
    pixels, differ = outcomes.sum(-1), differing(outcomes)
    frames = held.sum(0)
    return [
        schema.ClassRow(
            train_id=change.train_id,
            name=change.name,
            reference=change.reference,
            candidate=change.candidate,
            drop=change.drop,
            drop_interval=schema.as_range(drops[change.train_id]),
            passed=change.passed,
            pixels=int(pixels[change.train_id]),
            frames=int(frames[change.train_id]),
            disagreement=share(differ[change.train_id], pixels[change.train_id]),
        )
        for change in changes
    ]


def _absent(
    before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]
) -> list[schema.AbsentClass]:
    return [
        schema.AbsentClass(
            name=CLASS_NAMES[c],
            reference_pixels=int(before[:, c].sum()),
            candidate_pixels=int(after[:, c].sum()),
        )
        for c in np.flatnonzero(before.sum(-1) == 0).tolist()
    ]


def _confusions(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> schema.Confusions:
    truth = before.sum(-1)
    names = [*CLASS_NAMES, "no class"]
    change = after - before
    np.fill_diagonal(change, 0)
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:CONFUSION_CHANGES]
    found = []
    for place in order.tolist():
        t, p = divmod(place, change.shape[1])
        if change[t, p]:
            shares = [share(matrix[t, p], truth[t]) for matrix in (before, after)]
            found.append(
                schema.ConfusionChange(
                    truth=names[t],
                    predicted=names[p],
                    reference=shares[0],
                    candidate=shares[1],
                    change=shares[1] - shares[0],
                    pixels=int(change[t, p]),
                )
            )
    return schema.Confusions(
        classes=names,
        reference=before.tolist(),
        candidate=after.tolist(),
        changes=found,
    )
