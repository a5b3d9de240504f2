"""The graphs of the presets that ship keep every rule once quantized, for both back ends."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.qdq_lint import lint
from calibration.quantize import QuantizeSettings, float_nodes, quantize
from calibration.spelling import to_int8_spelling
from models.locality import inject_locality
from models.segmenter import PRESETS, build_segmenter
from pipeline.lowering.network import lower


@pytest.mark.parametrize("name", ["edge-s", "edge-m"])
def test_no_heavy_layer_of_an_edge_preset_stays_in_float_unasked(name: str) -> None:
    model = inject_locality(build_segmenter(PRESETS[name], seed=0).eval(), "split").model
    graph = lower(model, batch=1, height=128, width=128, opset=17, metadata={})
    frame = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    settings = QuantizeSettings()
    quantized = quantize(graph, [frame], 1, settings)
    allowed = float_nodes(quantized, settings.float_patterns)
    assert lint(quantized, "openvino", allowed) == []
    assert lint(to_int8_spelling(quantized), "tensorrt", allowed) == []
    pairs = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) > 20
