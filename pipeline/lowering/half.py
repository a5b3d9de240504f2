"""A float32 graph -> the same graph typed float16, its inputs and outputs left as they are.

Strongly typed TensorRT (the only kind there is from version 11 on) computes what the graph's types
say, so half precision is written into the graph:

* float32 constants become float16, but for those that a node keeps in float32 (``Resize`` scales);
* ``Cast`` to float32 becomes ``Cast`` to float16;
* nodes that must not be rounded stay in float32, with a ``Cast`` where a tensor crosses over;
* Q/DQ pairs take and give float16: the integers are the same, and so is the int8 product.

float16 holds 6e-5 to 65504 at 11 bits. A scale below ``MIN_SCALE`` would lose bits that every
weight of its channel shares, so an operator with such a weight scale stays in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.qdq_graph import DEQUANTIZE, QUANTIZE, TRANSPARENT, QdqGraph, drop_unused
from pipeline.lowering.light import at_opset, check, inferred

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Q and DQ take float16 from here on.
OPSET = 19
# The smallest normal float16.
MIN_SCALE = 2.0**-14
MAX_HALF = 65504.0
# Inputs that the standard wants in float32 whatever the data's type is: operator -> positions.
_ALWAYS_FLOAT = {"Resize": (1, 2)}
# A mean over a whole map: float16 sums would overflow or stop growing.
_SUMS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float16.

    Args:
        model: float32, or Q/DQ over float32; opset 13 to 19; shapes fixed.

    Returns:
        A new, checked model at opset 19.

    Raises:
        ValueError: a constant is beyond float16's range; names it.
    """
    half = at_opset(model, OPSET)
    graph = half.graph
    outputs = {value.name for value in graph.output}
    for i, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    index = QdqGraph(half)
    floats = _float_tensors(half)
    kept = _kept(index)
    typed: dict[str, int] = {}
    for node in graph.node:
        for name in node.output:
            if name in floats:
                typed[name] = FLOAT if node.name in kept else HALF
    for value in graph.input:
        typed[value.name] = value.type.tensor_type.elem_type
    _Rewriter(half, floats, kept, typed).run()
    check(half)
    del graph.value_info[:]
    graph.value_info.extend(v for v in inferred(half) if v.name not in outputs)
    return half


def _kept(graph: QdqGraph) -> set[str]:
    """Names of the nodes that stay in float32: means over whole maps, and operators whose weight
    scales are too small.

    With a quantized operator go the quantizers of all its operands, and what moves values between:
    a cast between a DQ and its operator would cost the int8 kernel.
    """
    kept: set[str] = set()
    for node in graph.nodes:
        if node.op_type in _SUMS:
            kept.add(node.name)
        scales = [
            pair.scale
            for pair in map(graph.quantizer_of, node.input)
            if pair is not None and pair.constant and pair.scale is not None
        ]
        if any(float(scale.min()) < MIN_SCALE for scale in scales):
            kept.add(node.name)
        if scales and node.name in kept:
            for name in node.input:
                kept |= _quantized_path(graph, name)
    return kept


def _quantized_path(graph: QdqGraph, name: str) -> set[str]:
    """Names of the nodes from a quantizer to this tensor; none where it is not quantized."""
    path: set[str] = set()
    node = graph.producer.get(name)
    while node is not None:
        path.add(node.name)
        if node.op_type == QUANTIZE or (
            node.op_type == DEQUANTIZE and graph.is_constant(node.input[0])
        ):
            return path
        if node.op_type != DEQUANTIZE and node.op_type not in TRANSPARENT:
            return set()
        node = graph.producer.get(node.input[0])
    return set()


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors that nodes make or graph inputs are."""
    values = [*inferred(model), *model.graph.input]
    return {v.name for v in values if v.type.tensor_type.elem_type == FLOAT}


class _Rewriter:
    """Retypes constants and inserts casts, in place."""

    def __init__(
        self, model: onnx.ModelProto, floats: set[str], kept: set[str], typed: dict[str, int]
    ) -> None:
        self.graph = model.graph
        self.floats, self.kept, self.typed = floats, kept, typed
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.halves: dict[str, str] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        outputs = {value.name for value in self.graph.output if value.name in self.floats}
        for node in self.graph.node:
            kind = FLOAT if node.name in self.kept else HALF
            for i, name in enumerate(node.input):
                if name and i not in _ALWAYS_FLOAT.get(node.op_type, ()):
                    node.input[i] = self._as(name, kind)
            if node.op_type == "Cast":
                for attribute in node.attribute:
                    if attribute.name == "to" and attribute.i == FLOAT:
                        attribute.i = kind
            self.nodes.append(node)
            for i, name in enumerate(node.output):
                if name in outputs and self.typed.get(name) == HALF:
                    # The output keeps its name and type; the node's own result gets another.
                    node.output[i] = f"{name}_half"
                    self.nodes.append(_cast(f"{name}_half", name, FLOAT))
                    self.typed[name] = FLOAT
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        drop_unused(self.graph)

    def _as(self, name: str, kind: int) -> str:
        """The tensor in that type: itself, a constant converted, or a cast."""
        tensor = self.constants.get(name)
        if tensor is not None:
            return self._constant(tensor) if kind == HALF else name
        if name not in self.floats or self.typed.get(name, FLOAT) == kind:
            return name
        made = self.casts.get((name, kind))
        if made is None:
            made = self.casts[name, kind] = f"{name}_as_{'half' if kind == HALF else 'float'}"
            self.nodes.append(_cast(name, made, kind))
        return made

    def _constant(self, tensor: onnx.TensorProto) -> str:
        if tensor.data_type != FLOAT:
            return str(tensor.name)
        if tensor.name not in self.halves:
            values = numpy_helper.to_array(tensor)
            if not np.all(np.abs(values) <= MAX_HALF):
                raise ValueError(
                    f"constant '{tensor.name}' reaches {np.abs(values).max():.3g}, beyond float16"
                )
            name: str = f"{tensor.name}_half"
            self.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), name))
            self.halves[tensor.name] = name
        return self.halves[tensor.name]


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)
