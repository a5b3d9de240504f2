"""float16 graphs: typed as they say, and as close to the float32 graph as float16 is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from calibration.qdq_lint import heavy_nodes, lint
from pipeline.lowering.half import OPSET, to_half
from tests.qdq_graphs import FLOAT, UINT8, Builder, conv_graph, matmul_graph, run_exact

Array = npt.NDArray[Any]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}


def _network() -> onnx.ModelProto:
    """uint8 image, convolution, gate over the whole map, Resize with float32 scales, logits."""
    b = Builder()
    y = b.op("Cast", ["frames"], "float", to=FLOAT)
    y = b.op("Transpose", [y], "nchw", perm=[0, 3, 1, 2])
    inputs = [y, b.normal("w", 8, 3, 4, 4, std=0.002), b.normal("b", 8)]
    y = b.op("Conv", inputs, "embed", strides=[4, 4])
    mean = b.op("GlobalAveragePool", [y], "mean")
    gate = b.op("Sigmoid", [mean], "gate")
    y = b.op("Mul", [y, gate], "gated")
    scales = b.const("scales", np.array([1, 1, 2, 2], np.float32))
    y = b.op("Resize", [y, "", scales], "up", mode="linear")
    b.op("Conv", [y, b.normal("v", 5, 8, 1, 1)], "logits")
    return b.model({"frames": (UINT8, [1, 16, 32, 3])}, {"logits": [1, 5, 8, 16]})


def _frames(seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (1, 16, 32, 3)).astype(np.uint8)


def test_inputs_and_outputs_keep_their_types_and_the_rest_is_half() -> None:
    half = to_half(_network())
    assert half.opset_import[0].version == OPSET
    assert half.graph.input[0].type.tensor_type.elem_type == UINT8
    assert half.graph.output[0].name == "logits"
    assert half.graph.output[0].type.tensor_type.elem_type == FLOAT
    types = _types(half)
    for name in ("float", "nchw", "embed", "gate", "gated", "up"):
        assert types[name] == TensorProto.FLOAT16, name
    assert types["mean"] == FLOAT  # a sum over the whole map
    heavy = [types[node.output[0]] for node in half.graph.node if node.op_type == "Conv"]
    assert heavy == [TensorProto.FLOAT16] * 2
    assert [node.op_type for node in half.graph.node].count("Cast") == 4


def test_it_is_the_same_network_to_float16_rounding() -> None:
    model = _network()
    half = to_half(model)
    for seed in range(3):
        want = run_exact(model, {"frames": _frames(seed)})[0]
        got = run_exact(half, {"frames": _frames(seed)})[0]
        assert got.dtype == np.float32
        # A dozen roundings of 2^-11 each.
        assert np.abs(got - want).max() <= 12 * 2.0**-11 * np.abs(want).max()
        assert np.abs(got - want).max() > 0


def test_the_argument_is_left_alone() -> None:
    model = _network()
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before


def test_an_output_that_is_read_again_is_right_in_both_types() -> None:
    b = Builder()
    b.op("Relu", ["x"], "y")
    b.op("Mul", ["y", b.const("two", np.float32(2))], "z")
    model = b.model({"x": (FLOAT, [4])}, {"y": [4], "z": [4]})
    x = np.array([-1, 0.5, 2, 1000], np.float32)
    y, z = run_exact(to_half(model), {"x": x})
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(z, 2 * np.maximum(x, 0))


@pytest.mark.parametrize("model", [conv_graph(), conv_graph(group=32), matmul_graph()])
def test_quantized_graphs_stay_quantized(model: onnx.ModelProto) -> None:
    half = to_half(model)
    assert heavy_nodes(half) == heavy_nodes(model)
    assert lint(half, "tensorrt") == []
    assert _kinds(half) == _kinds(model)
    name, shape = "x", [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    want, got = (run_exact(m, {name: x})[0] for m in (model, half))
    # The same integers up to the input's own rounding to float16, then one product of them.
    assert np.mean(np.abs(got - want)) <= 2.0**-10 * np.abs(want).max()


def _kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node if "Linear" in n.op_type)


def test_weights_whose_scale_float16_cannot_hold_stay_in_float() -> None:
    model = conv_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "w_scale":
            tiny = onnx.numpy_helper.to_array(tensor) * np.float32(1e-3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(tiny, "w_scale"))
    half = to_half(model)
    types = _types(half)
    for name in ("xd", "w", "conv"):
        assert types[name] == FLOAT, name  # the operator, and both its quantizers
    assert types["y_half"] == TensorProto.FLOAT16
    assert heavy_nodes(half) == {"conv_op": True}
    x = np.random.default_rng(3).standard_normal((1, 32, 16, 32)).astype(np.float32)
    want, got = (run_exact(m, {"x": x})[0] for m in (model, half))
    np.testing.assert_allclose(got, want, atol=2.0**-11 * float(np.abs(want).max()))


def test_a_constant_beyond_float16_is_named() -> None:
    b = Builder()
    b.op("Mul", ["x", b.const("huge", np.float32(1e6))], "y")
    model = b.model({"x": (FLOAT, [4])}, {"y": [4]})
    with pytest.raises(ValueError, match=r"constant 'huge' reaches 1e\+06, beyond float16"):
        to_half(model)
