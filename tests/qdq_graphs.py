"""Small Q/DQ graphs for tests, built node by node, and the exact run they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


class Builder:
    """Collects nodes and constants. Node names are their output's name with ``_op`` appended."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def normal(self, name: str, *shape: int, std: float = 0.1) -> str:
        return self.const(name, (self.rng.standard_normal(shape) * std).astype(np.float32))

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        node = helper.make_node(kind, list(inputs), [output], name=f"{output}_op", **attributes)
        self.nodes.append(node)
        return output

    def quantize(
        self,
        source: str,
        output: str,
        scale: Any,
        *,
        axis: int | None = None,
        dtype: Any = np.int8,
        zero: int | None = 0,
    ) -> str:
        """source -> Q -> DQ -> output."""
        scales = np.asarray(scale, np.float32)
        parameters = [self.const(f"{output}_scale", scales)]
        if zero is not None:
            parameters.append(self.const(f"{output}_zero", np.full(scales.shape, zero, dtype)))
        kind = {} if axis is None else {"axis": axis}
        self.op("QuantizeLinear", [source, *parameters], f"{output}_q", **kind)
        return self.op("DequantizeLinear", [f"{output}_q", *parameters], output, **kind)

    def weights(
        self, name: str, *shape: int, axis: int | None = 0, dtype: Any = np.int8, zero: int = 0
    ) -> str:
        """A constant stored as integers, dequantized with one scale per index of ``axis``."""
        info = np.iinfo(dtype)
        low = info.min + 1 if info.min < 0 else 0
        stored = self.rng.integers(low, info.max + 1, shape).astype(dtype)
        scales: Array = self.rng.uniform(1e-3, 3e-3, () if axis is None else shape[axis])
        inputs = [
            self.const(f"{name}_int", stored),
            self.const(f"{name}_scale", np.float32(scales)),
            self.const(f"{name}_zero", np.full(np.shape(scales), zero, dtype)),
        ]
        kind = {} if axis is None else {"axis": axis}
        return self.op("DequantizeLinear", inputs, name, **kind)

    def model(
        self,
        inputs: Mapping[str, tuple[int, Sequence[int]]],
        outputs: Mapping[str, Sequence[int] | None],
        *,
        opset: int = 17,
        check: bool = True,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, FLOAT, s) for n, s in outputs.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 9 if opset < 21 else 10
        if check:
            onnx.checker.check_model(model, full_check=True)
        return model


def run_exact(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The Q/DQ graph as written: onnxruntime, its own quantized kernels switched off."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def conv_graph(
    *,
    channels: int = 32,
    kernel: int = 3,
    group: int = 1,
    weight_axis: int | None = 0,
    weight_dtype: Any = np.int8,
    weight_zero: int = 0,
    scale: Any = 0.1,
    scale_axis: int | None = None,
    dtype: Any = np.int8,
    zero: int | None = 0,
    opset: int = 17,
    quantize_weights: bool = True,
    quantize_input: bool = True,
    bias: str = "float",
) -> onnx.ModelProto:
    """x -> Q/DQ -> Conv ``conv_op`` -> y, with one thing changed from what every rule asks."""
    b = Builder()
    x = "x"
    if quantize_input:
        x = b.quantize("x", "xd", scale, axis=scale_axis, dtype=dtype, zero=zero)
    shape = (channels, channels // group, kernel, kernel)
    if not quantize_weights:
        w = b.normal("w", *shape)
    else:
        w = b.weights("w", *shape, axis=weight_axis, dtype=weight_dtype, zero=weight_zero)
    inputs = [x, w]
    if bias == "float":
        inputs.append(b.normal("b", channels))
    elif bias == "int32":
        stored = b.const("b_int", b.rng.integers(-99, 99, channels).astype(np.int32))
        scales = b.const("b_scale", np.full(channels, 1e-3, np.float32))
        inputs.append(b.op("DequantizeLinear", [stored, scales], "b", axis=0))
    b.op("Conv", inputs, "conv", pads=[kernel // 2] * 4, group=group)
    y = b.op("Relu", ["conv"], "y")
    size = [1, channels, 16, 32]
    return b.model({"x": (FLOAT, size)}, {y: size}, opset=opset, check=opset < 20)


def matmul_graph(
    *,
    sets: int | None = 4,
    rows: int = 32,
    inner: int = 64,
    columns: int = 64,
    weight_axis: int | None = -1,
    scale: Any = 0.1,
    scale_axis: int | None = None,
    bias: str = "add",
) -> onnx.ModelProto:
    """x -> Q/DQ -> MatMul ``mm_op`` with (S, K, N) or, for ``sets=None``, (K, N) weights -> Add."""
    b = Builder()
    batch = () if sets is None else (sets,)
    x = b.quantize("x", "xd", scale, axis=scale_axis)
    w = b.weights("w", *batch, inner, columns, axis=weight_axis)
    y = b.op("MatMul", [x, w], "mm")
    if bias == "add":
        one = () if sets is None else (sets, 1)
        y = b.op("Add", [y, b.normal("b", *one, columns)], "y")
    elif bias == "relu":
        y = b.op("Relu", [y], "y")
    return b.model({"x": (FLOAT, [*batch, rows, inner])}, {y: [*batch, rows, columns]})


def with_made_up_ranges(model: onnx.ModelProto, left_in_float: Sequence[str]) -> onnx.ModelProto:
    """A float graph quantized as nncf would place it, without its calibration: any scale will do.

    For tests of what depends on a graph's structure and not on its numbers. Every heavy node but
    those named gets Q/DQ on its input and int8 weights per output channel.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    constants = {t.name: t for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    pairs: dict[str, str] = {}
    b = Builder()
    for node in graph.node:
        heavy = node.op_type in ("Conv", "MatMul") and node.name not in left_in_float
        if heavy and node.input[1] in constants:
            source, weight = node.input[:2]
            if source not in pairs:
                pairs[source] = b.quantize(source, f"{source}.dq", 0.05)
            stored = numpy_helper.to_array(constants[weight])
            axis = 0 if node.op_type == "Conv" else stored.ndim - 1
            others = tuple(i for i in range(stored.ndim) if i != axis)
            scale = np.abs(stored).max(axis=others, keepdims=True) / 127 + 1e-8
            b.const(f"{weight}.int8", np.rint(stored / scale).astype(np.int8))
            b.const(f"{weight}.scale", scale.astype(np.float32).ravel())
            b.const(f"{weight}.zero", np.zeros(scale.size, np.int8))
            parts = [f"{weight}.{part}" for part in ("int8", "scale", "zero")]
            node.input[0], node.input[1] = pairs[source], f"{weight}.dq"
            b.op("DequantizeLinear", parts, f"{weight}.dq", axis=axis)
            constants.pop(weight)
        nodes += [*b.nodes, node]
        b.nodes.clear()
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants.values(), *b.constants])
    return quantized
