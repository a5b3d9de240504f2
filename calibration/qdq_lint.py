"""The rules a Q/DQ ONNX graph must keep so that an engine runs it in int8, and runs it right.

Breaking one of them is rarely an error anywhere else: the graph still builds, and is silently
slow (a heavy layer in float) or silently wrong. Each rule below was observed, with OpenVINO
2026.4.1 on CPU and TensorRT for RTX 1.7.1, which the tests of this module build every row with.

====================  ==============  =============================================================
rule                  back end        what happens otherwise
====================  ==============  =============================================================
opset                 both            outside 13..19: no per-axis scales, or JetPack cannot parse it
control-flow          both            nodes hidden in a sub-graph would not be looked at
parameters            both            scale or zero point not a constant: not quantizable
scale                 both            not finite or not positive: garbage
type                  both            int16, int4, fp8...: not what either engine was checked with
type                  tensorrt        uint8 is taken as int8, whose range ends at 127: activations
                                      saturate without a word; uint8 constants do not parse
weight-type           both            weights not int8: as above
zero-point            both            not zero: TensorRT's parser refuses it
unpaired              both            Q without DQ, DQ without Q, or two scales in one pair
quantized-bias        both            TensorRT's parser refuses int32
weight-axis           both            scales along any axis but the output channel: float kernels
activation-axis       both            scales per channel: float kernels in TensorRT; OpenVINO may
                                      have them before a depthwise convolution
scale-rank            tensorrt        scale of shape (1,) instead of (): float convolution kernels
heavy-float           both            a heavy operator whose operands are not quantized
batched-bias          openvino        a batched MatMul with per-column scales and no constant Add
                                      directly after it computes infinities, others each run; so it
                                      does where that constant is broadcast or the same everywhere
signed-concat         openvino        a Concat of several tensors, one of them int8, that a heavy
                      operator reads: rounded as if the scale were 1 (all uint8 is right)
rounded-sum           openvino        Q/DQ between a Conv (or its Relu) and an Add: the engine fuses
                      the Add into the Conv and leaves that rounding out
====================  ==============  =============================================================

``docs/upstream`` reproduces the last three. Heavy operators are Conv, ConvTranspose, Gemm, and
MatMul with a constant operand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from calibration.qdq_graph import (
    DEQUANTIZE,
    HEAVY,
    QUANTIZE,
    TRANSPARENT,
    QdqGraph,
    Quantizer,
    Violation,
    axis_of,
    label,
)
from calibration.qdq_openvino import batched_bias, rounded_sum, signed_concat

Backend: TypeAlias = Literal["openvino", "tensorrt"]

MIN_OPSET, MAX_OPSET = 13, 19
_FROM_CONSTANT = TRANSPARENT | {QUANTIZE, DEQUANTIZE, "Cast"}


def lint(
    model: onnx.ModelProto, backend: Backend, float_ok: Collection[str] = ()
) -> list[Violation]:
    """Every rule the graph breaks for that back end, in graph order; empty when it is fit to build.

    Args:
        model: a Q/DQ graph in the standard operator set, with its weights loaded.
        backend: ``openvino`` or ``tensorrt`` (which covers TensorRT for RTX).
        float_ok: names of heavy nodes that stay in float on purpose, as
            ``quantize.FLOAT_PATTERNS`` has them: the gates, pyramid pooling and the classifier.
    """
    found = list(_opset(model))
    found += _control_flow(model)
    graph = QdqGraph(model)
    for node in graph.nodes:
        if node.op_type == QUANTIZE:
            found += _quantize(graph, node)
        elif node.op_type == DEQUANTIZE:
            found += _dequantize(graph, node, backend)
        elif node.op_type in HEAVY:
            found += _heavy(graph, node, backend, float_ok)
        elif backend == "openvino" and node.op_type == "Concat":
            found += signed_concat(graph, node)
        elif backend == "openvino" and node.op_type == "Add":
            found += rounded_sum(graph, node)
    return found


def describe(violations: Sequence[Violation]) -> str:
    """The first of them and how many there are, as a phrase after "breaks"; at least one."""
    first = violations[0]
    return (
        f"rule '{first.rule}' at node '{first.node}': {first.message} ({len(violations)} "
        "violations in all)"
    )


def heavy_nodes(model: onnx.ModelProto) -> dict[str, bool]:
    """Every heavy node by name, in graph order: whether both its operands are quantized.

    ``False`` is a node left in float on purpose, or half quantized, which ``lint`` reports. A
    MatMul of two activations is not listed.
    """
    graph = QdqGraph(model)
    found = {}
    for node in graph.nodes:
        if node.op_type in HEAVY and (
            node.op_type != "MatMul" or any(_weights(graph, name) for name in node.input[:2])
        ):
            reasons = [_why_float(graph, name, "tensorrt") for name in node.input[:2]]
            found[label(node)] = not any(reasons)
    return found


def left_in_float(model: onnx.ModelProto) -> list[str]:
    """Heavy nodes with no quantized operand at all: what the quantizer left in float on purpose.

    Half quantized ones are not among them, so that ``lint`` names them.
    """
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == DEQUANTIZE}
    inputs = {node.name: node.input[:2] for node in model.graph.node}
    return [
        name
        for name, quantized in heavy_nodes(model).items()
        if not quantized and not dequantized.intersection(inputs.get(name, ()))
    ]


def _opset(model: onnx.ModelProto) -> Iterator[Violation]:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not MIN_OPSET <= entry.version <= MAX_OPSET:
            yield Violation(
                "opset", "", f"opset {entry.version} is not within {MIN_OPSET} to {MAX_OPSET}"
            )
        elif entry.domain not in ("", "ai.onnx") and any(
            node.domain == entry.domain for node in model.graph.node
        ):
            yield Violation("opset", "", f"operators of '{entry.domain}' are not standard ONNX")


def _control_flow(model: onnx.ModelProto) -> Iterator[Violation]:
    for node in model.graph.node:
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            yield Violation("control-flow", label(node), f"{label(node)}: has a sub-graph")


def _quantize(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Violation]:
    name, output = label(node), node.output[0]
    readers = graph.consumers.get(output, [])
    if output in graph.outputs or not readers:
        yield Violation("unpaired", name, f"{name}: integers leave the graph undequantized")
    for reader in readers:
        if reader.op_type != DEQUANTIZE or reader.input[0] != output:
            yield Violation("unpaired", name, f"{name}: read by {label(reader)}, which is no DQ")
        elif not graph.same_parameters(node, reader):
            yield Violation(
                "unpaired", name, f"{name} and {label(reader)} have different parameters"
            )


def _dequantize(graph: QdqGraph, node: onnx.NodeProto, backend: Backend) -> Iterator[Violation]:
    name = label(node)
    pair = graph.quantizer(node)
    if pair is None:
        yield Violation("unpaired", name, f"{name}: its input comes from no QuantizeLinear")
        return
    yield from _parameters(pair, name)
    if pair.element == TensorProto.INT32:
        yield Violation("quantized-bias", name, f"{name}: int32 cannot be parsed, keep it float")
        return
    if pair.element not in (TensorProto.INT8, TensorProto.UINT8):
        kind = TensorProto.DataType.Name(pair.element)
        yield Violation("type", name, f"{name}: {kind} is neither INT8 nor UINT8")
    elif pair.element == TensorProto.UINT8 and pair.constant:
        yield Violation("weight-type", name, f"{name}: UINT8 weights, must be INT8")
    elif pair.element == TensorProto.UINT8 and backend == "tensorrt":
        yield Violation("type", name, f"{name}: UINT8 would be read as INT8 and end at 127")
    if not pair.constant and pair.scale is not None:
        yield from _activation_scale(graph, pair, pair.scale, backend)


def _parameters(pair: Quantizer, name: str) -> Iterator[Violation]:
    if pair.scale is None:
        yield Violation("parameters", name, f"{name}: its scale is not a float constant")
    elif not (np.all(np.isfinite(pair.scale)) and np.all(pair.scale > 0)):
        yield Violation("scale", name, f"{name}: a scale is not finite or not positive")
    stored = len(pair.dq.input) > 2 and pair.dq.input[2]
    if stored and pair.zero_point is None:
        yield Violation("parameters", name, f"{name}: its zero point is not a constant")
    elif pair.zero_point is not None and np.any(pair.zero_point != 0):
        yield Violation("zero-point", name, f"{name}: zero points must be 0")


def _activation_scale(
    graph: QdqGraph, pair: Quantizer, scale: npt.NDArray[np.floating], backend: Backend
) -> Iterator[Violation]:
    name = label(pair.dq)
    if not pair.per_tensor:
        readers = graph.consumers.get(pair.dq.output[0], [])
        if backend == "tensorrt" or not all(_depthwise(graph, reader) for reader in readers):
            yield Violation(
                "activation-axis", name, f"{name}: {scale.size} activation scales, must be one"
            )
    elif backend == "tensorrt" and scale.ndim != 0:
        yield Violation(
            "scale-rank", name, f"{name}: scale of shape {scale.shape}, must be a scalar"
        )


def _heavy(
    graph: QdqGraph, node: onnx.NodeProto, backend: Backend, float_ok: Collection[str]
) -> Iterator[Violation]:
    name = label(node)
    operands = [_weights(graph, tensor) for tensor in node.input[:2]]
    if node.op_type == "MatMul" and not any(operands):
        return  # of two activations: attention; this network has none
    side = 0 if node.op_type == "MatMul" and operands[0] and not operands[1] else 1
    if len(node.input) > 2 and graph.quantizer_of(node.input[2]) is not None:
        yield Violation("quantized-bias", name, f"{name}: its bias is quantized, keep it float")
    if name in float_ok:
        return
    reasons = [_why_float(graph, tensor, backend) for tensor in node.input[:2]]
    if node.op_type == "ConvTranspose" and backend == "tensorrt":
        reasons.append("there is no int8 kernel for ConvTranspose")
    for reason in filter(None, reasons):
        yield Violation("heavy-float", name, f"{name}: would run in float: {reason}")
    weights = graph.quantizer_of(node.input[side])
    if weights is None or not weights.constant or weights.scale is None or weights.per_tensor:
        return
    yield from _weight_axis(graph, node, weights, side)
    rank = len(graph.constant_shape(weights.source))
    if backend == "openvino" and node.op_type == "MatMul" and rank > 2:
        yield from batched_bias(graph, node, graph.constant_shape(weights.source)[:-2])


def _weight_axis(
    graph: QdqGraph, node: onnx.NodeProto, weights: Quantizer, side: int
) -> Iterator[Violation]:
    rank = len(graph.constant_shape(weights.source))
    axis = axis_of(weights.dq) % rank
    if node.op_type == "Conv":
        wanted = 0
    elif node.op_type == "ConvTranspose":
        wanted = 1
    elif node.op_type == "MatMul":
        wanted = rank - 1 if side == 1 else rank - 2
    else:
        wanted = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    if axis != wanted:
        name = label(node)
        yield Violation(
            "weight-axis", name, f"{name}: weight scales run along axis {axis}, must be {wanted}"
        )


def _why_float(graph: QdqGraph, tensor: str, backend: Backend) -> str | None:
    """Why the operand does not reach the operator as integers; ``None`` when it does."""
    scales: list[bytes] = []
    waiting, seen = [tensor], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.producer.get(name)
        if node is None or graph.is_constant(name):
            return f"'{name}' is not quantized"
        if node.op_type == DEQUANTIZE:
            scale = graph.constant(node.input[1])
            scales.append(b"" if scale is None else scale.tobytes())
        elif node.op_type == "Concat":
            waiting.extend(node.input)
        elif node.op_type in TRANSPARENT:
            waiting.append(node.input[0])
        else:
            return f"'{name}' comes from {label(node)} ({node.op_type}), not from a DQ"
    if backend == "tensorrt" and len(set(scales)) > 1:
        return f"'{tensor}' is a Concat of different scales"
    return None


def _weights(graph: QdqGraph, tensor: str) -> bool:
    """Whether the operand is a constant, quantized or not, reshaped or not."""
    seen = set()
    while not graph.is_constant(tensor):
        node = graph.producer.get(tensor)
        if node is None or tensor in seen or node.op_type not in _FROM_CONSTANT:
            return False
        seen.add(tensor)
        tensor = node.input[0]
    return True


def _depthwise(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv":
        return False
    groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
    weights = graph.quantizer_of(node.input[1])
    source = node.input[1] if weights is None else weights.source
    return groups > 1 and graph.is_constant(source) and graph.constant_shape(source)[1] == 1
