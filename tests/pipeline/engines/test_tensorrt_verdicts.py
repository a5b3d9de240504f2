"""The table of ``qdq_lint`` against the real thing: TensorRT for RTX parses and builds each row.

A rule is kept in that table because breaking it costs the int8 kernel or the build. Here every row
is built, and the rule speaks exactly where the builder does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from calibration.qdq_lint import heavy_nodes, lint
from calibration.spelling import to_int8_spelling
from pipeline.engines.trt_builder import BuilderOptions, build_plan
from pipeline.engines.trt_log import node_precisions
from pipeline.engines.trt_modules import import_flavour
from pipeline.errors import EngineError
from tests.qdq_graphs import FLOAT, Builder, conv_graph, matmul_graph

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)

PER_CHANNEL = np.linspace(0.05, 0.1, 32)
Make = Callable[[], onnx.ModelProto]


def _built(model: onnx.ModelProto, capability: str = "8.6") -> dict[str, str]:
    """Precision of every heavy node; raises ``EngineError`` where the parser refuses."""
    trt = import_flavour("tensorrt-rtx", why="this test")
    options = BuilderOptions(compute_capabilities=(capability,))
    built = build_plan(trt, "tensorrt-rtx", model.SerializeToString(), options, gpu=None, cuda=None)
    return node_precisions(built.layers, heavy_nodes(model))


def _between(kind: str, **attributes: object) -> onnx.ModelProto:
    b = Builder()
    y = b.op(kind, [b.quantize("x", "xd", 0.1)], "between", **attributes)
    b.op("Conv", [y, b.weights("w", 16, 32, 1, 1)], "conv")
    return b.model({"x": (FLOAT, [1, 32, 8, 8])}, {"conv": [1, 16, 8, 8]})


def _joined(other: float) -> onnx.ModelProto:
    b = Builder()
    parts = [b.quantize("x", "xd", 0.1), b.quantize("z", "zd", other)]
    b.op("Conv", [b.op("Concat", parts, "joined", axis=1), b.weights("w", 16, 64, 1, 1)], "conv")
    size = [1, 32, 8, 8]
    return b.model({"x": (FLOAT, size), "z": (FLOAT, size)}, {"conv": [1, 16, 8, 8]})


def _gemm(transposed: int, axis: int) -> onnx.ModelProto:
    b = Builder()
    w = b.weights("w", *((64, 32) if transposed else (32, 64)), axis=axis)
    b.op("Gemm", [b.quantize("x", "xd", 0.1), w], "y", transB=transposed)
    return b.model({"x": (FLOAT, [32, 32])}, {"y": [32, 64]})


def _left(axis: int | None) -> onnx.ModelProto:
    b = Builder()
    b.op("MatMul", [b.weights("w", 16, 32, axis=axis), b.quantize("x", "xd", 0.1)], "mm")
    return b.model({"x": (FLOAT, [32, 64])}, {"mm": [16, 64]})


def _patches() -> onnx.ModelProto:
    """A map cut into patches between its quantizer and a batched MatMul, as FC3 is."""
    b = Builder()
    y = b.quantize("x", "xd", 0.1)
    y = b.op("Reshape", [y, b.const("cut", np.array([1, 8, 4, 2, 8, 2, 8]))], "cut_out")
    y = b.op("Transpose", [y], "order", perm=[2, 0, 1, 3, 5, 4, 6])
    y = b.op("Reshape", [y, b.const("rows", np.array([4, -1, 64]))], "rows_out")
    y = b.op("MatMul", [y, b.weights("w", 4, 64, 64, axis=-1)], "mm")
    b.op("Add", [y, b.normal("b", 4, 1, 64)], "y")
    return b.model({"x": (FLOAT, [1, 32, 16, 16])}, {"y": [4, 32, 64]})


def _transposed_conv() -> onnx.ModelProto:
    b = Builder()
    x = b.quantize("x", "xd", 0.1)
    b.op("ConvTranspose", [x, b.weights("w", 32, 16, 2, 2, axis=1)], "y", strides=[2, 2])
    return b.model({"x": (FLOAT, [1, 32, 8, 8])}, {"y": [1, 16, 16, 16]})


KEPT: dict[str, Make] = {
    "conv per channel": conv_graph,
    "conv per tensor": lambda: conv_graph(weight_axis=None),
    "depthwise": lambda: conv_graph(group=32),
    "grouped": lambda: conv_graph(group=4),
    "opset 13": lambda: conv_graph(opset=13),
    "opset 19": lambda: conv_graph(opset=19),
    "no bias": lambda: conv_graph(bias="none"),
    "matmul 2-D, axis 1": lambda: matmul_graph(sets=None),
    "matmul 3-D, axis 2": matmul_graph,
    "matmul 3-D, per tensor": lambda: matmul_graph(weight_axis=None),
    "matmul, constant on the left": lambda: _left(0),
    "gemm": lambda: _gemm(0, 1),
    "gemm transposed": lambda: _gemm(1, 0),
    "patches": _patches,
    "through a transposition": lambda: _between("Transpose", perm=[0, 1, 3, 2]),
    "through max pooling": lambda: _between("MaxPool", kernel_shape=[1, 1]),
    "joined, one scale": lambda: _joined(0.1),
    "uint8, respelled": lambda: to_int8_spelling(conv_graph(dtype=np.uint8)),
    "per channel, respelled": lambda: to_int8_spelling(
        conv_graph(group=32, scale=PER_CHANNEL, scale_axis=1)
    ),
    "rank one, respelled": lambda: to_int8_spelling(conv_graph(scale=[0.1])),
}
SILENT: dict[str, Make] = {
    "activation-axis": lambda: conv_graph(scale=PER_CHANNEL, scale_axis=1),
    "activation-axis, depthwise": lambda: conv_graph(group=32, scale=PER_CHANNEL, scale_axis=1),
    "scale-rank": lambda: conv_graph(scale=[0.1]),
    "weight-axis, conv": lambda: conv_graph(weight_axis=1),
    "weight-axis, matmul 2-D": lambda: matmul_graph(sets=None, weight_axis=0),
    "weight-axis, matmul 3-D rows": lambda: matmul_graph(weight_axis=1),
    "weight-axis, matmul 3-D sets": lambda: matmul_graph(weight_axis=0),
    "weight-axis, gemm": lambda: _gemm(0, 0),
    "weight-axis, left": lambda: _left(1),
    "heavy-float, activations": lambda: conv_graph(quantize_input=False),
    "heavy-float, weights": lambda: conv_graph(quantize_weights=False),
    "heavy-float, relu between": lambda: _between("Relu"),
    "heavy-float, joined": lambda: _joined(0.2),
    "heavy-float, transposed convolution": _transposed_conv,
}
REFUSED: dict[str, Make] = {
    "zero-point, activations": lambda: conv_graph(zero=3),
    "zero-point, weights": lambda: conv_graph(weight_zero=1),
    "zero-point, uint8": lambda: conv_graph(dtype=np.uint8, zero=128),
    "weight-type": lambda: conv_graph(weight_dtype=np.uint8),
    "quantized-bias": lambda: conv_graph(bias="int32"),
    "type, int16": lambda: conv_graph(dtype=np.int16, opset=21),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_the_rules_runs_in_int8(name: str) -> None:
    model = KEPT[name]()
    assert lint(model, "tensorrt") == []
    assert set(_built(model).values()) == {"int8"}


@pytest.mark.parametrize("name", SILENT)
def test_what_breaks_a_rule_builds_and_is_silently_float(name: str) -> None:
    model = SILENT[name]()
    assert name.partition(",")[0] in {v.rule for v in lint(model, "tensorrt")}
    assert "int8" not in _built(model).values()


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_a_rule_is_refused_by_the_parser(name: str) -> None:
    model = REFUSED[name]()
    assert name.partition(",")[0] in {v.rule for v in lint(model, "tensorrt")}
    with pytest.raises(EngineError, match=r"cannot parse the model: \S") as caught:
        _built(model)
    assert "\n" not in str(caught.value)


def test_the_uint8_trap_builds_without_a_word_but_a_warning() -> None:
    """The one rule whose breaking this machine cannot see: it builds in int8, range and all."""
    model = conv_graph(dtype=np.uint8)
    assert [v.rule for v in lint(model, "tensorrt")] == ["type"]
    trt = import_flavour("tensorrt-rtx", why="this test")
    built = build_plan(
        trt, "tensorrt-rtx", model.SerializeToString(), BuilderOptions(), gpu=None, cuda=None
    )
    assert set(node_precisions(built.layers, heavy_nodes(model)).values()) == {"int8"}
    assert any("Defaulting to INT8" in warning for warning in built.warnings)
    respelled = to_int8_spelling(model)
    built = build_plan(
        trt, "tensorrt-rtx", respelled.SerializeToString(), BuilderOptions(), gpu=None, cuda=None
    )
    assert not any("Defaulting to INT8" in warning for warning in built.warnings)


@pytest.mark.parametrize("capability", ["8.0", "8.9", "12.0"])
def test_the_verdict_is_the_same_for_other_gpus(capability: str) -> None:
    assert set(_built(conv_graph(), capability).values()) == {"int8"}
    assert "int8" not in _built(conv_graph(scale=[0.1]), capability).values()
