"""Labels made by the graph against labels made by NumPy from the same logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.lowering.half import to_half
from pipeline.lowering.labels import append_labels
from pipeline.lowering.resampling import bilinear_matrix
from tests.qdq_graphs import FLOAT, Builder, run_exact

Array = npt.NDArray[Any]


def _logits_graph(batch: int, classes: int, height: int, width: int) -> onnx.ModelProto:
    b = Builder()
    b.op("Identity", ["x"], "logits")
    size = [batch, classes, height, width]
    return b.model({"x": (FLOAT, size)}, {"logits": size})


def _upsampled(logits: Array) -> Array:
    """Half-pixel bilinear x4 in float64, as two matrices."""
    height, width = logits.shape[2:]
    rows, cols = bilinear_matrix(height, 4 * height), bilinear_matrix(width, 4 * width)
    return np.asarray(rows @ logits.astype(np.float64) @ cols.T)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 2), classes=st.integers(2, 19), height=st.integers(1, 9),
    width=st.integers(1, 9), seed=st.integers(0, 999),
)  # fmt: skip
def test_labels_are_the_argmax_of_the_upsampled_logits(
    batch: int, classes: int, height: int, width: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).standard_normal((batch, classes, height, width))
    logits = logits.astype(np.float32)
    model = append_labels(_logits_graph(batch, classes, height, width))
    labels = run_exact(model, {"x": logits})[0]
    assert labels.dtype == np.uint8
    assert labels.shape == (batch, 4 * height, 4 * width)
    up = _upsampled(logits)
    # Where two classes are equal to float32 rounding, either is right.
    chosen = np.take_along_axis(up, labels[:, None].astype(np.int64), axis=1)[:, 0]
    assert (up.max(axis=1) - chosen).max() <= 1e-5


def test_the_first_of_equal_classes_wins_as_in_numpy() -> None:
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[:, 1:] = 1
    labels = run_exact(append_labels(_logits_graph(1, 3, 2, 2)), {"x": logits})[0]
    assert (labels == 1).all()


def test_labels_of_a_half_precision_graph_are_upsampled_in_float() -> None:
    model = append_labels(to_half(_logits_graph(1, 5, 4, 4)))
    up = next(node for node in model.graph.node if node.name == "labels.up")
    types = {v.name: v.type.tensor_type.elem_type for v in _inferred(model)}
    assert types[up.output[0]] == FLOAT


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return list(onnx.shape_inference.infer_shapes(model).graph.value_info)


@pytest.mark.parametrize("size", [[1, 5, 4], [1, 256, 2, 2], [1, 5, None, 4]])
def test_what_is_not_logits_is_refused(size: list[int]) -> None:
    b = Builder()
    b.op("Identity", ["x"], "y")
    model = b.model({"x": (FLOAT, size)}, {"y": size})
    with pytest.raises(ValueError, match=r"output 'y' is .*, not logits"):
        append_labels(model)


def test_integers_are_refused() -> None:
    model = _logits_graph(1, 5, 2, 2)
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("logits", TensorProto.INT32, [1, 5, 2, 2])
    )
    with pytest.raises(ValueError, match="is not float"):
        append_labels(model)
