"""Are predictions at patch edges as good as inside patches? Figure 6 of the paper as a number.

Error rates near edges and in interiors do not answer the question by themselves: edges lie at
fixed places of the picture, and an edge along the horizon is full of poles. So each pixel near an
edge is compared with pixels just beside the edge, of its own frame, around the same crossing of
edges, of the same truth class, and equally far from a border between labels
(``zones.edge_surplus``):

    excess = sum of surplus / sum of pixels compared, over all frames, in points

It is how many of 100 pixels near an edge are wrong that would be right a little farther inside.
What remains is that the picture itself changes over those few pixels: the same statistic around
lines that are no edges measures that (see docs/report.md).

The interval comes from resampling frames, and the verdict from a margin (as in trials of
non-inferiority): *as good* when the whole interval lies at or below ``MARGIN`` points, *worse*
when it lies above, *undecided* when the margin is inside it or there is no interval: too few frames
(``bootstrap.LEAST_FRAMES``) in which a pixel was compared.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pipeline.report import schema
from pipeline.report.bootstrap import LEAST_FRAMES, RESAMPLES, Interval, Values, interval, resample
from pipeline.report.where import by_distance
from pipeline.report.zones import (
    BESIDE,
    NEAR,
    PATCH_BINS,
    differing,
    wrong_in_candidate,
    wrong_in_reference,
)

MARGIN: Final = 1.0
"""Points by which edges may be worse and still be called as good."""

_NEAR_BINS: Final = PATCH_BINS.index(NEAR)

EdgeVerdict = Literal["as good", "worse", "undecided"]


def patch_edges(
    surplus: npt.NDArray[np.float64],
    outcomes: npt.NDArray[np.integer[Any]],
    patch: tuple[int, int] | None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> schema.PatchEdges | None:
    """The patch-edge section: the effect of patch edges, measured.

    Args:
        surplus: (F, 4), of every frame what ``zones.edge_surplus`` gives.
        outcomes: ``OUTCOMES_SHAPE``, the counts of all frames together.
        patch: (height, width) in pixels of the network's input; ``None`` if not known.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The section, or ``None`` where patches are not known or no pixel near an edge has its like
        beside it: the frames are single patches, say, or patches are too small.
    """
    total = surplus.sum(0)
    if patch is None or not total[0] > 0:
        return None
    observed = _excess(total)
    drawn: list[Interval | None] = [None] * 4
    compared = int((surplus[:, 0] > 0).sum())
    if compared >= LEAST_FRAMES:
        values = resample([surplus], _excess, resamples=resamples, seed=seed)
        drawn = [interval(values[:, kind]) for kind in range(4)]
    by_bin = outcomes.sum((0, 1), dtype=np.int64)
    near, inside = by_bin[:_NEAR_BINS].sum(0), by_bin[_NEAR_BINS:].sum(0)
    reference, candidate, disagreement = (
        schema.EdgeEffectRow(
            near=100.0 * float(kind(near) / near.sum()),
            interior=100.0 * float(kind(inside) / inside.sum()),
            excess=float(observed[which]),
            interval=schema.as_range(drawn[which]),
        )
        for which, kind in enumerate((wrong_in_reference, wrong_in_candidate, differing))
    )
    verdict = edge_verdict(drawn[1])
    return schema.PatchEdges(
        patch=patch,
        near_within=NEAR,
        beside_within=BESIDE,
        margin=MARGIN,
        verdict=verdict,
        passed={"as good": True, "worse": False, "undecided": None}[verdict],
        reference=reference,
        candidate=candidate,
        disagreement=disagreement,
        change=float(observed[3]),
        change_interval=schema.as_range(drawn[3]),
        compared_frames=compared,
        compared=100.0 * float(total[0] / near.sum()),
        by_distance=by_distance(by_bin, PATCH_BINS),
    )


def edge_verdict(excess: Interval | None) -> EdgeVerdict:
    """What the interval of an excess in points allows to be said; see the module."""
    if excess is None:
        return "undecided"
    if excess.high <= MARGIN:
        return "as good"
    return "worse" if excess.low > MARGIN else "undecided"


def _excess(totals: Values) -> Values:
    """(..., 4) -> (..., 4): excess of the three kinds of event, and of the second over the first.

    NaN where no pixel was compared.
    """
    pixels = totals[..., :1]
    excess = np.where(pixels > 0, 100.0 * totals[..., 1:] / np.where(pixels > 0, pixels, 1), np.nan)
    return np.concatenate([excess, excess[..., 1:2] - excess[..., :1]], -1)
