"""Scores from a confusion matrix, as the Cityscapes evaluator defines them.

With n[t, p] the pixels of truth t that were labelled p, pixels of ignored truth left out:

    IoU of class c   n[c, c] / (sum_p n[c, p] + sum_t n[t, c] - n[c, c])

(``getIouScoreForLabel`` of cityscapesscripts/evaluation/evalPixelLevelSemanticLabeling.py.) A
pixel whose prediction is no class misses its truth and is no class's false alarm.

A class the truth does not hold scores 0 there if anything was labelled so, and is left out if
not. Averages of ours are over the classes the truth holds, so that a data set with eleven classes
is scored over eleven; ``official_miou`` is the evaluator's own average. On Cityscapes val, where
all nineteen occur, the two are one number.

Everything works on stacks: a leading axis of frames or of bootstrap resamples stays in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[Any]
"""(..., C, C) or (..., C, C + 1), truth by prediction; the last column counts "no class"."""

Points: TypeAlias = npt.NDArray[np.float64]
"""Scores in points, 0 to 100; NaN where there is nothing to score."""


def occurring(confusion: Counts) -> npt.NDArray[np.bool_]:
    """(..., C): whether the truth holds the class."""
    check_confusion(confusion)
    present: npt.NDArray[np.bool_] = confusion.sum(-1) > 0
    return present


def class_iou(confusion: Counts) -> Points:
    """(..., C) IoU of each class the truth holds; NaN of the others."""
    return np.where(occurring(confusion), official_class_iou(confusion), np.nan)


def official_class_iou(confusion: Counts) -> Points:
    """(..., C) IoU as the evaluator prints it, times 100; NaN where its denominator is 0."""
    check_confusion(confusion)
    hits, truth, predicted = _margins(confusion)
    return _ratio(hits, truth + predicted - hits)


def class_accuracy(confusion: Counts) -> Points:
    """(..., C) share of each class's own pixels labelled right; NaN where it has none."""
    check_confusion(confusion)
    hits, truth, _predicted = _margins(confusion)
    return _ratio(hits, truth)


def pixel_accuracy(confusion: Counts) -> Points:
    """(...) share of all scored pixels labelled right; NaN where none is scored."""
    check_confusion(confusion)
    hits, truth, _predicted = _margins(confusion)
    return _ratio(hits.sum(-1), truth.sum(-1))


def mean_over_classes(scores: Points) -> Points:
    """(..., C) -> (...): the mean of the numbers among them; NaN where there is none."""
    known = np.isfinite(scores)
    return _ratio(np.where(known, scores, 0.0).sum(-1), known.sum(-1).astype(np.float64)) / 100.0


@dataclass(frozen=True)
class Scores:
    """The headline figures of one engine, in points.

    Attributes:
        miou: mean IoU over the classes the truth holds.
        official_miou: the evaluator's average, see the module.
        pixel_accuracy: share of scored pixels labelled right.
        mean_class_accuracy: mean over the classes of the share of their pixels labelled right.
    """

    miou: float
    official_miou: float
    pixel_accuracy: float
    mean_class_accuracy: float


def score(confusion: Counts) -> Scores:
    """The headline figures of one (C, C) or (C, C + 1) matrix."""
    return Scores(
        miou=float(mean_over_classes(class_iou(confusion))),
        official_miou=float(mean_over_classes(official_class_iou(confusion))),
        pixel_accuracy=float(pixel_accuracy(confusion)),
        mean_class_accuracy=float(mean_over_classes(class_accuracy(confusion))),
    )


def check_confusion(confusion: Counts) -> None:
    """Refuse what is no stack of confusion matrices. Raises ``ValueError``."""
    if confusion.ndim < 2 or confusion.shape[-1] - confusion.shape[-2] not in (0, 1):
        raise ValueError(f"{confusion.shape} is neither (..., C, C) nor (..., C, C + 1)")


def _margins(confusion: Counts) -> tuple[Points, Points, Points]:
    """(hits, pixels of the truth, pixels of the prediction) of each class, float64.

    Sums are exact: counts stay far below 2^53.
    """
    classes = confusion.shape[-2]
    square = confusion[..., :classes]
    hits = np.diagonal(square, axis1=-2, axis2=-1).astype(np.float64)
    return hits, confusion.sum(-1).astype(np.float64), square.sum(-2).astype(np.float64)


def _ratio(part: Points, whole: Points) -> Points:
    """100 * part / whole, NaN where whole is 0."""
    whole = np.asarray(whole, np.float64)
    return np.where(whole > 0, 100.0 * part / np.where(whole > 0, whole, 1.0), np.nan)
