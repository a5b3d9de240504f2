"""Are predictions at patch edges as good as inside patches? Figure 6 of the paper as a number.

Near an edge are the pixels within ``NEAR`` pixels of the network's input, of an edge between two
patches; interior are all others. Their error rates alone do not answer the question, because
edges lie at fixed places of the picture where other things are than elsewhere: an edge along the
horizon is full of poles. So every stratum s of equal truth class and equal distance to a border
between labels is compared with itself (direct standardisation to the pixels near an edge):

    excess = sum_s (E_s - N_s * e_s / n_s) / sum_s N_s      in points

with N_s pixels and E_s errors near an edge, n_s and e_s inside; strata without interior pixels
are left out of both sums. It is how many of 100 pixels near an edge are wrong that would be right
in the interior of a patch.

The interval comes from resampling frames, and the verdict from a margin (as in trials of
non-inferiority): *as good* when the whole interval lies at or below ``MARGIN`` points, *worse*
when it lies above, *undecided* when the margin is inside it or there is no interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pipeline.report.bootstrap import RESAMPLES, Interval, Values, interval, resample
from pipeline.report.zones import (
    PATCH_BINS,
    differing,
    wrong_in_candidate,
    wrong_in_reference,
)

NEAR: Final = 8.0
"""Two cells of the stride-4 logits; one of ``PATCH_BINS``."""

MARGIN: Final = 1.0
"""Points by which edges may be worse and still be called as good."""

_NEAR_BINS: Final = PATCH_BINS.index(NEAR)

EdgeVerdict = Literal["as good", "worse", "undecided"]


@dataclass(frozen=True)
class EdgeEffect:
    """One kind of event (an error, a disagreement) near patch edges and inside patches.

    Attributes:
        near, interior: share of pixels with it, in points, not adjusted for anything.
        excess: see the module; NaN where no stratum can be compared.
        interval: of ``excess``; ``None`` with fewer than two frames.
    """

    near: float
    interior: float
    excess: float
    interval: Interval | None


@dataclass(frozen=True)
class EdgeReport:
    """The patch-edge section.

    Attributes:
        reference, candidate: errors of each engine.
        disagreement: pixels the two label differently.
        verdict: on the candidate's errors.
        change: by how many points the candidate's excess is above the reference's.
        change_interval: of ``change``.
    """

    reference: EdgeEffect
    candidate: EdgeEffect
    disagreement: EdgeEffect
    verdict: EdgeVerdict
    change: float
    change_interval: Interval | None


def patch_edge_report(
    outcomes: npt.NDArray[np.integer[Any]], *, resamples: int = RESAMPLES, seed: int = 0
) -> EdgeReport | None:
    """Measure the effect of patch edges.

    Args:
        outcomes: (F, *OUTCOMES_SHAPE) counts, see ``zones``.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The section, or ``None`` where no pixel lies near an edge or none in an interior: the
        frames are single patches, or patches are too small to have an interior.
    """
    table = np.stack([_zoned(frame) for frame in outcomes])
    total = table.sum(0, dtype=np.float64)
    if not total[..., 0].sum(0).all():
        return None
    observed = _excess(total)
    drawn: list[Interval | None] = [None] * 4
    if len(table) > 1:
        values = resample([table], _with_change, resamples=resamples, seed=seed)
        drawn = [interval(values[:, kind]) for kind in range(4)]
    rates = 100.0 * total[..., 1:].sum(0) / total[..., :1].sum(0)
    reference, candidate, disagreement = (
        EdgeEffect(float(rates[0, kind]), float(rates[1, kind]), float(observed[kind]), drawn[kind])
        for kind in range(3)
    )
    return EdgeReport(
        reference,
        candidate,
        disagreement,
        verdict=edge_verdict(drawn[1]),
        change=float(observed[1] - observed[0]),
        change_interval=drawn[3],
    )


def edge_verdict(excess: Interval | None, margin: float = MARGIN) -> EdgeVerdict:
    """What the interval of an excess in points allows to be said; see the module."""
    if excess is None:
        return "undecided"
    if excess.high <= margin:
        return "as good"
    return "worse" if excess.low > margin else "undecided"


def _zoned(outcomes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """One frame as (strata, 2, 4): near and interior; pixels, then the three kinds of event."""
    kinds = (
        outcomes.sum(-1, dtype=np.int64),
        wrong_in_reference(outcomes),
        wrong_in_candidate(outcomes),
        differing(outcomes),
    )
    counts = np.stack(kinds, -1)
    near = counts[..., :_NEAR_BINS, :].sum(-2)
    inside = counts[..., _NEAR_BINS:, :].sum(-2)
    return np.stack([near, inside], -2).reshape(-1, 2, 4)


def _excess(totals: Values) -> Values:
    """(..., strata, 2, 4) -> (..., 3): points of excess of each kind of event."""
    near, inside = totals[..., 0, :], totals[..., 1, :]
    comparable = inside[..., :1] > 0
    expected = near[..., :1] * inside[..., 1:] / np.where(comparable, inside[..., :1], 1.0)
    surplus = np.where(comparable, near[..., 1:] - expected, 0.0).sum(-2)
    pixels = np.where(comparable, near[..., :1], 0.0).sum(-2)
    return np.where(pixels > 0, 100.0 * surplus / np.where(pixels > 0, pixels, 1.0), np.nan)


def _with_change(totals: Values) -> Values:
    """The three excesses, and the candidate's above the reference's."""
    excess = _excess(totals)
    return np.concatenate([excess, excess[..., 1:2] - excess[..., :1]], -1)
