"""The TensorRT stage on a small network from checkpoint to engine, built by TensorRT for RTX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.frames import FrameList
from pipeline.artifact import Artifact, open_artifact, sha256_of
from pipeline.build import BuildResult
from pipeline.engines.cuda_driver import has_gpu
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.rebuild import recorded_command
from pipeline.engines.tensorrt import built_with, open_tensorrt
from pipeline.errors import ArtifactError, CheckFailedError, EngineError, UsageError
from pipeline.lineage import TENSORRT_GRAPH
from pipeline.stage import StageEvent
from pipeline.stages.build_tensorrt import (
    ENGINE,
    GRAPH,
)
from pipeline.store import Store
from tests.pipeline.stages.tensorrt_stage import run_stage, stage_of

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)


def test_int8_is_int8_and_everything_is_written_down(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    built = run_stage(store, frames, int8_build, strict_int8=True)
    facts = open_artifact(built.manifest_path).facts
    assert built.path.name == ENGINE
    assert facts["backend"] == "tensorrt"
    assert facts["flavour"] == "tensorrt-rtx"
    assert facts["patch"] == int8_build.graph.facts["patch"]
    assert facts["float_fallback"] == []
    # Left in float: the gates' layers, the pooling branches and the classifier, nothing else.
    by_design = set(facts["float_by_design"])
    small = {n for n in by_design if ".gp.fc" in n or ".ppm.branches." in n}
    assert by_design == small | {"head.classifier"}
    assert {n for n, p in facts["nodes"].items() if p == "int8"} == set(facts["nodes"]) - by_design
    assert facts["executed"]["gemm int8"] > 0
    assert facts["executed"]["correlation int8"] > 0
    assert built_with(built.manifest, ENGINE).platform.startswith("linux-")
    assert built.manifest.outputs == int8_build.graph.manifest.outputs
    assert set(built.manifest.provenance) >= {"checkpoint", "export", "quantize", "build-tensorrt"}
    assert facts["warnings"] == []
    rows = facts["layers"]
    assert {row["precision"] for row in rows} >= {"int8", "fp32"}
    json.dumps(facts)


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU, so engines are executed")
def test_without_a_gpu_it_is_said_that_nothing_was_executed(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    built = run_stage(store, frames, int8_build)
    assert built.facts["agreement"] is None
    assert "no NVIDIA driver on this machine" in built.facts["not_executed"]
    with pytest.raises(EngineError, match="no NVIDIA driver on this machine") as caught:
        open_tensorrt(built.path, built.manifest)
    assert "\n" not in str(caught.value)


def test_a_second_run_is_cached_and_a_second_build_gives_the_same_bytes(
    store: Store, frames: FrameList, int8_build: BuildResult, tmp_path: Path
) -> None:
    events: list[StageEvent] = []
    first = run_stage(store, frames, int8_build)
    again = run_stage(store, frames, int8_build, events.append)
    assert [event.cached for event in events] == [True]
    assert again.sha256 == first.sha256
    elsewhere = run_stage(Store(tmp_path), frames, int8_build)
    assert elsewhere.sha256 == first.sha256
    assert elsewhere.facts["layers"] == first.facts["layers"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8+fp16"])
def test_every_precision_is_what_it_says(
    store: Store, frames: FrameList, int8_build: BuildResult, precision: str
) -> None:
    facts = run_stage(store, frames, int8_build, precision=precision).facts
    matrix = {k for k in facts["executed"] if k.startswith(("correlation", "gemm", "runtime_"))}
    found = {k.rpartition(" ")[2] for k in matrix}
    wanted = {"fp32": {"fp32"}, "fp16": {"fp16"}, "int8+fp16": {"int8", "fp16"}}[precision]
    assert found == wanted
    if "fp16" in precision:
        assert facts["half"]["graph"]["labels"] > 0.9
        assert facts["half"]["fp32"]["frames"] == 2
    else:
        assert facts["half"] is None
    assert facts["float_fallback"] == []


def test_labels_come_from_the_graph(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    built = run_stage(store, frames, int8_build, labels=True)
    (output,) = built.manifest.outputs
    assert (output.dtype, output.shape, output.layout) == ("uint8", (1, 64, 128), "NHW")
    assert built.facts["output"] == "labels"
    assert built.facts["float_fallback"] == []
    assert any("labels.argmax" in row["nodes"] for row in built.facts["layers"])
    frame = next(frames.images(64, 128))[None]
    labels = OnnxRuntimeEngine(built.manifest_path.parent / GRAPH).infer(frame)
    assert labels.shape == output.shape
    assert int8_build.quantized is not None
    graph = int8_build.quantized.manifest_path.parent / TENSORRT_GRAPH
    logits = OnnxRuntimeEngine(graph).infer(frame)
    # At the middle of each block of 4x4 the nearest logits weigh most; most labels are theirs.
    assert np.mean(labels[:, 1::4, 1::4] == logits.argmax(axis=1)) > 0.8


def test_a_graph_of_the_other_kind_is_refused(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    with pytest.raises(CheckFailedError, match="is a float graph: int8 needs the other"):
        stage_of(store, frames, graph=None).run(int8_build.graph, int8_build.graph)
    assert int8_build.quantized is not None
    with pytest.raises(CheckFailedError, match="is a Q/DQ graph: fp32 needs the other"):
        stage_of(store, frames, precision="fp32").run(int8_build.quantized, int8_build.graph)


def test_openvinos_spelling_is_refused_by_rule_and_node(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    with pytest.raises(CheckFailedError, match=r"breaks rule 'type' at node 'Dequant\S+': .*UINT8"):
        run_stage(store, frames, int8_build, graph=None)


def _with_a_half_quantized_layer(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact again, the weights' quantizer of one convolution taken out of its graph."""
    model = onnx.load(artifact.manifest_path.parent / TENSORRT_GRAPH)
    conv = next(node for node in model.graph.node if node.name == "head.fpn.0")
    dq = next(node for node in model.graph.node if conv.input[1] in node.output)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scale = constants[dq.input[1]].reshape(-1, 1, 1, 1)
    weight = (constants[dq.input[0]] * scale).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "plain"))
    conv.input[1] = "plain"
    model.graph.node.remove(dq)
    onnx.save(model, folder / TENSORRT_GRAPH)
    manifest = replace(
        artifact.manifest,
        main=TENSORRT_GRAPH,
        files={TENSORRT_GRAPH: sha256_of(folder / TENSORRT_GRAPH)},
    )
    return Artifact(manifest, folder / "artifact.json")


