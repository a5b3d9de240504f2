"""From the spelling nncf writes, and OpenVINO may have, to the one TensorRT must have.

nncf writes activations that are never negative as uint8 with zero point 0. TensorRT's parser
takes them for int8, whose range ends at 127, and would saturate the upper half of each. Here the
same ranges are spelled in int8:

* uint8 with scale s covers 0 .. 255 s. int8 with scale s * 255 / 127 covers it up to 127 * s *
  255 / 127 = 255 s: the same range in half as many steps.
* Per-channel activation scales become one, the largest: it covers every channel's range.
* A per-tensor activation scale is stored with rank 0. With shape (1,) TensorRT's builder runs the
  convolution after it in float.

The image is the exception, for its 256 values would lose a bit where every later layer starts
from. It is integers already, so it is moved instead of rescaled: x - 128 is -128 .. 127, which
int8 with scale 1 holds exactly. A convolution without padding is linear in its input,

    conv(x) + b = conv(x - 128) + [ b + 128 * sum over (in-channel, kh, kw) of W ]

so the shift folds into its bias, without error but the bias's own rounding. W is the *dequantized*
weight, the one the integer kernel multiplies with. With padding this would be wrong at the edges,
where the padding is 0 and not 128; such an image is rescaled like any activation.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.qdq_graph import (
    DEQUANTIZE,
    QUANTIZE,
    QdqGraph,
    QuantizedGraphError,
    Quantizer,
    drop_axis,
    drop_unused,
    label,
)

UINT8_STEPS, INT8_STEPS = 255, 127
IMAGE_SHIFT = 128
_KEEPS_INTEGERS = frozenset({"Cast", "Transpose", "Reshape", "Identity"})


def to_int8_spelling(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a Q/DQ graph in which every quantizer is int8, symmetric, zero point 0.

    Weights and their scales are left as they are. The result passes ``qdq_lint`` for TensorRT
    where the argument passes it for OpenVINO, and differs from it only by the resolution of what
    was uint8 or had scales per channel (and, for the image, is at least as exact).

    Args:
        model: Q/DQ graph, opset 13 to 19, weights loaded. A uint8 image input may reach its
            quantizer through Cast, Transpose, Reshape.

    Raises:
        QuantizedGraphError: a zero point other than 0, a type other than int8 and uint8, uint8
            weights, or a quantizer that is not a whole pair; names the node.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    shift_images(result)
    graph = QdqGraph(result)
    pairs = [_checked(graph, node) for node in graph.nodes if node.op_type == DEQUANTIZE]
    # By the integers they read: one quantizer may have several dequantizers.
    activations = {p.q.output[0]: p for p in pairs if p.q is not None and not p.constant}
    added: list[onnx.TensorProto] = []
    for integers, pair in activations.items():
        added += _respell(pair, graph.consumers[integers])
    result.graph.initializer.extend(added)
    _settle(result)
    return result


def shift_images(model: onnx.ModelProto) -> list[str]:
    """Make the quantizers of uint8 images exact in int8, in place; names of those it changed.

    See the module docstring. An image is a uint8 graph input; what reads its quantizer must be
    convolutions without padding, or it is left alone.
    """
    graph = QdqGraph(model)
    images = {
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type == TensorProto.UINT8
    }
    changed = []
    for q in [node for node in graph.nodes if node.op_type == QUANTIZE]:
        if not _comes_from(graph, q.input[0], images):
            continue
        dequantizers = graph.consumers.get(q.output[0], [])
        convs = [c for dq in dequantizers for c in graph.consumers.get(dq.output[0], [])]
        biases = [_shifted_bias(graph, conv) for conv in convs]
        if not convs or any(bias is None for bias in biases):
            continue
        for conv, bias in zip(convs, biases, strict=True):
            if bias is not None:
                model.graph.initializer.append(bias)
                del conv.input[2:]
                conv.input.append(bias.name)
        _shift(model, q, dequantizers)
        changed.append(label(q))
    _settle(model)
    return changed


def _comes_from(graph: QdqGraph, name: str, images: set[str]) -> bool:
    seen = set()
    while name not in images:
        node = graph.producer.get(name)
        if node is None or name in seen or node.op_type not in _KEEPS_INTEGERS:
            return False
        seen.add(name)
        name = node.input[0]
    return True


def _shifted_bias(graph: QdqGraph, conv: onnx.NodeProto) -> onnx.TensorProto | None:
    """b + 128 * sum W of an unpadded convolution; ``None`` when it is not one with constants."""
    if conv.op_type != "Conv" or _padded(conv):
        return None
    weights = _float_weights(graph, conv.input[1])
    old = conv.input[2] if len(conv.input) > 2 else ""
    bias = graph.constant(old) if old else None
    if weights is None or (old and bias is None):
        return None
    shift = IMAGE_SHIFT * weights.astype(np.float64).sum(axis=tuple(range(1, weights.ndim)))
    total = shift if bias is None else bias.astype(np.float64) + shift
    kind = np.float32 if bias is None else bias.dtype
    return numpy_helper.from_array(total.astype(kind), f"{conv.output[0]}_shifted_bias")


def _padded(conv: onnx.NodeProto) -> bool:
    for attribute in conv.attribute:
        if attribute.name == "pads" and any(attribute.ints):
            return True
        if attribute.name == "auto_pad" and attribute.s not in (b"NOTSET", b"VALID"):
            return True
    return False


def _float_weights(graph: QdqGraph, name: str) -> npt.NDArray[np.generic] | None:
    """A constant weight as the convolution sees it: dequantized, if it is quantized."""
    pair = graph.quantizer_of(name)
    return graph.constant(name) if pair is None else graph.dequantized(pair)


def _shift(model: onnx.ModelProto, q: onnx.NodeProto, dequantizers: list[onnx.NodeProto]) -> None:
    source = q.input[0]
    prefix = f"{source}_shifted"
    scale_type = next(
        (t.data_type for t in model.graph.initializer if t.name == q.input[1]), TensorProto.FLOAT
    )
    kind = helper.tensor_dtype_to_np_dtype(scale_type)
    parameters = {
        f"{prefix}_by": np.array(IMAGE_SHIFT, kind),
        f"{prefix}_scale": np.array(1, kind),
        f"{prefix}_zero": np.array(0, np.int8),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in parameters.items())
    by, scale, zero = parameters
    _point(q, prefix, scale, zero)
    for dq in dequantizers:
        _point(dq, q.output[0], scale, zero)
    index = list(model.graph.node).index(q)
    sub = helper.make_node("Sub", [source, by], [prefix], name=f"{label(q)}_shift")
    model.graph.node.insert(index, sub)


def _checked(graph: QdqGraph, dq: onnx.NodeProto) -> Quantizer:
    pair = graph.quantizer(dq)
    if pair is None or (pair.q is not None and not graph.same_parameters(pair.q, dq)):
        raise QuantizedGraphError(f"{label(dq)}: is not one half of a Q/DQ pair")
    if pair.scale is None:
        raise QuantizedGraphError(f"{label(dq)}: its scale is not a float constant")
    if pair.zero_point is not None and np.any(pair.zero_point != 0):
        raise QuantizedGraphError(f"{label(dq)}: has a zero point other than 0")
    if pair.element not in (TensorProto.INT8, TensorProto.UINT8):
        kind = TensorProto.DataType.Name(pair.element)
        raise QuantizedGraphError(f"{label(dq)}: {kind} is neither INT8 nor UINT8")
    if pair.constant and pair.element == TensorProto.UINT8:
        raise QuantizedGraphError(f"{label(dq)}: weights in UINT8 cannot be respelled")
    return pair


def _respell(pair: Quantizer, dequantizers: Iterable[onnx.NodeProto]) -> list[onnx.TensorProto]:
    """Point a pair at one int8 scale of rank 0; the initializers to add, none if it had one."""
    if pair.q is None or pair.scale is None:
        return []
    unsigned = pair.element == TensorProto.UINT8
    if not unsigned and pair.scale.ndim == 0 and pair.zero_point is not None:
        return []
    widest = float(pair.scale.max())
    if unsigned:
        widest = widest * UINT8_STEPS / INT8_STEPS
    scale = numpy_helper.from_array(
        np.array(widest, pair.scale.dtype), f"{pair.q.output[0]}_int8_scale"
    )
    zero = numpy_helper.from_array(np.array(0, np.int8), f"{pair.q.output[0]}_int8_zero")
    _point(pair.q, pair.q.input[0], scale.name, zero.name)
    for dq in dequantizers:
        _point(dq, pair.q.output[0], scale.name, zero.name)
    return [scale, zero]


def _point(node: onnx.NodeProto, source: str, scale: str, zero: str) -> None:
    """Give a Q or DQ node per-tensor parameters; its ``axis`` has nothing left to say."""
    del node.input[:]
    node.input.extend([source, scale, zero])
    drop_axis(node)


def _settle(model: onnx.ModelProto) -> None:
    """Remove what the graph had of its former spelling, in place."""
    drop_unused(model.graph)
    # A tensor whose type changed must not keep the old one.
    retyped = {n.output[0] for n in model.graph.node if n.op_type == QUANTIZE}
    values = [value for value in model.graph.value_info if value.name not in retyped]
    del model.graph.value_info[:]
    model.graph.value_info.extend(values)
