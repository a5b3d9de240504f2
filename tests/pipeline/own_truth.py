"""Data whose truth is what a network says of it: that network then scores 100, any other less."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from calibration.cityscapes import TRAIN_IDS_TO_LABEL_IDS, Cityscapes
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.inference import FrameSegmenter


def own_truth(graph: Path, tree: Path, target: Path, *splits: str) -> Path:
    """A copy of a Cityscapes tree with the graph's labels as truth; rare classes are ignored.

    A class on few pixels would turn a single changed pixel into whole points of mIoU.
    """
    shutil.copytree(tree, target)
    with OnnxRuntimeEngine(graph) as engine:
        segmenter = FrameSegmenter(engine)
        for split in splits:
            for pair in Cityscapes(target).frames(split):
                picture = cv2.imread(str(pair.image))
                assert picture is not None
                labels = segmenter.segment(np.ascontiguousarray(picture, np.uint8))
                common = np.bincount(labels.ravel(), minlength=256) > labels.size / 25
                truth = np.where(common[labels], labels, 255)
                cv2.imwrite(str(pair.label), TRAIN_IDS_TO_LABEL_IDS[truth])
    return target
