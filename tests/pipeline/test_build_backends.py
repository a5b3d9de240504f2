"""TensorRT and both back ends at once, from one calibration; by TensorRT for RTX, without a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.cityscapes import Cityscapes
from calibration.frames import select_frames
from pipeline.artifact import open_artifact
from pipeline.build import (
    BuildOptions,
    BuildResult,
    GateLimits,
    TensorRTOptions,
    build,
)
from pipeline.build_command import rebuild_command
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.opening import manifest_of
from pipeline.engines.trt_builder import BuilderOptions
from pipeline.errors import UsageError
from pipeline.inference import FrameSegmenter
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from tests.helpers import why_no_gpu

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)

RTX = TensorRTOptions(flavour="tensorrt-rtx")


@pytest.fixture(scope="module")
def both(int8_build: BuildResult, int8_options: BuildOptions) -> BuildResult:
    """Both engines, in the folder where OpenVINO's lies already."""
    assert int8_build.engine.is_file()
    limits = GateLimits(max_drop=99, max_class_drop=100)
    return build(replace(int8_options, backend="all", tensorrt=RTX, gate=limits))


def test_both_engines_lie_side_by_side_from_one_calibration(
    both: BuildResult, int8_build: BuildResult
) -> None:
    assert {"inject", "export", "quantize", "build-openvino"} <= set(both.cached)
    first, second = both.engines
    assert (first.backend, second.backend) == ("openvino", "tensorrt")
    assert first.path == int8_build.engine
    assert second.path == int8_build.engine.with_suffix(".engine")
    for each in both.engines:
        assert each.path is not None
        artifact = open_artifact(manifest_of(each.path))
        assert artifact.path == each.path
        assert artifact.facts["backend"] == each.backend
        again = rebuild_command(both.options, each.backend)
        assert artifact.facts.get("rebuild") == again
        assert both.quantized is not None
        quantized = both.quantized.manifest.provenance["quantize"]
        assert artifact.manifest.provenance["quantize"] == quantized


def test_the_json_is_of_both_with_openvino_on_top(both: BuildResult) -> None:
    found = json.loads(json.dumps(both.as_json()))
    assert found["backend"] == "all"
    top = {key: value for key, value in found["engines"][0].items() if key != "backend"}
    assert top.items() <= found.items()
    first, second = found["engines"]
    assert first["executed"] is True
    assert second["flavour"] == "tensorrt-rtx"
    assert second["float_fallback"] == []
    assert second["layers"]
    assert set(second["nodes"].values()) >= {"int8"}
    if not second["executed"]:
        # Where there is a GPU, of its runtime's reasons: another capability, no CUDA package.
        assert why_no_gpu() is None or second["not_executed"] == why_no_gpu()
        assert second["not_executed"]
        assert second["checks"]["engine_agreement"] is None
        assert second["gate"]["scored"] == "exact graph"
    assert first["gate"]["scored"] == "engine"
    assert first["gate"]["reference"] == second["gate"]["reference"]


def test_where_labels_part_is_what_counting_says(both: BuildResult, streets: Path) -> None:
    """Against labels made here from the graphs themselves, pixel by pixel."""
    assert both.quantized is not None
    assert both.comparison is not None
    folder = both.quantized.path.parent
    graphs = {
        "fp32": both.graph.path,
        "openvino graph": folder / OPENVINO_GRAPH,
        "tensorrt graph": folder / TENSORRT_GRAPH,
    }
    chosen = select_frames(
        Cityscapes(streets), 8, "val", allow_val=True
    )  # which calibrated nothing
    frames = list(chosen.images(64, 128))
    frames = frames[: both.comparison["frames"]]
    labels = {}
    for name, path in graphs.items():
        with OnnxRuntimeEngine(path) as engine:
            segmenter = FrameSegmenter(engine)
            labels[name] = np.stack([segmenter.segment(frame) for frame in frames])
    for one, other in combinations(graphs, 2):
        found = both.comparison["labels"]
        pair = f"{one} / {other}" if f"{one} / {other}" in found else f"{other} / {one}"
        a, b = labels[one], labels[other]
        assert found[pair] == pytest.approx(np.mean(a == b), abs=1e-6)
        classes = both.comparison["classes"][pair]
        road_a, road_b = a == 0, b == 0
        if "road" in classes:
            parted = (road_a ^ road_b).sum() / (road_a | road_b).sum()
            assert classes["road"] == pytest.approx(parted, abs=1e-6)
        else:
            assert not (road_a | road_b).any()
        assert len(classes) == len(np.union1d(a, b))
    assert "openvino engine / tensorrt graph" in both.comparison["labels"]


def test_a_second_run_finds_everything(both: BuildResult) -> None:
    again = build(both.options)
    assert {
        "inject", "export", "quantize", "build-openvino", "build-tensorrt", "compare",
        "build-openvino (fp32)",
    } == set(again.cached)  # fmt: skip
    assert again.comparison == both.comparison
    assert again.as_json()["engines"] == both.as_json()["engines"]


def test_labels_and_half_precision_reach_the_engine(int8_options: BuildOptions) -> None:
    built = build(
        replace(
            int8_options, backend="tensorrt", precision="int8+fp16",
            tensorrt=replace(
                RTX, labels=True, builder=BuilderOptions(compute_capabilities=("8.9",))
            ),
        )
    )  # fmt: skip
    (engine,) = built.engines
    assert engine.path is not None
    assert engine.path.name == "tiny-int8+fp16-64x128.engine"
    facts = open_artifact(manifest_of(engine.path)).facts
    assert (facts["precision"], facts["output"]) == ("int8+fp16", "labels")
    assert facts["built_with"]["capabilities"] == ["8.9"]
    graph = onnx.load(engine.path.with_suffix(".onnx")).graph
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert any(t.data_type == onnx.TensorProto.FLOAT16 for t in graph.initializer)
    assert engine.checks["int8_agreement"] is not None


def test_the_gate_holds_each_engine_on_its_own(both: BuildResult) -> None:
    """A limit between the two drops of some class lets one through and withdraws the other."""
    worst = [e.gate.verdict.worst.drop for e in both.engines if e.gate is not None]
    low, high = sorted(worst)
    assert low < high, "both lose the same: nothing is tested"
    limits = GateLimits(max_drop=99, max_class_drop=max(0.0, (low + high) / 2))
    held = build(replace(both.options, gate=limits))
    assert not held.passed
    for engine, drop in zip(held.engines, worst, strict=True):
        assert (engine.path is None) == (drop == high)
    for engine, before in zip(held.engines, both.engines, strict=True):
        assert before.path is not None
        assert before.path.exists() == (engine.path is not None)
        assert manifest_of(before.path).exists() == (engine.path is not None)
    assert build(both.options).passed  # puts them back


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backend": "onnx"}, "--backend onnx"),
        ({"precision": "bf16"}, "--precision bf16"),
        ({"injection": "half"}, "--injection half"),
        ({"min_agreement": float("nan")}, "--min-agreement"),
        ({"tensorrt": TensorRTOptions(builder=BuilderOptions(workspace_mib=1))}, "--workspace"),
        ({"gate": GateLimits(max_drop=-1.0)}, "--max-drop"),
    ],
)
def test_options_that_cannot_be_are_refused_when_they_are_made(
    change: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        replace(BuildOptions(), **change)  # type: ignore[arg-type]  # by name
