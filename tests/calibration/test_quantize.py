"""Calibration: what comes out of it, on a graph small enough to know by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.errors import CalibrationDataError
from calibration.qdq_lint import lint
from calibration.quantiles import quantiles
from calibration.quantize import (
    QuantizeSettings,
    calibrate,
    float_nodes,
    make_regular,
    quantize,
)


def constant(name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    """Random weights, the same for the same name."""
    rng = np.random.default_rng(list(name.encode()))
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def network(side: int = 32) -> onnx.ModelProto:
    """Frames -> embedding -> a gated residual with a depthwise convolution -> logits."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["frames.float"], name="frames.float", to=1),
        helper.make_node(
            "Transpose", ["frames.float"], ["frames.nchw"], name="frames.nchw", perm=[0, 3, 1, 2]
        ),
        helper.make_node(
            "Conv",
            ["frames.nchw", "w0", "b0"],
            ["embed"],
            name="embed",
            strides=[4, 4],
            kernel_shape=[4, 4],
        ),
        helper.make_node("Relu", ["embed"], ["embed.relu"], name="embed.relu"),
        helper.make_node(
            "Conv",
            ["embed.relu", "w1", "b1"],
            ["u.reduce"],
            name="u.reduce",
            group=8,
            pads=[1, 1, 1, 1],
            kernel_shape=[3, 3],
        ),
        helper.make_node("Relu", ["u.reduce"], ["u.reduce.relu"], name="u.reduce.relu"),
        helper.make_node(
            "Conv",
            ["u.reduce.relu", "w2", "b2"],
            ["u.ffn_fc2"],
            name="u.ffn_fc2",
            kernel_shape=[1, 1],
        ),
        helper.make_node("Add", ["embed.relu", "u.ffn_fc2"], ["u.add2"], name="u.add2"),
        helper.make_node("GlobalAveragePool", ["u.add2"], ["x.gp.mean"], name="x.gp.mean"),
        helper.make_node("Mul", ["u.add2", "x.gp.mean"], ["gated"], name="gated"),
        helper.make_node(
            "Conv", ["gated", "w3", "b3"], ["logits"], name="classifier", kernel_shape=[1, 1]
        ),
    ]
    constants = [
        constant("w0", (8, 3, 4, 4)), constant("b0", (8,)), constant("w1", (8, 1, 3, 3)),
        constant("b1", (8,)), constant("w2", (8, 8, 1, 1)), constant("b2", (8,)),
        constant("w3", (19, 8, 1, 1)), constant("b3", (19,)),
    ]  # fmt: skip
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, side, side, 3])
    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, [1, 19, side // 4, side // 4]
    )
    graph = helper.make_graph(nodes, "g", [frames], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def some_frames(count: int = 4, top: int = 200, side: int = 32) -> list[np.ndarray]:
    """Frames without a bright pixel: calibration must not mistake their maximum for the range."""
    return [
        np.random.default_rng(i).integers(0, top, (1, side, side, 3), np.uint8)
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def quantized() -> onnx.ModelProto:
    return quantize(network(), some_frames(), 4, QuantizeSettings())


def pairs(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tensor that is quantized -> (scale, zero point)."""
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    return {
        node.input[0]: (constants[node.input[1]], constants[node.input[2]])
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }


def test_the_image_is_quantized_exactly(quantized: onnx.ModelProto) -> None:
    scale, zero = pairs(quantized)["frames.float"]
    assert (float(scale), int(zero)) == (1.0, 0)
    assert zero.dtype == np.uint8


def test_every_activation_has_one_scale_and_zero_point_zero(quantized: onnx.ModelProto) -> None:
    found = pairs(quantized)
    assert len(found) >= 4
    for tensor, (scale, zero) in found.items():
        assert scale.shape == (), tensor
        assert not zero.any(), tensor
        assert scale > 0


def test_the_fresh_side_of_a_sum_is_not_rounded_before_it(quantized: onnx.ModelProto) -> None:
    assert "u.ffn_fc2" not in pairs(quantized)
    add = next(node for node in quantized.graph.node if node.name == "u.add2")
    assert "u.ffn_fc2" in add.input


def test_nodes_are_kept_in_float_by_pattern(quantized: onnx.ModelProto) -> None:
    assert float_nodes(quantized, ("*.gp.mean",)) == ["x.gp.mean"]
    floating = quantize(network(), some_frames(1), 1, QuantizeSettings(float_patterns=("*",)))
    assert pairs(floating) == {}


def test_the_result_keeps_the_rules_and_quantizes_no_bias(quantized: onnx.ModelProto) -> None:
    assert lint(quantized, "openvino") == []
    assert not [
        t
        for t in quantized.graph.initializer
        if t.data_type == TensorProto.INT32 and len(t.dims) == 1
    ]
    kinds = {t.name: t.data_type for t in quantized.graph.initializer}
    biases = [n.input[2] for n in quantized.graph.node if n.op_type == "Conv"]
    assert {kinds[name] for name in biases} == {TensorProto.FLOAT}


def test_the_quantized_graph_is_near_the_float_one(quantized: onnx.ModelProto) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")

    def run(model: onnx.ModelProto, frame: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return np.asarray(session.run(None, {"frames": frame})[0])

    frame = some_frames()[0]
    want, got = run(network(), frame), run(quantized, frame)
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 0.1


def test_per_channel_activation_scales_become_the_largest() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="Q", axis=1),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="DQ", axis=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3, 3])],
        [
            numpy_helper.from_array(np.array([0.5, 2.0], np.float32), "s"),
            numpy_helper.from_array(np.zeros(2, np.uint8), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    fixed = make_regular(model)
    (scale, zero) = pairs(fixed)["x"]
    assert scale.shape == zero.shape == ()
    assert float(scale) == 2.0
    assert not any(a.name == "axis" for node in fixed.graph.node for a in node.attribute)
    assert pairs(model)["x"][0].shape == (2,)  # the argument is left alone


def test_ranges_found_fast_are_those_that_nncf_finds_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nncf.tensor.functions import numeric

    table, sizes = numeric.quantile.registry, []
    usual = table[np.ndarray]

    def counted(values: np.ndarray, *words: Any, **options: Any) -> np.ndarray:
        sizes.append(values.size)
        return quantiles(values, *words, **options)

    graph, frames = network(512), some_frames(2, side=512)
    settings = QuantizeSettings("percentile")
    monkeypatch.setattr("calibration.quantize.quantiles", counted)
    fast = quantize(graph, frames, 2, settings)
    assert max(sizes) > 100_000
    assert table[np.ndarray] is usual
    monkeypatch.setattr("calibration.quantize.quantiles", usual)
    assert quantize(graph, frames, 2, settings) == fast


def test_nothing_is_printed_where_results_go(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    quantize(network(), some_frames(2), 2, QuantizeSettings(), seen.append)
    assert capsys.readouterr().out == ""
    assert seen
    assert seen == sorted(seen)


def test_bad_settings_are_named() -> None:
    with pytest.raises(CalibrationDataError, match="at least one frame"):
        quantize(network(), [], 0, QuantizeSettings())
    with pytest.raises(CalibrationDataError, match="'guess'"):
        quantize(network(), some_frames(1), 1, QuantizeSettings(estimator="guess"))
    with pytest.raises(CalibrationDataError, match="guess"):
        calibrate(network(), some_frames(1), QuantizeSettings(rounding="guess"))
