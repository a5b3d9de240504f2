"""The Q/DQ graph in torch: what onnxruntime computes, and gradients that go where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from calibration.quantize import QuantizeSettings, calibrate
from calibration.streets import StreetScene
from models.locality import inject_locality
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import CheckFailedError
from pipeline.lowering.network import lower
from pipeline.training.distill import DistillConfig, distill
from pipeline.training.qdq_module import QdqModule, write_back
from tests.models.helpers import tiny_segmenter

SIZE = (64, 128)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    street = StreetScene(seed=3, height=SIZE[0], width=SIZE[1])
    return [np.ascontiguousarray(street.render(40 * i).bgr[None]) for i in range(8)]


@pytest.fixture(scope="module")
def graphs(frames: list[np.ndarray]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = inject_locality(tiny_segmenter(), "full").model
    floating = lower(model, batch=1, height=SIZE[0], width=SIZE[1], opset=17, metadata={})
    quantized, rounding = calibrate(floating, frames, QuantizeSettings(estimator="minmax"))
    assert any(layer.kept == "compensated" for layer in rounding)
    return quantized, floating


def run(model: onnx.ModelProto, frame: np.ndarray, folder: Path) -> np.ndarray:
    onnx.save(model, folder / "model.onnx")
    with OnnxRuntimeEngine(folder / "model.onnx") as engine:
        return engine.infer(frame)


def test_it_computes_what_the_graph_computes(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto], frames: list[np.ndarray], tmp_path: Path
) -> None:
    quantized, floating = graphs
    with torch.no_grad():
        teacher = QdqModule(floating, floating)(torch.from_numpy(frames[0])).numpy()
        student = QdqModule(quantized, floating)(torch.from_numpy(frames[0])).numpy()
    exact = run(floating, frames[0], tmp_path)
    np.testing.assert_allclose(teacher, exact, atol=1e-5 * np.abs(exact).max())
    rounded = run(quantized, frames[0], tmp_path)
    # Where the order of a sum tips a value to the next step, one step is all it may cost.
    assert np.linalg.norm(student - rounded) < 1e-3 * np.linalg.norm(rounded)
    assert np.linalg.norm(exact - rounded) > 1e-2 * np.linalg.norm(rounded)


def test_untrained_it_writes_the_graph_it_was_given(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    quantized, floating = graphs
    again = write_back(QdqModule(quantized, floating), quantized)
    assert len(again.graph.initializer) == len(quantized.graph.initializer)
    for ours, theirs in zip(again.graph.initializer, quantized.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))


def test_trained_the_graph_it_writes_is_the_student(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto], frames: list[np.ndarray], tmp_path: Path
) -> None:
    quantized, floating = with_ranges(graphs[0], 4), graphs[1]
    student, teacher = QdqModule(quantized, floating), QdqModule(floating, floating)
    frame = frames[0]
    found = distill(student, teacher, [frame] * 8, DistillConfig(steps=80, rate=1e-4))
    assert found.kept
    assert (found.frames, found.held_out) == (7, 1)
    assert found.after < 0.75 * found.before
    with torch.no_grad():
        wanted = student(torch.from_numpy(frame)).numpy()
    exact, first, got = (
        run(model, frame, tmp_path)
        for model in (floating, quantized, write_back(student, quantized))
    )
    # Grids this coarse: one value that tips to the next step is seen in the logits.
    assert np.linalg.norm(got - wanted) < 1e-2 * np.linalg.norm(wanted)
    assert divergence(exact, first) == pytest.approx(found.before, rel=0.05)
    assert divergence(exact, got) == pytest.approx(found.after, rel=0.05)


def with_ranges(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Activations on a grid that much coarser: a calibration that INT8 pays for."""
    coarse = onnx.ModelProto()
    coarse.CopyFrom(model)
    scales = {n.input[1] for n in coarse.graph.node if n.op_type == "QuantizeLinear"}
    for tensor in coarse.graph.initializer:
        if tensor.name in scales:
            value = numpy_helper.to_array(tensor)
            if value != 1:  # the image's own
                tensor.CopyFrom(numpy_helper.from_array(value * np.float32(factor), tensor.name))
    return coarse


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    t, s = (x.astype(np.float64) - x.max(1, keepdims=True) for x in (teacher, student))
    t, s = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (t, s))
    return float((np.exp(t) * (t - s)).sum(1).mean())


def test_a_student_that_learns_nothing_stays_as_it_was(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto], frames: list[np.ndarray]
) -> None:
    quantized, floating = graphs
    student, teacher = QdqModule(quantized, floating), QdqModule(floating, floating)
    found = distill(student, teacher, frames[:2], DistillConfig(steps=2, rate=3.0))
    assert not found.kept
    assert found.after >= found.before
    for ours, theirs in zip(
        write_back(student, quantized).graph.initializer, quantized.graph.initializer, strict=True
    ):
        np.testing.assert_array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))


def test_rounding_passes_the_gradient_and_clipping_stops_it() -> None:
    scale, zero = (numpy_helper.from_array(np.array(v), n) for v, n in (
        (np.float32(0.5), "scale"), (np.uint8(3), "zero")))  # fmt: skip
    nodes = [
        helper.make_node("Identity", ["x"], ["y"], name="y"),
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
    ]
    info = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [5]) for n in ("x", "d")]
    graph = helper.make_graph(nodes, "pair", info[:1], info[1:], [scale, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = torch.tensor([-9.0, -1.5, 0.3, 126.0, 127.0], requires_grad=True)
    y = QdqModule(model, model)(x)
    assert y.tolist() == [-1.5, -1.5, 0.5, 126.0, 126.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_an_operator_that_is_not_ours_is_named(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    strange = onnx.ModelProto()
    strange.CopyFrom(graphs[1])
    strange.graph.node[-1].op_type = "Softplus"
    with pytest.raises(CheckFailedError, match=r"\(Softplus\) cannot be trained"):
        QdqModule(strange, strange)
