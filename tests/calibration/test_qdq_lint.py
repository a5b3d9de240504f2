"""Each rule of the table, broken one at a time. That the rules are true is tested with the real
builder, in tests/pipeline/engines/test_tensorrt_verdicts.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from calibration.qdq_lint import Backend, lint
from tests.qdq_graphs import FLOAT, Builder, conv_graph, matmul_graph

BACKENDS: tuple[Backend, ...] = ("openvino", "tensorrt")
PER_CHANNEL = np.linspace(0.05, 0.1, 32)


def _rules(model: onnx.ModelProto, backend: Backend, **options: list[str]) -> list[str]:
    return [violation.rule for violation in lint(model, backend, **options)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make",
    [
        conv_graph,
        lambda: conv_graph(group=32),
        lambda: conv_graph(group=4, kernel=1),
        lambda: conv_graph(weight_axis=None),
        lambda: conv_graph(opset=13),
        lambda: conv_graph(opset=19),
        lambda: conv_graph(bias="none"),
        matmul_graph,
        lambda: matmul_graph(sets=None),
        lambda: matmul_graph(weight_axis=None),
    ],
)
def test_a_graph_that_keeps_every_rule_is_clean(
    make: Callable[[], onnx.ModelProto], backend: Backend
) -> None:
    assert lint(make(), backend) == []


@pytest.mark.parametrize(
    ("model", "rule", "node", "backends"),
    [
        (conv_graph(opset=21), "opset", "", BACKENDS),
        (conv_graph(dtype=np.uint8), "type", "xd_op", ("tensorrt",)),
        (conv_graph(zero=None), "type", "xd_op", ("tensorrt",)),
        (conv_graph(dtype=np.int16, opset=21), "type", "xd_op", BACKENDS),
        (conv_graph(zero=3), "zero-point", "xd_op", BACKENDS),
        (conv_graph(dtype=np.uint8, zero=128), "zero-point", "xd_op", BACKENDS),
        (conv_graph(weight_zero=1), "zero-point", "w_op", BACKENDS),
        (conv_graph(weight_dtype=np.uint8), "weight-type", "w_op", BACKENDS),
        (conv_graph(scale=0.0), "scale", "xd_op", BACKENDS),
        (conv_graph(scale=np.nan), "scale", "xd_op", BACKENDS),
        (conv_graph(scale=-0.1), "scale", "xd_op", BACKENDS),
        (conv_graph(bias="int32"), "quantized-bias", "conv_op", BACKENDS),
        (conv_graph(weight_axis=1), "weight-axis", "conv_op", BACKENDS),
        (conv_graph(scale=PER_CHANNEL, scale_axis=1), "activation-axis", "xd_op", BACKENDS),
        (
            conv_graph(scale=PER_CHANNEL, scale_axis=1, group=32),
            "activation-axis",
            "xd_op",
            ("tensorrt",),
        ),
        (conv_graph(scale=[0.1]), "scale-rank", "xd_op", ("tensorrt",)),
        (conv_graph(quantize_input=False), "heavy-float", "conv_op", BACKENDS),
        (conv_graph(quantize_weights=False), "heavy-float", "conv_op", BACKENDS),
        (matmul_graph(weight_axis=0), "weight-axis", "mm_op", BACKENDS),
        (matmul_graph(weight_axis=1), "weight-axis", "mm_op", BACKENDS),
        (matmul_graph(sets=None, weight_axis=0), "weight-axis", "mm_op", BACKENDS),
        (matmul_graph(bias="none"), "batched-bias", "mm_op", ("openvino",)),
        (matmul_graph(bias="relu"), "batched-bias", "mm_op", ("openvino",)),
    ],
)
def test_each_broken_rule_is_named_with_its_node(
    model: onnx.ModelProto, rule: str, node: str, backends: tuple[Backend, ...]
) -> None:
    for backend in BACKENDS:
        hits = [v for v in lint(model, backend) if v.rule == rule and v.node == node]
        assert bool(hits) == (backend in backends), backend
        assert all(node in v.message and "\n" not in v.message for v in hits)


def test_bias_rule_spares_what_openvino_computes_rightly() -> None:
    assert "batched-bias" not in _rules(matmul_graph(bias="none", weight_axis=None), "openvino")
    assert "batched-bias" not in _rules(matmul_graph(bias="none", sets=None), "openvino")


def test_a_bias_shared_through_a_second_reader_does_not_count() -> None:
    b = Builder()
    x = b.quantize("x", "xd", 0.1)
    y = b.op("MatMul", [x, b.weights("w", 4, 8, 8, axis=-1)], "mm")
    b.op("Add", [y, b.normal("b", 4, 1, 8)], "biased")
    b.op("Add", ["biased", y], "y")
    model = b.model({"x": (FLOAT, [4, 2, 8])}, {"y": [4, 2, 8]})
    assert _rules(model, "openvino") == ["batched-bias"]


def test_float_ok_lists_nodes_not_kinds() -> None:
    model = conv_graph(quantize_weights=False)
    assert _rules(model, "tensorrt", float_ok=["conv_op"]) == []
    assert _rules(model, "tensorrt", float_ok=["another_op"]) == ["heavy-float"]


def _between(kind: str, **attributes: object) -> onnx.ModelProto:
    b = Builder()
    x = b.quantize("x", "xd", 0.1)
    y = b.op(kind, [x], "between", **attributes)
    b.op("Conv", [y, b.weights("w", 16, 32, 1, 1)], "conv")
    return b.model({"x": (FLOAT, [1, 32, 8, 8])}, {"conv": [1, 16, 8, 8]})


def test_what_moves_values_lets_integers_through_and_what_computes_does_not() -> None:
    assert _rules(_between("Transpose", perm=[0, 1, 3, 2]), "tensorrt") == []
    assert _rules(_between("MaxPool", kernel_shape=[1, 1]), "tensorrt") == []
    assert _rules(_between("Relu"), "tensorrt") == ["heavy-float"]


@pytest.mark.parametrize(("other", "rules"), [(0.1, []), (0.2, ["heavy-float"])])
def test_concat_needs_one_scale_in_tensorrt(other: float, rules: list[str]) -> None:
    b = Builder()
    parts = [b.quantize("x", "xd", 0.1), b.quantize("x", "xe", other)]
    b.op("Conv", [b.op("Concat", parts, "joined", axis=1), b.weights("w", 8, 16, 1, 1)], "conv")
    model = b.model({"x": (FLOAT, [1, 8, 4, 4])}, {"conv": [1, 8, 4, 4]})
    assert _rules(model, "tensorrt") == rules
    assert _rules(model, "openvino") == ["signed-concat"]


def test_the_constant_side_of_a_matmul_decides_its_axis() -> None:
    def left(axis: int | None) -> onnx.ModelProto:
        b = Builder()
        x = b.quantize("x", "xd", 0.1)
        b.op("MatMul", [b.weights("w", 16, 32, axis=axis), x], "mm")
        return b.model({"x": (FLOAT, [32, 8])}, {"mm": [16, 8]})

    assert _rules(left(None), "tensorrt") == []
    assert _rules(left(0), "tensorrt") == []
    assert _rules(left(1), "tensorrt") == ["weight-axis"]


def test_a_matmul_of_two_activations_is_not_judged() -> None:
    b = Builder()
    b.op("MatMul", ["x", "z"], "y")
    model = b.model({"x": (FLOAT, [4, 4]), "z": (FLOAT, [4, 4])}, {"y": [4, 4]})
    assert lint(model, "tensorrt") == []


@pytest.mark.parametrize(("transposed", "axis", "ok"), [(0, 1, True), (1, 0, True), (1, 1, False)])
def test_gemm_scales_follow_its_transposition(transposed: int, axis: int, ok: bool) -> None:
    b = Builder()
    x = b.quantize("x", "xd", 0.1)
    w = b.weights("w", *((64, 32) if transposed else (32, 64)), axis=axis)
    b.op("Gemm", [x, w], "y", transB=transposed)
    model = b.model({"x": (FLOAT, [8, 32])}, {"y": [8, 64]})
    assert _rules(model, "tensorrt") == ([] if ok else ["weight-axis"])


def test_tensorrt_has_no_int8_transposed_convolution() -> None:
    b = Builder()
    x = b.quantize("x", "xd", 0.1)
    b.op("ConvTranspose", [x, b.weights("w", 8, 4, 2, 2, axis=1)], "y", strides=[2, 2])
    model = b.model({"x": (FLOAT, [1, 8, 4, 4])}, {"y": [1, 4, 8, 8]})
    assert _rules(model, "tensorrt") == ["heavy-float"]
    assert _rules(model, "openvino") == []


def _first(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def test_a_pair_must_agree_and_be_whole() -> None:
    split = conv_graph()
    split.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.2), "another_scale"))
    _first(split, "DequantizeLinear").input[1] = "another_scale"
    assert _rules(split, "openvino") == ["unpaired"]

    leaking = conv_graph()
    leaking.graph.output.append(
        helper.make_tensor_value_info("xd_q", TensorProto.INT8, [1, 32, 16, 32])
    )
    assert _rules(leaking, "tensorrt") == ["unpaired"]

    orphan = conv_graph()
    _first(orphan, "DequantizeLinear").input[0] = "integers_from_outside"
    assert "unpaired" in _rules(orphan, "tensorrt")


def test_computed_parameters_are_refused() -> None:
    model = conv_graph()
    for node in list(model.graph.node)[:2]:
        node.input[1] = "computed"
    model.graph.node.insert(0, helper.make_node("Exp", ["xd_scale"], ["computed"], name="exp"))
    assert "parameters" in _rules(model, "openvino")


def test_sub_graphs_and_foreign_operators_are_refused() -> None:
    model = conv_graph()
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["c"], [], name="if", then_branch=branch, else_branch=branch)
    )
    assert _rules(model, "tensorrt") == ["control-flow"]

    foreign = conv_graph()
    foreign.opset_import.append(helper.make_opsetid("com.example", 1))
    assert lint(foreign, "tensorrt") == []  # imported but unused
    foreign.graph.node[-1].domain = "com.example"
    assert _rules(foreign, "tensorrt") == ["opset"]
