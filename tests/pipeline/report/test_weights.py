"""The report compares one network in two precisions: never two by accident."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import save_segmenter, shipped_checkpoint
from pipeline.artifact import open_artifact, read_manifest, sha256_of
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.build_inputs import engine_name, find_checkpoint, label_of, weights_name
from pipeline.bundle_parts import bundle_name
from pipeline.engines.opening import find_engine, manifest_of
from pipeline.errors import UsageError
from pipeline.lineage import TENSORRT_GRAPH
from pipeline.report.subjects import checkpoint_of, open_subject
from pipeline.store import Store
from scripts import accuracy_report
from tests.helpers import exit_code
from tests.models.helpers import tiny_segmenter

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Another network's weights, of the same preset."""
    path = tmp_path / "others.safetensors"
    save_segmenter(tiny_segmenter(seed=7), "tiny", path)
    return path


@pytest.fixture(scope="module")
def stored(int8_build: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the FP32 reference too, so that reports publish it and build nothing."""
    output = tmp_path_factory.mktemp("stored")
    shutil.copytree(int8_build.options.output / ".store", output / ".store")
    build(replace(int8_build.options, precision="fp32", output=output))
    return output / ".store"


@pytest.fixture
def engines(int8_build: BuildResult, stored: Path, tmp_path: Path) -> Path:
    """A folder with the INT8 engine and a store, that a test may fill."""
    folder = tmp_path / "engines"
    shutil.copytree(stored, folder / ".store")
    for path in int8_build.engine.parent.glob(f"{int8_build.engine.stem}.*"):
        shutil.copy2(path, folder)
    return folder


@pytest.fixture
def run(
    streets: Path, tmp_path: Path, engines: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:  # fmt: skip
    """Runs the report; (exit code, stderr in one line)."""
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)

    def command(*words: object) -> tuple[int, str]:
        given = ["--dataset", streets, "--output", tmp_path / "out", "--resamples", 20,
                 "--engines", engines, "--frames", 6, "--max-drop", 99, "--max-class-drop", 100,
                 *words]  # fmt: skip
        code = exit_code(accuracy_report.main, *given)
        return code, " ".join(capsys.readouterr().err.split())

    return command


def test_the_reference_is_built_of_the_candidates_own_weights(
    run: Run, engines: Path, int8_build: BuildResult, others: Path
) -> None:
    candidate = engines / int8_build.engine.name
    code, told = run("--candidate", candidate)
    assert code in (0, 1), told
    reference = open_artifact(manifest_of(engines / "tiny-fp32-64x128.xml"))
    assert (
        reference.manifest.provenance["checkpoint"]
        == (open_artifact(manifest_of(candidate)).manifest.provenance["checkpoint"])
    )
    code, told = run("--candidate", candidate, "--checkpoint", others)
    assert code == 2
    assert "two networks, not one in two precisions" in told


def test_weights_that_changed_since_are_noticed(
    int8_build: BuildResult, int8_options: BuildOptions, tmp_path: Path, others: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    assert int8_options.checkpoint is not None
    shutil.copy(int8_options.checkpoint, mine)
    result = build(
        BuildOptions(
            precision="fp32", checkpoint=mine, shape=(64, 128), dataset=int8_options.dataset,
            output=tmp_path / "engines",
        )
    )  # fmt: skip
    assert result.engine.name == "tiny-mine-fp32-64x128.xml"  # not the name of the shipped ones
    subject = open_subject("mine", result.engine)
    try:
        assert checkpoint_of(subject) == mine
        shutil.copy(others, mine)
        with pytest.raises(UsageError, match="which is another file by now"):
            checkpoint_of(subject)
        mine.unlink()
        with pytest.raises(UsageError, match="which is not there"):
            checkpoint_of(subject)
    finally:
        subject.engine.close()


def test_a_report_never_takes_the_place_of_an_engine_built_otherwise(
    run: Run, engines: Path, int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    path = engines / int8_build.engine.name
    before = path.with_suffix(".bin").read_bytes()
    code, told = run("--checkpoint", int8_options.checkpoint, "--shape", "64x128", "--frames", 2)
    assert code in (0, 1), told
    assert path.with_suffix(".bin").read_bytes() == before
    assert "was built otherwise and is left as it is" in told
    assert len(list(engines.glob("tiny-int8-64x128-*.xml"))) == 1


def test_the_engine_to_run_is_the_int8_one(
    run: Run, engines: Path, int8_build: BuildResult
) -> None:
    """Though the report built fp32 after it."""
    run("--candidate", engines / int8_build.engine.name)
    newest = max(engines.glob("*.xml"), key=lambda path: path.stat().st_mtime)
    assert "-fp32-" in newest.name
    assert "-int8-" in find_engine(engines).name


def test_a_bare_graph_of_the_store_is_compared_with_its_own_network(
    run: Run, engines: Path, int8_build: BuildResult, others: Path
) -> None:
    assert int8_build.quantized is not None
    graph = engines / ".store" / int8_build.quantized.manifest_path.parent.name / TENSORRT_GRAPH
    code, told = run("--candidate", graph)
    assert code == 2  # its checkpoint is no longer known by place, nor shipped
    assert "name it with --checkpoint" in told
    code, told = run("--candidate", graph, "--checkpoint", others)
    assert code == 2
    assert "two networks, not one in two precisions" in told
    code, told = run("--candidate", graph, "--checkpoint", int8_build.options.checkpoint)
    assert code in (0, 1), told


def test_a_report_leaves_what_is_recorded_of_an_engine(
    run: Run, engines: Path, int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    path = manifest_of(engines / int8_build.engine.name)
    manifest = read_manifest(path)
    recorded = {"rebuild": "mine --max-drop 1", "gate": {"passed": True}}
    path.write_bytes(replace(manifest, facts=manifest.facts | recorded).to_json())
    before = path.read_bytes()
    run("--checkpoint", int8_options.checkpoint, "--shape", "64x128", "--frames", 6)
    assert path.read_bytes() == before


def test_what_a_report_built_for_itself_is_not_what_runs(
    run: Run, engines: Path, int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    run("--checkpoint", int8_options.checkpoint, "--shape", "64x128", "--form", "train")
    assert list(engines.glob("*-train-int8-*.xml"))
    assert find_engine(engines).name == int8_build.engine.name


def test_weights_are_named_unless_they_are_the_shipped_ones(tmp_path: Path) -> None:
    shipped = shipped_checkpoint("edge-s")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    cases = {"mine": run / "best.safetensors", "odd_name_": tmp_path / "odd name!.safetensors"}
    for path in cases.values():
        path.write_bytes(b"weights")
    same, other = tmp_path / "same.safetensors", tmp_path / "edge-s.safetensors"
    shutil.copy(shipped, same)
    other.write_bytes(b"weights")

    def name(path: Path, **options: Any) -> str:
        asked = BuildOptions(precision="fp32", shape=(128, 256), **options)
        return engine_name(asked, "edge-s", weights_name(asked, "edge-s", path))

    for told, path in cases.items():
        assert name(path) == f"edge-s-{told}-fp32-128x256"
    assert name(shipped) == name(same) == "edge-s-fp32-128x256"
    assert name(other) == f"edge-s-{sha256_of(other)[:8]}-fp32-128x256"
    assert name(other, random_weights=True) == "edge-s-random-fp32-128x256"


def test_a_bundle_of_a_stored_graph_is_called_as_the_engine_is(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    best = run / "best.safetensors"
    shutil.copy(tiny_checkpoint, best)
    asked = BuildOptions(precision="int8", shape=(64, 128), checkpoint=best)
    artifact, preset = find_checkpoint(asked, Store(tmp_path / "store"))
    assert engine_name(asked, preset, label_of(artifact)) == "tiny-mine-int8-64x128"
    (tmp_path / "artifact.json").touch()  # what every folder of the store has
    facts = {"preset": preset, "precision": "int8", "inputs": [{"shape": [1, 64, 128, 3]}]}
    name = bundle_name(tmp_path / "model.onnx", artifact.manifest, facts)
    assert name == "tiny-mine-int8-64x128-tensorrt"
