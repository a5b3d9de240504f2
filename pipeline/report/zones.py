"""Where pixels lie: how far from a border between labels, and how far from an edge of a patch.

Distances are put into few bins, and each frame becomes one small table of counts

    outcomes[truth class, label-border bin, patch-edge bin, outcome]

of which every figure on *where* pixels are wrong or differ is a sum. The last axis tells what the
two engines made of a pixel; see ``Outcome``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import CLASS_NAMES, IGNORE
from pipeline.tiles import TilePlan

CLASSES: Final = len(CLASS_NAMES)

BORDER_BINS: Final = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Lower ends of the label-border bins, in pixels of the label; the last is open."""

PATCH_BINS: Final = (0.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Lower ends of the patch-edge bins, in pixels of the network's input; the last is open."""

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


OUTCOMES_SHAPE: Final = (CLASSES, len(BORDER_BINS), len(PATCH_BINS), len(Outcome))


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


def patch_bins(plan: TilePlan, patch: tuple[int, int]) -> BinArray:
    """(H, W) index into ``PATCH_BINS`` of every pixel of a frame.

    The distance is from the pixel's centre to the nearest edge between two patches inside the
    frame, in pixels of the network's input. Where no such edge is, every pixel is in the last bin.

    Args:
        plan: how frames of this size meet the network.
        patch: (height, width) of a patch in pixels of the network's input.
    """
    axes = []
    for dim, edges in enumerate(plan.patch_edges(patch)):
        scale = plan.picture[dim] / plan.frame[dim]
        centres = np.arange(plan.frame[dim]) + 0.5
        if len(edges):
            distance = np.abs(centres[:, None] - edges).min(1) * scale
        else:
            distance = np.full(len(centres), np.inf)
        axes.append((np.digitize(distance, PATCH_BINS) - 1).astype(np.uint8))
    # The nearer of the two axes decides, and binning keeps the order.
    nearer: BinArray = np.minimum(axes[0][:, None], axes[1])
    return nearer


def count_outcomes(
    truth: LabelArray,
    reference: LabelArray,
    candidate: LabelArray,
    border: BinArray,
    patch: BinArray,
) -> npt.NDArray[np.int64]:
    """The frame's table of ``OUTCOMES_SHAPE``; ignored pixels are not in it.

    Args:
        truth: (H, W) uint8 train ids.
        reference: the same, as the reference labelled them.
        candidate: the same, as the candidate did.
        border: from ``border_bins(truth)``.
        patch: from ``patch_bins``.
    """
    wrong_before = reference != truth
    wrong_after = candidate != truth
    outcome = wrong_before.view(np.uint8) + 2 * wrong_after.view(np.uint8)
    outcome += (wrong_before & wrong_after & (reference != candidate)).view(np.uint8)
    index = truth.astype(np.int32)
    for bins, count in ((border, len(BORDER_BINS)), (patch, len(PATCH_BINS))):
        index *= count
        index += bins
    index *= len(Outcome)
    index += outcome
    counts = np.bincount(index[truth != IGNORE], minlength=int(np.prod(OUTCOMES_SHAPE)))
    return counts.reshape(OUTCOMES_SHAPE)


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
