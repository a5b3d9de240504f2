"""Multiply-adds of an ONNX graph of fixed shapes, node by node."""

from __future__ import annotations

import math

import onnx


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of every Conv and MatMul by node name; other nodes cost none worth counting.

    A Conv costs (its output's size) x (input channels / groups x kernel area), a MatMul
    (its output's size) x (its inner dimension). Needs inferred shapes, as ``GraphWriter`` leaves.
    """
    shapes = _shapes(model)
    costs: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight = shapes[node.input[1]]
            costs[node.name] = math.prod(shapes[node.output[0]]) * math.prod(weight[1:])
        elif node.op_type == "MatMul":
            inner = shapes[node.input[0]][-1]
            costs[node.name] = math.prod(shapes[node.output[0]]) * inner
    return costs


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes
