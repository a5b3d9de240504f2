"""Pairs move before the moves: what is computed, in NumPy, and ONNX Runtime agrees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from calibration.placement import quantize_before_moves

SCALE = 0.07
Array = npt.NDArray[np.float32]


def graph(*, second_scale: bool = False, moves: bool = True) -> onnx.ModelProto:
    """Relu -> Reshape -> Transpose, then a reader of the rounded tensor and one of the raw."""
    nodes = [helper.make_node("Relu", ["x"], ["relu"], "relu")]
    if moves:
        nodes += [
            helper.make_node("Reshape", ["relu", "shape"], ["cut"], "cut"),
            helper.make_node("Transpose", ["cut"], ["map"], "map", perm=[0, 2, 1, 3]),
        ]
    else:
        nodes += [helper.make_node("Identity", ["relu"], ["map"], "map")]
    nodes += pair("map", "rounded", "scale")
    if second_scale:
        nodes += pair("map", "coarse", "scale2")
    nodes += [
        helper.make_node("Mul", ["map", "three"], ["tripled"], "raw"),
        helper.make_node("Add", ["rounded", "tripled"], ["y"], "sum"),
    ]
    constants = {
        "shape": np.array([2, 2, 3, 4], np.int64),
        "three": np.float32(3),
        "scale": np.float32(SCALE),
        "scale2": np.float32(0.5),
        "zero": np.uint8(0),
    }
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes, "g",
            [value("x", TensorProto.FLOAT, [4, 12])],
            [value("y", TensorProto.FLOAT, [2, 3, 2, 4])],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=9,
    )  # fmt: skip


def pair(source: str, out: str, scale: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, scale, "zero"], [f"q_{out}"], f"Q_{out}"),
        helper.make_node("DequantizeLinear", [f"q_{out}", scale, "zero"], [out], f"DQ_{out}"),
    ]


def run(model: onnx.ModelProto, x: Array) -> Array:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, {"x": x})[0], np.float32)


def moved(x: Array) -> Array:
    out: Array = np.maximum(x, 0).reshape(2, 2, 3, 4).transpose(0, 2, 1, 3)
    return out


def rounded(x: Array) -> Array:
    out: Array = np.rint(x / np.float32(SCALE)).clip(0, 255) * np.float32(SCALE)
    return out


X = np.random.default_rng(0).normal(0, 3, (4, 12)).astype(np.float32)


def test_every_reader_has_the_rounded_tensor_and_the_moves_are_of_bytes() -> None:
    model = graph()
    np.testing.assert_allclose(run(model, X), rounded(moved(X)) + 3 * moved(X), rtol=1e-6)
    assert quantize_before_moves(model.graph) == 1
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, X), 4 * rounded(moved(X)), rtol=1e-6)
    names = [node.name for node in model.graph.node]
    assert names.index("DQ_rounded") < names.index("cut"), "still in topological order"
    assert quantize_before_moves(model.graph) == 0, "nothing is left to move"


def test_two_scales_and_no_moves_are_left_alone() -> None:
    for model in (graph(second_scale=True), graph(moves=False)):
        before = model.SerializeToString()
        assert quantize_before_moves(model.graph) == 0
        assert model.SerializeToString() == before
