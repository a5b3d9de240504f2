"""Whose the drop is: quantization's, or the engine's that runs the quantized graph.

The exact graph, executed as ONNX defines it, stands between the two. On the same frames

    mIoU(reference) - mIoU(candidate) = [mIoU(reference) - mIoU(exact)]   quantization's part
                                      + [mIoU(exact) - mIoU(candidate)]   the engine's part

A part is named as a cause when its whole interval lies above 0. Where too few frames have a scored
pixel for an interval (``bootstrap.LEAST_FRAMES``), the cause is unknown.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from calibration.cityscapes import CLASS_NAMES
from pipeline.report import schema
from pipeline.report.bootstrap import LEAST_FRAMES, RESAMPLES, Interval, Values, interval, resample
from pipeline.report.metrics import class_iou, mean_over_classes
from pipeline.report.records import RecordArray

Cause = Literal["neither", "quantization", "engine", "both", "unknown"]

_KINDS = ("reference", "exact", "candidate")


def attribute(
    records: RecordArray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> schema.Attribution | None:
    """Split the drop over the frames that the exact graph scored.

    Args:
        records: (F,) of ``records.RECORD``.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The section; ``None`` where the exact graph scored nothing.
    """
    chosen = records["has_exact"] != 0
    tables = [records[kind][chosen] for kind in _KINDS]
    if not tables[0].any():
        return None
    ious = [class_iou(table.sum(0, dtype=np.int64)) for table in tables]
    mious = [float(mean_over_classes(iou)) for iou in ious]
    quantization: Interval | None = None
    engine: Interval | None = None
    scored = int(tables[0].any((1, 2)).sum())
    if scored >= LEAST_FRAMES:
        values = resample(tables, _parts, resamples=resamples, seed=seed)
        quantization, engine = interval(values[:, 0]), interval(values[:, 1])
    apart = records["differ"][chosen, 2].sum() / records["pixels"][chosen].sum()
    return schema.Attribution(
        frames=len(tables[0]),
        scored_frames=scored,
        reference_miou=mious[0],
        exact_miou=mious[1],
        candidate_miou=mious[2],
        quantization_drop=mious[0] - mious[1],
        quantization_interval=schema.as_range(quantization),
        engine_drop=mious[1] - mious[2],
        engine_interval=schema.as_range(engine),
        agreement=100.0 * (1.0 - float(apart)),
        cause=cause(quantization, engine),
        classes=[
            schema.AttributionClass(
                name=CLASS_NAMES[c],
                reference=float(ious[0][c]),
                exact=float(ious[1][c]),
                candidate=float(ious[2][c]),
            )
            for c in np.flatnonzero(np.isfinite(ious[0])).tolist()
        ],
    )


def cause(quantization: Interval | None, engine: Interval | None) -> Cause:
    """Which parts of the drop lie above 0 with their whole interval."""
    if quantization is None or engine is None:
        return "unknown"
    guilty = (quantization.low > 0, engine.low > 0)
    names: dict[tuple[bool, bool], Cause] = {
        (False, False): "neither",
        (True, False): "quantization",
        (False, True): "engine",
        (True, True): "both",
    }
    return names[guilty]


def _parts(reference: Values, exact: Values, candidate: Values) -> Values:
    means = [mean_over_classes(class_iou(table)) for table in (reference, exact, candidate)]
    return np.column_stack([means[0] - means[1], means[1] - means[2]])
