"""Our Q/DQ graph in a spelling that ONNX Runtime's int8 kernels run.

Its fused MatMul takes batched weights with one scale for each column only where they are spelled
its own way, and otherwise fails when it runs. To compare with the best it can do rather than with
nothing, those weights are given to it in float32, already dequantized; all else stays int8.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_BATCHED: Final = 3  # dimensions


def float_batched_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """(a copy in which batched constant weights of MatMuls are float32, how many there were).

    The values are those that the graph's own DequantizeLinear gives: ``(w - zero point) * scale``
    in float32, so that the graph means the same.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    taken = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    kept, count = [], 0
    for node in graph.node:
        weights = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weights is None or len(weights.dims) < _BATCHED or node.output[0] not in taken:
            kept.append(node)
            continue
        values = _dequantized(node, {n: constants[n] for n in node.input if n})
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        count += 1
    del graph.node[:]
    graph.node.extend(kept)
    return copy, count


def _dequantized(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> npt.NDArray[np.float32]:
    found = [numpy_helper.to_array(constants[name]) for name in node.input if name]
    weights, scale = found[0], found[1]
    zero: npt.NDArray[Any] = found[2] if len(found) > 2 else np.zeros_like(scale, weights.dtype)
    axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 1)
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * weights.ndim
        shape[axis] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    difference = weights.astype(np.int32) - zero.astype(np.int32)
    return np.asarray(difference.astype(np.float32) * scale, np.float32)
