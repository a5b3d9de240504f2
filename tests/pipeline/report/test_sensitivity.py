"""Layers ranked by what quantizing each alone does; a broken one is found, and the gate fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.ablation import Ablation
from pipeline.build import BuildResult
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import UsageError
from pipeline.inference import FrameSegmenter
from pipeline.report.schema import SensitivityRow
from pipeline.report.sensitivity import Bench, measure, ranked
from pipeline.report.subjects import Graphs, exact_graph_of, graphs_of, open_subject
from scripts.accuracy_report import main
from tests.helpers import exit_code
from tests.pipeline.own_truth import own_truth
from tests.pipeline.report.doubles import EndlessFrames

BROKEN = "stages.1.0.ffn_block.ffn_fc1"
ONE = "head.fpn.0"
SHAPE = (64, 128)


@pytest.fixture(scope="module")
def built(int8_build: BuildResult) -> Graphs:
    assert int8_build.quantized is not None
    return Graphs(int8_build.quantized.path, int8_build.graph.path)


@pytest.fixture(scope="module")
def graphs(built: Graphs, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """The same, with one layer in four and ``BROKEN`` quantized: each layer costs a session of
    ONNX Runtime and runs of the whole graph."""
    ablation = Ablation(onnx.load(built.quantized), onnx.load(built.floating))
    chosen = {BROKEN, ONE, *list(ablation.layers)[::4]}
    path = tmp_path_factory.mktemp("few") / "few.onnx"
    onnx.save(ablation.only(chosen), path)
    return Graphs(path, built.floating)


@pytest.fixture(scope="module")
def tree(graphs: Graphs, streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See ``own_truth``."""
    root = tmp_path_factory.mktemp("own-truth") / "tree"
    return own_truth(graphs.floating, streets, root, "val")


def with_scale(path: Path, layer: str, factor: float, target: Path) -> Path:
    """A copy of the Q/DQ graph in which one layer's weights are dequantized too large."""
    model = onnx.load(path)
    makers = {node.output[0]: node for node in model.graph.node}
    node = next(node for node in model.graph.node if node.name == layer)
    scale = makers[node.input[1]].input[1]
    tensor = next(t for t in model.graph.initializer if t.name == scale)
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((value * factor).astype(value.dtype), scale))
    onnx.save(model, target)
    return target


@pytest.fixture
def report(
    tree: Path, tmp_path: Path, graphs: Graphs, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, dict[str, Any], str]]:  # fmt: skip
    """Runs the command on a candidate; (exit code, report.json, stderr in one line)."""
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)

    def run(candidate: Path, *more: str) -> tuple[int, dict[str, Any], str]:
        words = ["--reference", graphs.floating, "--candidate", candidate, "--dataset", tree,
                 "--output", tmp_path / "out", "--resamples", 20, "--max-drop", 45,
                 "--max-class-drop", 60, "--json", "--sensitivity", *more]  # fmt: skip
        code = exit_code(main, *words)
        out, err = capsys.readouterr()
        return code, json.loads(out or "{}"), " ".join(err.split())

    return run


def test_a_layer_with_a_wrong_scale_fails_the_gate_and_leads_the_list(
    report: Callable[..., tuple[int, dict[str, Any], str]], graphs: Graphs, tmp_path: Path
) -> None:
    sound = report(graphs.quantized)
    assert sound[0] == 0
    assert sound[1]["reference"]["miou"] == 100
    assert all(row["logits_error"] < 0.4 for row in sound[1]["sensitivity"])
    code, found, said = report(with_scale(graphs.quantized, BROKEN, 8, tmp_path / "broken.onnx"))
    assert code == 1
    assert found["drop"] > 45
    first, second = found["sensitivity"][:2]
    assert first["layer"] == BROKEN
    assert first["kind"] == "Conv"
    assert first["logits_error"] > 3 * second["logits_error"]
    assert first["drop"] > 10
    assert found["sensitivity_frames"] == 3
    assert f"Most sensitive of {len(found['sensitivity'])} layers on 3 frames: {BROKEN}" in said
    for name in ("report.html", "report.md"):
        assert BROKEN in (tmp_path / "out" / name).read_text()


def test_what_was_ranked_is_not_ranked_again(
    graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the middle, it goes on after the last whole layer; done, it runs nothing."""
    frames, state = EndlessFrames(2, SHAPE), tmp_path / "kept.json"

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(graphs, frames, [0, 1], state=state, digest="d", notify=stop)
    kept = json.loads(state.read_text())["rows"]
    assert 0 < len(kept) < 5
    seen: list[tuple[int, int]] = []
    rows = measure(
        graphs, frames, [0, 1], state=state, digest="d", notify=lambda *at: seen.append(at)
    )
    assert seen[0][0] == 2 * len(kept)
    assert seen[-1][0] == seen[-1][1]
    assert rows == ranked(rows)
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("measured again"))
    assert measure(graphs, frames, [0, 1], state=state, digest="d") == rows
    state.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        measure(graphs, frames, [0, 1], state=state, digest="d")


def test_figures_of_one_layer_are_those_of_the_two_graphs(graphs: Graphs, tmp_path: Path) -> None:
    """The row against NumPy on the outputs of ONNX Runtime's own sessions."""
    frames = EndlessFrames(1, SHAPE)
    rows = {row.layer: row for row in measure(graphs, frames, [0])}
    floating = onnx.load(graphs.floating)
    ablation = Ablation(onnx.load(graphs.quantized), floating)
    assert set(rows) == set(ablation.layers)
    assert len(rows) > 8
    onnx.save(ablation.only([ONE]), tmp_path / "one.onnx")
    picture = frames.read(0)[0][None]
    with (
        OnnxRuntimeEngine(tmp_path / "one.onnx") as one,
        OnnxRuntimeEngine(graphs.floating) as all_,
    ):
        mine, theirs = one.infer(picture), all_.infer(picture)
        labels = [FrameSegmenter(each).segment(picture[0]) for each in (one, all_)]
    expected = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
    assert rows[ONE].logits_error == pytest.approx(expected, rel=1e-5)
    assert rows[ONE].labels_changed == pytest.approx(100 * np.mean(labels[0] != labels[1]))


def test_graphs_are_found_from_the_engine_in_its_folder(
    int8_build: BuildResult, built: Graphs
) -> None:
    graphs = built
    with_manifest = open_subject("int8", int8_build.engine)
    bare = open_subject("graph", graphs.quantized)
    floating = open_subject("float", graphs.floating)
    try:
        assert exact_graph_of(with_manifest) == graphs.quantized
        assert graphs_of(with_manifest, floating) == graphs
        assert graphs_of(bare, floating) == graphs
        assert graphs_of(floating, bare) is None
        assert (bare.engine.info.precision, floating.engine.info.precision) == ("int8", "fp32")
    finally:
        for each in (with_manifest, bare, floating):
            each.engine.close()


def test_bad_requests_are_one_line(
    report: Callable[..., tuple[int, dict[str, Any], str]], graphs: Graphs, tmp_path: Path
) -> None:
    model = onnx.load(graphs.floating)
    model.doc_string = "another"
    onnx.save(model, tmp_path / "float.onnx")
    code, _found, said = report(tmp_path / "float.onnx")
    assert code == 2
    assert "--sensitivity needs a candidate whose Q/DQ graph and float graph" in said
    with pytest.raises(UsageError, match="1 to 64"):
        Bench(EndlessFrames(1, SHAPE), range(65))
    with pytest.raises(UsageError, match="no quantized layer"):
        measure(Graphs(graphs.floating, graphs.floating), EndlessFrames(1, SHAPE), [0])


def test_equals_are_ordered_by_name() -> None:
    rows = [SensitivityRow(layer=name, drop=None, logits_error=0.5) for name in "ba"]
    assert [row.layer for row in ranked(rows)] == ["a", "b"]
