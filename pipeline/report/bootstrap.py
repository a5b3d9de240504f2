"""Confidence intervals by resampling frames.

A score over a data set would come out otherwise on other frames of the same streets. Drawing the
F frames F times with replacement, again and again, says how much otherwise (Efron 1979). What is
summed over frames (confusion matrices, counts of errors) is resampled as

    totals = weights @ per_frame          weights ~ Multinomial(F, 1/F), one row per resample

so that no picture is looked at twice. Both engines always see the same resample, and a difference
between them is as narrow as their pairing allows. Frames are taken as independent of each other:
for consecutive frames of one video the intervals come out too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95
LEAST_FRAMES: Final = 6
"""Fewest frames that give an interval. No percentile of resamples lies beyond what the frames
themselves span, and n of them all fall on one side of the true median with probability 2^(1-n): of
five frames a percentile interval covers 93.8 % at best, of six 96.9 %."""
_CHUNK_CELLS = 1 << 21
"""Float64 cells of one chunk of totals: 16 MiB, whatever the number of frames."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A percentile interval: the middle ``LEVEL`` of the resampled values."""

    low: float
    high: float


def resample(
    tables: Sequence[npt.NDArray[Any]],
    statistic: Callable[..., Values],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Values:
    """A statistic of the frames' sums, for every resample of the frames.

    Args:
        tables: arrays (F, ...) of counts, one entry per frame, all of the same F >= 1.
        statistic: given one float64 array (b, ...) of totals per table, returns (b, ...).
        resamples: B, how many resamples to draw.
        seed: of the draw. The same seed and F give the same resamples in every call.

    Returns:
        (B, ...) the statistic of each resample.

    Raises:
        ValueError: no frames, tables of different lengths, or no resamples.
    """
    frames = len(tables[0])
    if frames < 1 or any(len(table) != frames for table in tables):
        raise ValueError("every table needs one entry for each of at least one frame")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples say nothing")
    flat = [table.reshape(frames, -1).astype(np.float64) for table in tables]
    parts = []
    for weights in _weights(frames, resamples, seed, max(part.shape[1] for part in flat)):
        totals = [
            (weights @ part).reshape(len(weights), *table.shape[1:])
            for part, table in zip(flat, tables, strict=True)
        ]
        parts.append(statistic(*totals))
    return np.concatenate(parts)


def intervals(values: Values) -> tuple[Values, Values]:
    """The middle ``LEVEL`` of resampled values.

    Args:
        values: (B, ...); NaN is a resample in which the statistic did not exist, and is left out.

    Returns:
        (low, high), each (...); NaN where no resample had a value.
    """
    tails = [50.0 * (1 - LEVEL), 100.0 - 50.0 * (1 - LEVEL)]
    empty = ~np.isfinite(values).any(0)
    filled = np.where(empty, 0.0, values)  # nanpercentile warns of what is nothing but NaN
    low, high = np.where(empty, np.nan, np.nanpercentile(filled, tails, axis=0))
    return low, high


def interval(values: Values) -> Interval | None:
    """The interval of one number's resamples (B,); ``None`` where there is none."""
    low, high = intervals(values)
    return Interval(float(low), float(high)) if np.isfinite(low) else None


def _weights(frames: int, resamples: int, seed: int, width: int) -> Iterator[Values]:
    """Rows of how often each frame was drawn, in chunks of bounded size."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_CELLS // max(frames, width))
    shares = np.full(frames, 1.0 / frames)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        yield generator.multinomial(frames, shares, size=count).astype(np.float64)
