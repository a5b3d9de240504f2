"""ONNX files whose labels are painted into the frames, for the report to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 48, 64


def write_engine(path: Path, channel: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """frames (1, H, W, 3) uint8 -> labels (1, H, W) uint8: one channel of the frame."""
    size = [1, *shape]
    node = helper.make_node("Gather", ["frames", "channel"], ["labels"], axis=3)
    return _write(
        path,
        [node],
        helper.make_tensor_value_info("frames", TensorProto.UINT8, [*size, 3]),
        helper.make_tensor_value_info("labels", TensorProto.UINT8, size),
        {"channel": np.array(channel)},
    )


def another_file(path: Path) -> Path:
    """The same graph, by other bytes: not the same engine."""
    model = onnx.load(path)
    model.doc_string = "another"
    onnx.save(model, path)
    return path


def write_classifier(path: Path, classes: int) -> Path:
    """frames -> constant logits (1, classes, H/4, W/4), which is enough to be refused."""
    size = [1, classes, HEIGHT // 4, WIDTH // 4]
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Expand", ["mean", "size"], ["logits"]),
    ]
    return _write(
        path,
        nodes,
        helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, size),
        {"size": np.array(size)},
    )


def _write(
    path: Path, nodes: list[Any], given: Any, gives: Any, constants: dict[str, np.ndarray]
) -> Path:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "painted", [given], [gives], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
