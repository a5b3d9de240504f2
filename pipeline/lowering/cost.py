"""Multiply-adds of an ONNX graph of fixed shapes, node by node."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of every Conv and MatMul by node name; other nodes cost none worth counting.

    A Conv costs (its output's size) x (input channels / groups x kernel area), a MatMul
    (its output's size) x (its inner dimension); of a constant only what is not zero counts, so a
    spelling that pads kernels with zeros makes the network no larger. Needs inferred shapes, as
    ``GraphWriter`` leaves.

    Args:
        model: float; the zeros of rounded weights would not count.
    """
    shapes = _shapes(model)
    constants = {t.name: t for t in model.graph.initializer}
    costs: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            inner = math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul":
            inner = shapes[node.input[0]][-1]
        else:
            continue
        filled = 1.0
        for name in node.input[:2]:
            if name in constants:
                values = numpy_helper.to_array(constants[name])
                # All zeros is no padding but an untrained residual, to be filled yet.
                filled *= (np.count_nonzero(values) or values.size) / values.size
        costs[node.name] = round(math.prod(shapes[node.output[0]]) * inner * filled)
    return costs


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes
