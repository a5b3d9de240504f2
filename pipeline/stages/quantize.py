"""Float ONNX + calibration frames -> one Q/DQ graph, spelled for each back end and linted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from calibration.frames import FrameList
from calibration.quantize import QuantizeSettings, calibrate, float_nodes
from pipeline.artifact import Artifact
from pipeline.frame_stage import FrameStage
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.stage import Notify, Product, StageConfig
from pipeline.stages.spellings import write_spellings
from pipeline.store import Store


class QuantizeConfig(StageConfig):
    """How ranges are found and weights rounded."""

    settings: dict[str, Any]


class QuantizeStage(FrameStage):
    """One input: the float graph. ``notify_frame`` is told how many stacks were used."""

    name = "quantize"
    version = 9
    produces = "qdq-onnx"
    tools = ("nncf", "onnx", "onnxruntime", "numpy")
    config: QuantizeConfig

    def __init__(
        self, settings: QuantizeSettings, store: Store, frames: FrameList,
        notify: Notify | None = None, notify_frame: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(QuantizeConfig(settings=settings.as_json()), store, frames, notify)
        self.settings, self.notify_frame = settings, notify_frame

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` naming a node that breaks the rules."""
        (source,) = inputs
        graph = onnx.load(source.path)
        stacks = self.stacks(source.manifest.inputs[0].shape)
        quantized, rounded = calibrate(graph, stacks, self.settings, self.notify_frame)
        allowed = float_nodes(quantized, self.settings.float_patterns)
        write_spellings(quantized, allowed, folder, "quantized")
        pairs = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
        return Product(
            main=OPENVINO_GRAPH,
            others=(TENSORRT_GRAPH,),
            inputs=source.manifest.inputs,
            outputs=source.manifest.outputs,
            facts={
                "quantizers": pairs,
                "float_nodes": allowed,
                "calibration": self.frames.provenance(),
                "weight_bits": 7 if self.settings.overflow_fix else 8,
                "rounding": [asdict(layer) for layer in rounded],
                "preprocessing": "uint8 BGR, aspect kept, reflected borders; scale exactly 1",
            },
        )
