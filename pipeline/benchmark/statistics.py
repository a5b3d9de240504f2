"""Medians, percentiles and paired ratios.

Ratios are taken within each round and only then summarised: what slows the whole machine for some
seconds slows both sides of a pair, so it moves the times and hardly the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, between neighbours by straight line.

    ``share`` is 0 to 1.

    Raises:
        ValueError: no values, one that is not finite, or a share outside 0 to 1.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError("a percentile needs values, all of them finite")
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} is not within 0 to 1")
    return float(np.percentile(values, 100 * share))


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle. Errors as ``percentile``."""
    return percentile(values, 0.5)


@dataclass(frozen=True)
class PairedRatio:
    """How many times one side is the other: the median over rounds, and the extreme rounds."""

    value: float
    low: float
    high: float


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> PairedRatio:
    """``above[i] / below[i]`` over rounds ``i``: median, least and greatest.

    Args:
        above: one positive time for each round.
        below: the same, in the same unit and order.

    Raises:
        ValueError: no rounds, another number of them, or a time that is not above 0.
    """
    if not above or len(above) != len(below):
        raise ValueError(f"{len(above)} rounds cannot be paired with {len(below)}")
    if not all(0 < time < math.inf for time in (*above, *below)):
        raise ValueError("every round's time must be above 0")
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return PairedRatio(median(ratios), min(ratios), max(ratios))
