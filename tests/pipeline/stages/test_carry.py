"""Ranges found at one size serve another: the same graph but for what depends on the size."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.carry import carry
from calibration.qdq_graph import QuantizedGraphError
from calibration.quantize import QuantizeSettings, quantize
from calibration.streets import StreetScene
from models.errors import InputShapeError
from models.locality import inject_locality
from models.segmenter import Segmenter
from pipeline.artifact import open_artifact
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import UsageError
from pipeline.lowering.network import lower
from pipeline.report.subjects import Graphs, graphs_of, open_subject
from tests.models.helpers import tiny_segmenter

SMALL, LARGE = (64, 128), (128, 192)


@pytest.fixture(scope="module")
def network() -> Segmenter:
    return inject_locality(tiny_segmenter(), "split").model


@pytest.fixture(scope="module")
def small(network: Segmenter) -> onnx.ModelProto:
    return floating(network, SMALL)


@pytest.fixture(scope="module")
def quantized(small: onnx.ModelProto) -> onnx.ModelProto:
    return calibrated(small, SMALL)


def floating(network: Segmenter, size: tuple[int, int]) -> onnx.ModelProto:
    return lower(network, batch=1, height=size[0], width=size[1], opset=17, metadata={})


def calibrated(graph: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    street = StreetScene(seed=3, height=size[0], width=size[1])
    frames = [street.render(40 * i).bgr[None] for i in range(4)]
    return quantize(graph, frames, 4, QuantizeSettings(estimator="minmax"))


def run(model: onnx.ModelProto, x: np.ndarray, folder: Path) -> np.ndarray:
    onnx.save(model, folder / "model.onnx")
    with OnnxRuntimeEngine(folder / "model.onnx") as engine:
        return engine.infer(x)


def test_it_is_the_graph_that_a_calibration_at_that_size_would_give(
    network: Segmenter, small: onnx.ModelProto, quantized: onnx.ModelProto, tmp_path: Path
) -> None:
    large = floating(network, LARGE)
    found = carry(quantized, small, large)
    wanted = calibrated(large, LARGE)
    onnx.checker.check_model(found, full_check=True)
    key = [(n.name, n.op_type, list(n.input)) for n in found.graph.node]
    assert sorted(key) == sorted((n.name, n.op_type, list(n.input)) for n in wanted.graph.node)
    ours, theirs = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (found, wanted)
    )
    assert set(ours) == set(theirs)
    ranges = {
        n.input[i] for n in wanted.graph.node if n.op_type == "QuantizeLinear" for i in (1, 2)
    }
    for name in set(ours) - ranges:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    # Whatever its ranges: it is INT8 of this network, and about as good as one made in place.
    x = StreetScene(seed=5, height=LARGE[0], width=LARGE[1]).render(0).bgr[None]
    exact = run(large, x, tmp_path)
    errors = [
        np.linalg.norm(run(m, x, tmp_path) - exact) / np.linalg.norm(exact) for m in (found, wanted)
    ]
    assert errors[0] < 2 * errors[1]


def test_carried_to_its_own_size_it_is_itself(
    small: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    again = carry(quantized, small, small)
    assert list(again.graph.node) == list(quantized.graph.node)
    ours, theirs = (
        {t.name: t.SerializeToString() for t in m.graph.initializer} for m in (again, quantized)
    )
    assert ours == {name: data for name, data in theirs.items() if name in ours}


def test_graphs_of_two_networks_are_told_apart(
    small: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    full = inject_locality(tiny_segmenter(), "full").model
    with pytest.raises(QuantizedGraphError, match="only one of them has node"):
        carry(quantized, small, floating(full, LARGE))
    other = inject_locality(tiny_segmenter(seed=1), "split").model
    with pytest.raises(QuantizedGraphError, match="int8 constant"):
        carry(quantized, small, floating(other, LARGE))


def test_a_build_calibrates_small_and_serves_large(
    int8_build: BuildResult, int8_options: BuildOptions, tmp_path: Path
) -> None:
    """It finds the ranges that another build found at the small size."""
    shutil.copytree(int8_build.options.output / ".store", tmp_path / ".store")
    options = replace(int8_options, shape=LARGE, calibration_shape=SMALL, output=tmp_path)
    made = build(options)
    assert "quantize" in made.cached
    assert "carry" not in made.cached
    engine = open_artifact(made.manifest)
    assert engine.manifest.inputs[0].shape == (1, *LARGE, 3)
    assert engine.manifest.provenance["carry"]["calibration_shape"] == list(SMALL)
    assert made.quantized is not None
    assert (
        made.quantized.facts["calibration"] == engine.manifest.provenance["quantize"]["calibration"]
    )
    assert made.checks["engine_agreement"] >= 0.5
    subject = open_subject("int8", made.engine)
    with subject.engine:
        assert graphs_of(subject, subject) == Graphs(made.quantized.path, made.graph.path)
    again = build(options)
    assert {"quantize", "carry"} <= set(again.cached)


def test_a_size_that_does_not_fit_is_refused(int8_options: BuildOptions, tmp_path: Path) -> None:
    with pytest.raises(InputShapeError, match="64x100"):
        build(replace(int8_options, calibration_shape=(64, 100), output=tmp_path))
    with pytest.raises(UsageError, match="--calibration-shape"):
        replace(int8_options, calibration_shape=(64, 128), precision="fp32")
