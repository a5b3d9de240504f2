"""Validation of a torch network: the confusion matrix of a split, as the report counts it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from calibration.cityscapes import IGNORE, NUM_CLASSES, Cityscapes, FramePair
from models.segmenter import BgrFrames, Segmenter
from models.upernet import upsample
from pipeline.kernels import confusion

MAX_AREA = 512 * 1024
"""Pixels of the network's input in validation: more takes its time at every look."""
_ALIKE = 0.02


def validation_size(frame: tuple[int, int], unit: int) -> tuple[int, int]:
    """(height, width) to score frames of that (height, width) at, in whole units.

    Of the sizes with the frames' aspect, within 2 % of the nearest there is, the largest that is
    not much larger than the frame: a squashed street is not what the network will see.
    """
    most = max(unit * unit, min(MAX_AREA, 1.25 * frame[0] * frame[1]))
    wanted = math.log(frame[1] / frame[0])
    sizes = [
        (abs(math.log(width / height) - wanted), height, width)
        for height in range(unit, int(most // unit) + 1, unit)
        for width in range(unit, int(most // height) + 1, unit)
    ]
    nearest = min(sizes)[0]
    _error, height, width = max(
        (each for each in sizes if each[0] <= nearest + _ALIKE), key=lambda s: (s[1] * s[2], -s[0])
    )
    return height, width


def confusion_matrix(
    model: Segmenter, dataset: Cityscapes, frames: Sequence[FramePair], size: tuple[int, int],
    device: torch.device, relabel: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """(19, 19) counts, truth by prediction, at the labels' own resolution.

    Frames are resized to ``size`` = (height, width) for the network and its logits resampled to
    the label's size before the argmax. ``size`` should have the frames' aspect. ``relabel`` is a
    table of 256 train ids that the truth goes through, as in training.
    """
    wrapped = BgrFrames(model).to(device).eval()
    total = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for pair in frames:
        image, truth = dataset.read(pair)
        truth = truth if relabel is None else relabel[truth]
        shrink = image.shape[0] > size[0]
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        resized = cv2.resize(image, (size[1], size[0]), interpolation=how)
        with torch.no_grad():
            logits = wrapped(torch.from_numpy(resized[None]).to(device))
            labels = upsample(logits.float(), truth.shape).argmax(1)[0].cpu().numpy()
        confusion(truth, labels.astype(np.uint8), total, ignore=IGNORE)
    return total
