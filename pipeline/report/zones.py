"""Where pixels lie: how far from a border between labels, and how far from an edge of a patch.

Distances are put into few bins, and each frame becomes one small table of counts

    outcomes[truth class, label-border bin, patch-edge bin, outcome]

of which every figure on *where* pixels are wrong or differ is a sum. The last axis tells what the
two engines made of a pixel; see ``Outcome``. What patch edges do is measured within the frame, see
``edge_surplus``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import IGNORE, NUM_CLASSES
from pipeline.tiles import TilePlan

BORDER_BINS: Final = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Lower ends of the label-border bins, in pixels of the label; the last is open."""

PATCH_BINS: Final = (0.0, 4.0, 8.0, 16.0, 24.0, 32.0, 64.0)
"""Lower ends of the patch-edge bins, in pixels of the network's input; the last is open."""

NEAR: Final = 8.0
"""A pixel nearer to a patch edge than this is *near* it: two cells of the stride-4 logits."""

BESIDE: Final = 24.0
"""Pixels that are not near an edge but nearer than this are compared with those that are. Close
enough that little else changes, far enough that there are twice as many."""

_NEAR_BINS: Final = slice(0, PATCH_BINS.index(NEAR))
_BESIDE_BINS: Final = slice(PATCH_BINS.index(NEAR), PATCH_BINS.index(BESIDE))

LabelArray = npt.NDArray[np.uint8]
BinArray = npt.NDArray[np.uint8]


class Outcome(IntEnum):
    """What reference and candidate made of one scored pixel."""

    RIGHT = 0
    """Both right."""
    GAINED = 1
    """The reference wrong, the candidate right."""
    LOST = 2
    """The reference right, the candidate wrong."""
    SAME_MISTAKE = 3
    """Both wrong, and agreed."""
    OTHER_MISTAKE = 4
    """Both wrong, each in its own way."""


OUTCOMES_SHAPE: Final = (NUM_CLASSES, len(BORDER_BINS), len(PATCH_BINS), len(Outcome))