def test_a_half_quantized_layer_is_named(
    store: Store, frames: FrameList, int8_build: BuildResult, tmp_path: Path
) -> None:
    assert int8_build.quantized is not None
    damaged = _with_a_half_quantized_layer(int8_build.quantized, tmp_path)
    with pytest.raises(CheckFailedError, match=r"rule 'heavy-float' at node 'head\.fpn\.0'"):
        stage_of(store, frames).run(damaged, int8_build.graph)


def test_strict_int8_names_what_fell_back(
    tmp_path: Path, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank-one scale builds and is float; the lint that would catch it first is switched off."""
    from calibration.qdq_graph import QdqGraph

    monkeypatch.setattr("pipeline.stages.build_tensorrt.lint", lambda *_: [])
    assert int8_build.quantized is not None
    folder = int8_build.quantized.manifest_path.parent
    model = onnx.load(folder / TENSORRT_GRAPH)
    graph = QdqGraph(model)
    conv = next(node for node in graph.nodes if node.name == "head.fpn.0")
    pair = graph.quantizer_of(conv.input[0])
    assert pair is not None
    assert pair.q is not None
    assert pair.scale is not None
    model.graph.initializer.append(onnx.numpy_helper.from_array(pair.scale.reshape(1), "rank_one"))
    pair.q.input[1] = pair.dq.input[1] = "rank_one"

    def altered(path: Path) -> onnx.ModelProto:
        assert path.name == TENSORRT_GRAPH
        return model

    monkeypatch.setattr("onnx.load", altered)
    with pytest.raises(CheckFailedError, match=r"1 layers .* 'head.fpn.0' in fp32"):
        run_stage(Store(tmp_path), frames, int8_build, strict_int8=True)
    relaxed = run_stage(Store(tmp_path), frames, int8_build)
    assert relaxed.facts["float_fallback"] == ["head.fpn.0"]


def test_half_precision_that_changes_labels_is_refused(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    with pytest.raises(CheckFailedError, match="half precision changes the graph"):
        run_stage(store, frames, int8_build, precision="int8+fp16", min_agreement=1.0)


def test_options_reach_the_builder_and_the_key(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    plain = run_stage(store, frames, int8_build)
    tuned = run_stage(store, frames, int8_build, options={"compute_capabilities": ["8.6", "12.0"]})
    assert tuned.manifest.key != plain.manifest.key
    assert built_with(tuned.manifest, ENGINE).capabilities == ("8.6", "12.0")
    with pytest.raises(UsageError, match="has no timing cache"):
        run_stage(store, frames, int8_build, options={"timing_cache": True})


def test_nothing_half_written_is_left_behind(
    tmp_path: Path, frames: FrameList, int8_build: BuildResult
) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(EngineError, match="workspace of 1 MiB"):
        run_stage(store, frames, int8_build, options={"workspace_mib": 1})
    assert list(store.root.iterdir()) == []


def test_the_hint_rebuilds_this_engine(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    manifest = run_stage(store, frames, int8_build).manifest
    assert recorded_command(manifest) == (
        "python scripts/build_engine.py --backend tensorrt --precision int8 --preset tiny "
        "--shape 64x128"
    )


def test_a_manifest_that_is_not_ours_is_refused(
    store: Store, frames: FrameList, int8_build: BuildResult
) -> None:
    built = run_stage(store, frames, int8_build)
    for changed in (None, {}, {"flavour": "tensorflow"}, "text"):
        facts = built.facts | {"built_with": changed}
        foreign = replace(built.manifest, facts=facts)
        with pytest.raises(ArtifactError, match="does not say what built it"):
            open_tensorrt(built.path, foreign)
