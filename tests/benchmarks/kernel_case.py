"""What a kernel is timed on: ways that do the same, and the street or noise they do it to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import label_ids_to_train_ids
from calibration.streets import StreetScene

Array = npt.NDArray[Any]
CLASSES = 19
TILE = (512, 1024)


@dataclass(frozen=True)
class Way:
    """One way to do a case's work: whose it is, how it goes, and what came out.

    "limit" is what no way can beat: the bytes that must be written at any rate, written.
    """

    whose: str
    name: str
    run: Callable[[], Array]
    exact: bool = True


@dataclass(frozen=True)
class Case:
    """Ways that give the same result; the first is ours."""

    kernel: str
    what: str
    ways: tuple[Way, ...]


def labels_of(height: int, width: int, *, noise: bool) -> Array:
    """(H, W) uint8 train ids 0 .. 18."""
    if noise:
        return np.random.default_rng(1).integers(0, CLASSES, (height, width), np.uint8)
    labels = label_ids_to_train_ids(StreetScene(7, height, width).render(0).labels)
    return np.where(labels < CLASSES, labels, 0).astype(np.uint8)


def noise_frame(height: int, width: int) -> Array:
    """(H, W, 3) uint8: what a frame shows changes no kernel's time."""
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


def logits_of(labels: Array, *, noise: bool) -> Array:
    """(19, H/4, W/4) float32: each label's share of 4x4 pixels, blurred, times 8, plus noise."""
    rng = np.random.default_rng(2)
    height, width = labels.shape[0] // 4, labels.shape[1] // 4
    logits = rng.standard_normal((CLASSES, height, width)).astype(np.float32)
    if noise:
        return logits
    for label in range(CLASSES):
        share = cv2.resize((labels == label).astype(np.float32), (width, height), interpolation=3)
        logits[label] = 8 * cv2.GaussianBlur(share, (0, 0), 1.0) + 0.3 * logits[label]
    return logits
