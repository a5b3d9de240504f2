"""The Q/DQ graphs of a small input -> those of the input that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from calibration.carry import carry
from pipeline.artifact import Artifact
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.stage import Product, Stage, StageConfig
from pipeline.stages.spellings import KEPT, write_spellings


class CarryConfig(StageConfig):
    """Nothing to choose."""


class CarryStage(Stage):
    """Inputs: the Q/DQ graphs of the small size, their float graph, the float graph to serve.

    Its facts are the first input's, and ``calibration_shape``: the small (height, width) in pixels.
    """

    name = "carry"
    version = 2
    produces = "qdq-onnx"
    tools = ("onnx",)
    config: CarryConfig

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``QuantizedGraphError`` where the two are not one network."""
        quantized, small, large = inputs
        carried = carry(*(onnx.load(each.path) for each in inputs))
        write_spellings(carried, quantized.facts["float_nodes"], folder, "at the larger size")
        _batch, height, width, _channels = small.manifest.inputs[0].shape
        return Product(
            main=OPENVINO_GRAPH,
            others=(TENSORRT_GRAPH,),
            inputs=large.manifest.inputs,
            outputs=large.manifest.outputs,
            facts={
                **{key: quantized.facts[key] for key in KEPT},
                "calibration_shape": [height, width],
            },
        )
