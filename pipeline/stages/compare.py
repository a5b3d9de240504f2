"""Engines and graphs of one calibration -> where their labels part.

What is compared is what users see: labels at the frame's size, made by the runner's own path. An
engine that cannot run here is represented by its exact graph alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import CLASS_NAMES
from pipeline.artifact import Artifact
from pipeline.engines.base import Engine
from pipeline.engines.cpu import device_facts
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.engines.tensorrt import open_tensorrt
from pipeline.frame_stage import FrameStage
from pipeline.inference import FrameSegmenter
from pipeline.kernels import confusion
from pipeline.report.metrics import official_class_iou, pixel_accuracy
from pipeline.stage import Product, StageConfig
from pipeline.verify import check_count

COMPARISON = "comparison.json"
MOST_FRAMES = 4
"""That are labelled."""


class CompareConfig(StageConfig):
    """Nothing to choose."""


class CompareStage(FrameStage):
    """Inputs: the float graph; engines; and the quantized graph, where there is one.

    What is compared are their labels of the frames.

    Its facts: ``labels``, for every two of ``fp32``, ``openvino graph``, ``openvino engine``,
    ``tensorrt graph`` and ``tensorrt engine`` that there are, as ``A / B``, the share of pixels
    that both name alike; ``classes``, for the same pairs and every class either names, the share
    of the pixels either so names that the other does not; ``frames``, how many were labelled.
    """

    name = "compare"
    version = 1
    produces = "comparison"
    tools = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
    config: CompareConfig

    def device(self) -> dict[str, Any]:
        """Kernels round as this CPU does; a GPU's part is in the engine's own facts."""
        return device_facts()

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``."""
        floating = inputs[0]
        batch, height, width, _channels = floating.manifest.inputs[0].shape
        cost = int(floating.facts["multiply_adds"]) // batch
        count = min(check_count(cost, MOST_FRAMES), len(self.frames))
        with ExitStack() as stack:
            segmenters = {
                name: FrameSegmenter(stack.enter_context(engine), tiles="fit")
                for name, engine in _members(inputs)
            }
            pairs = {pair: _Pair() for pair in combinations(segmenters, 2)}
            for frame in islice(self.frames.images(height, width), count):
                labels = {name: each.segment(frame) for name, each in segmenters.items()}
                for (one, other), meter in pairs.items():
                    meter.add(labels[one], labels[other])
        facts = {
            "frames": count,
            "labels": {" / ".join(pair): meter.same() for pair, meter in pairs.items()},
            "classes": {" / ".join(pair): meter.classes() for pair, meter in pairs.items()},
        }
        (folder / COMPARISON).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return Product(main=COMPARISON, facts=facts)


class _Pair:
    """How two labellings agree, over frames."""

    def __init__(self) -> None:
        # Whatever is no class is one more class, of both alike.
        self._table = np.zeros((len(CLASS_NAMES) + 1,) * 2, np.int64)

    def add(self, one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> None:
        """A frame, labelled by both: uint8 (H, W) each."""
        none = np.uint8(len(CLASS_NAMES))
        confusion(np.minimum(one, none), np.minimum(other, none), self._table)

    def same(self) -> float:
        """Share of pixels that both name alike."""
        return round(float(pixel_accuracy(self._table)) / 100, 6)

    def classes(self) -> dict[str, float]:
        """For every class either names, the share of the pixels so named that the other does
        not."""
        alike = official_class_iou(self._table) / 100
        return {
            name: round(float(1 - share), 6)
            for name, share in zip(CLASS_NAMES, alike, strict=False)  # one more: no class
            if np.isfinite(share)
        }


def _members(inputs: Sequence[Artifact]) -> Iterator[tuple[str, OnnxRuntimeEngine | Engine]]:
    floating = inputs[0]
    yield "fp32", OnnxRuntimeEngine(floating.path)
    for each in inputs[1:]:
        if each.kind == "qdq-onnx":
            yield "openvino graph", OnnxRuntimeEngine(each.path)
        elif each.facts["backend"] == "openvino":
            yield "openvino engine", OpenVINOEngine(each.path, precision=each.facts["precision"])
        else:
            (graph,) = (name for name in each.manifest.files if name.endswith(".onnx"))
            yield "tensorrt graph", OnnxRuntimeEngine(each.path.parent / graph)
            if each.facts["agreement"] is not None:
                # Built here, so its host code, if it carries any, is our own.
                engine = open_tensorrt(each.path, each.manifest, allow_host_code=True)
                yield "tensorrt engine", engine
