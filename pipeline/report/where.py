"""Where the engines differ: at borders between labels and in which frames. See ``edges`` too.

``outcomes`` is the sum of the records' tables over frames, of ``zones.OUTCOMES_SHAPE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report import schema
from pipeline.report.records import RecordArray
from pipeline.report.zones import (
    BORDER_BINS,
    Outcome,
    differing,
    wrong_in_candidate,
    wrong_in_reference,
)

CHANGED_FRAMES = 10


def disagreement(records: RecordArray, outcomes: npt.NDArray[np.int64]) -> schema.Disagreement:
    """The shares of pixels labelled differently, over all and by distance to a label's border."""
    total = outcomes.sum((0, 1, 2))
    return schema.Disagreement(
        scored=share(differing(total), total.sum()),
        all=share(records["differ"][:, 0].sum(), records["pixels"].sum()),
        lost=share(total[Outcome.LOST], total.sum()),
        gained=share(total[Outcome.GAINED], total.sum()),
        by_border_distance=by_distance(outcomes.sum((0, 2)), BORDER_BINS),
    )


def by_distance(table: npt.NDArray[np.int64], bins: Sequence[float]) -> list[schema.DistanceRow]:
    """(bins, outcomes) -> rows of the bins that hold pixels."""
    stops: list[float | None] = [*bins[1:], None]
    return [
        schema.DistanceRow(
            start=start,
            stop=stop,
            pixels=int(counts.sum()),
            reference_error=share(wrong_in_reference(counts), counts.sum()),
            candidate_error=share(wrong_in_candidate(counts), counts.sum()),
            disagreement=share(differing(counts), counts.sum()),
        )
        for start, stop, counts in zip(bins, stops, table, strict=True)
        if counts.any()
    ]


def changed_frames(records: RecordArray, names: Sequence[str]) -> list[schema.ChangedFrame]:
    """The frames with the greatest share of scored pixels labelled differently."""
    tables = records["outcomes"].sum((1, 2, 3), dtype=np.int64)
    pixels = np.maximum(tables.sum(-1), 1)
    shares = differing(tables) / pixels
    order = [i for i in np.argsort(-shares, kind="stable").tolist() if shares[i] > 0]
    return [
        schema.ChangedFrame(
            name=names[i],
            index=i,
            disagreement=100.0 * float(shares[i]),
            reference_accuracy=100.0 - share(wrong_in_reference(tables[i]), pixels[i]),
            candidate_accuracy=100.0 - share(wrong_in_candidate(tables[i]), pixels[i]),
        )
        for i in order[:CHANGED_FRAMES]
    ]


def share(part: Any, whole: Any) -> float:
    """100 * part / whole as a plain float; 0 of nothing is 0."""
    return 100.0 * float(part) / float(whole) if whole else 0.0
