"""The graphs of the presets that ship keep every rule once quantized, for both back ends."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from calibration.qdq_lint import lint
from calibration.quantize import QuantizeSettings, calibrate, float_nodes, quantize
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


@pytest.mark.parametrize("name", ["edge-s", "edge-m"])
def test_no_sum_of_two_products_overflows_where_weights_have_seven_bits(name: str) -> None:
    """A CPU without VNNI adds two products of a byte and a weight in 16 bits. Depthwise kernels are
    not summed in pairs."""
    model = inject_locality(build_segmenter(PRESETS[name], seed=0).eval(), "full").model
    graph = lower(model, batch=1, height=128, width=128, opset=17, metadata={}, convolve=True)
    frame = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    settings = QuantizeSettings(overflow_fix=True)
    quantized, _rounding = calibrate(graph, [frame], settings)
    assert lint(quantized, "openvino", float_nodes(quantized, settings.float_patterns)) == []
    weights = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    makers = {node.output[0]: node for node in quantized.graph.node}
    judged = []
    for node in quantized.graph.node:
        maker = makers.get(node.input[1]) if node.op_type in ("Conv", "MatMul") else None
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in weights:
            continue
        values = weights[maker.input[0]].astype(np.int64)
        if node.op_type == "Conv" and values.shape[1] == 1:
            continue  # depthwise
        judged.append(node.name)
        assert 2 * 255 * np.abs(values).max() <= np.iinfo(np.int16).max, node.name
    assert "stages.0.0.repmlp_block.fc3" in judged
    assert "stages.1.0.repmlp_block.fc3" in judged
    assert len(judged) > 20