def border_distance(labels: LabelArray) -> npt.NDArray[np.float32]:
    """Distance of every pixel to the nearest border pixel, in pixels; (H, W) float32.

    A border pixel has an upper, lower, left or right neighbour of another label, ignored regions
    counting as a label of their own; its distance is 0. Without any border it is infinite.
    """
    differs = np.zeros(labels.shape, bool)
    across = labels[:, 1:] != labels[:, :-1]
    down = labels[1:] != labels[:-1]
    differs[:, 1:] |= across
    differs[:, :-1] |= across
    differs[1:] |= down
    differs[:-1] |= down
    if not differs.any():
        return np.full(labels.shape, np.inf, np.float32)
    distance: npt.NDArray[np.float32] = cv2.distanceTransform(
        (~differs).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return distance


def border_bins(labels: LabelArray) -> BinArray:
    """(H, W) index into ``BORDER_BINS`` of every pixel."""
    distance = border_distance(labels)
    bins = np.zeros(labels.shape, np.uint8)
    for lower in BORDER_BINS[1:]:
        bins += (distance >= lower).view(np.uint8)
    return bins


@dataclass(frozen=True)
class PatchMap:
    """Where the pixels of frames of one size lie among the network's patches.

    Attributes:
        bins: (H, W) uint8 index into ``PATCH_BINS``, by the distance from the pixel's centre to
            the nearest edge between two patches inside the frame, in pixels of the network's
            input. Where no such edge is, every pixel is in the last bin.
        places: (H, W) uint16, which place a pixel belongs to. A place is as large as a patch, with
            the crossing of two edges in its middle; so pixels near an edge and beside it lie
            around the same point of the picture, on all sides of the edge alike.
        count: how many places there are.
    """

    bins: BinArray
    places: npt.NDArray[np.uint16]
    count: int


def patch_map(plan: TilePlan, patch: tuple[int, int] | None) -> PatchMap:
    """Lay the patches over a frame.

    Args:
        plan: how frames of this size meet the network.
        patch: (height, width) of a patch in pixels of the network's input; ``None`` if not known,
            and then there are no edges.
    """
    if patch is None:
        last = np.full(plan.frame, len(PATCH_BINS) - 1, np.uint8)
        return PatchMap(last, np.zeros(plan.frame, np.uint16), 1)
    bins, places = [], []
    for dim, edges in enumerate(plan.patch_edges(patch)):
        side, scale = plan.frame[dim], plan.picture[dim] / plan.frame[dim]
        centres = np.arange(side) + 0.5
        distance = np.full(side, np.inf)
        if len(edges):
            distance = np.abs(centres[:, None] - edges).min(1) * scale
        bins.append((np.digitize(distance, PATCH_BINS) - 1).astype(np.uint8))
        # The frame's own border is the middle of the places that it cuts off.
        middles = np.concatenate([[0.0], edges, [float(side)]])
        places.append(np.abs(centres[:, None] - middles).argmin(1))
    # The nearer of the two axes decides, and binning keeps the order.
    columns = int(places[1].max()) + 1
    together = places[0][:, None] * columns + places[1]
    return PatchMap(
        np.minimum(bins[0][:, None], bins[1]),
        together.astype(np.uint16),
        (int(places[0].max()) + 1) * columns,
    )


def count_outcomes(
    truth: LabelArray,
    reference: LabelArray,
    candidate: LabelArray,
    border: BinArray,
    patches: PatchMap,
) -> npt.NDArray[np.int64]:
    """The frame's table (places, *OUTCOMES_SHAPE); ignored pixels are not in it.

    Args:
        truth: (H, W) uint8 train ids.
        reference: the same, as the reference labelled them.
        candidate: the same, as the candidate did.
        border: from ``border_bins(truth)``.
        patches: from ``patch_map``.
    """
    wrong_before = reference != truth
    wrong_after = candidate != truth
    outcome = wrong_before.view(np.uint8) + 2 * wrong_after.view(np.uint8)
    outcome += (wrong_before & wrong_after & (reference != candidate)).view(np.uint8)
    index = patches.places.astype(np.int32)
    for part, count in zip((truth, border, patches.bins, outcome), OUTCOMES_SHAPE, strict=True):
        index *= count
        index += part
    shape = (patches.count, *OUTCOMES_SHAPE)
    counts = np.bincount(index[truth != IGNORE], minlength=int(np.prod(shape)))
    return counts.reshape(shape)


def edge_surplus(table: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How many more events happen near patch edges of a frame than on like pixels beside them.

    Pixels are alike when they lie in the same place, are of the same truth class, and equally far
    from a border between labels. Over these strata s of the frame

        [ sum N_s,  sum (E_s - N_s e_s / n_s) for each kind of event ]

    with N_s pixels and E_s events near an edge (less than ``NEAR`` from it), n_s > 0 pixels and
    e_s events beside it (less than ``BESIDE``). Strata without pixels beside the edge have nothing
    to be compared with and are left out.

    Args:
        table: from ``count_outcomes``.

    Returns:
        (4,) float64: pixels compared; surplus of errors of the reference, of errors of the
        candidate, of disagreements.
    """
    events = np.stack(
        [
            table.sum(-1),
            wrong_in_reference(table),
            wrong_in_candidate(table),
            differing(table),
        ],
        -1,
    )
    near = events[:, :, :, _NEAR_BINS].sum(3)
    beside = events[:, :, :, _BESIDE_BINS].sum(3)
    comparable = beside[..., 0] > 0
    near, beside = near[comparable], beside[comparable]
    expected = near[:, :1] * beside[:, 1:] / beside[:, :1]
    return np.concatenate([[near[:, 0].sum()], (near[:, 1:] - expected).sum(0)]).astype(np.float64)


def wrong_in_reference(outcomes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(..., outcome) -> (...): pixels the reference labelled wrong."""
    return _sum(outcomes, Outcome.GAINED, Outcome.SAME_MISTAKE, Outcome.OTHER_MISTAKE)


def wrong_in_candidate(outcomes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(..., outcome) -> (...): pixels the candidate labelled wrong."""
    return _sum(outcomes, Outcome.LOST, Outcome.SAME_MISTAKE, Outcome.OTHER_MISTAKE)


def differing(outcomes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """(..., outcome) -> (...): pixels the two labelled differently."""
    return _sum(outcomes, Outcome.GAINED, Outcome.LOST, Outcome.OTHER_MISTAKE)


def _sum(outcomes: npt.NDArray[Any], *kinds: Outcome) -> npt.NDArray[np.int64]:
    total: npt.NDArray[np.int64] = outcomes[..., list(kinds)].sum(-1, dtype=np.int64)
    return total
