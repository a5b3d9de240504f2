"""A bundle, made from a real build, unpacked and used as a user would: by running what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.cityscapes import Cityscapes
from calibration.frames import select_frames
from pipeline.artifact import Artifact, open_artifact
from pipeline.build import BuildResult
from pipeline.bundle import import_closure, make_bundle
from pipeline.bundle_openvino import OPENVINO_REQUIREMENT
from pipeline.bundle_parts import RUNNER_REQUIREMENTS
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import ArtifactError, CheckFailedError, SinkError, UsageError
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.stages.build_tensorrt import BuildTensorRTConfig, BuildTensorRTStage
from pipeline.store import Store
from pipeline.verify import label_agreement
from tests.helpers import full_disk

ROOT = Path(__file__).parents[2]


def test_the_same_input_gives_the_same_bytes(tensorrt_graph: Path, tmp_path: Path) -> None:
    first = make_bundle(tensorrt_graph, tmp_path / "a.tar.gz").path.read_bytes()
    assert make_bundle(tensorrt_graph, tmp_path / "b.tar.gz").path.read_bytes() == first


def test_everything_is_in_it_and_whole(unpacked: Path, int8_build: BuildResult) -> None:
    patch = int8_build.graph.facts["patch"]
    index = json.loads((unpacked / "bundle.json").read_text())
    on_disk = {
        path.relative_to(unpacked).as_posix()
        for path in unpacked.rglob("*")
        if path.is_file() and path.name != "bundle.json"
    }
    assert on_disk == set(index["files"])
    for name, expected in index["files"].items():
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == expected
    assert index["model"]["precision"] == "int8"
    assert index["model"]["output"] == "labels"
    assert index["model"]["preset"] == "tiny"
    assert index["model"]["patch"] == patch
    assert os.access(unpacked / "edge.py", os.X_OK)
    artifact = open_artifact(unpacked / "model.json")
    assert artifact.manifest.outputs[0].layout == "NHW"
    calibration = artifact.manifest.provenance["quantize"]["calibration"]
    assert len(calibration["frames"]) == 6


def test_the_runner_in_it_is_whole_and_holds_neither_torch_nor_onnx(unpacked: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'app')\n"
        "import importlib.util as u\n"
        "spec = u.spec_from_file_location('run_video', 'app/scripts/run_video.py')\n"
        "module = u.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "import pipeline; assert 'app' in pipeline.__file__, pipeline.__file__\n"
        "assert not {'torch', 'onnx', 'nncf'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=unpacked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_frames_travel_with_what_the_exact_graph_makes_of_them(unpacked: Path) -> None:
    frames, labels = (
        np.load(unpacked / "check" / f"{name}.npy", allow_pickle=False)
        for name in ("frames", "labels")
    )
    assert frames.dtype == labels.dtype == np.uint8
    assert frames.shape[0] == 3
    assert labels.shape == frames.shape[:-1]
    assert len({frame.tobytes() for frame in frames}) == 3
    with OnnxRuntimeEngine(unpacked / "model.onnx") as exact:
        assert label_agreement(exact, frames, labels) == {
            "labels": 1.0, "worst_frame": 1.0, "frames": 3,
        }  # fmt: skip
        shifted = np.where(labels == 0, 1, labels)
        share = float(np.mean(shifted == labels))
        assert label_agreement(exact, frames, shifted)["labels"] == pytest.approx(share)


def test_what_tensorrt_would_misread_is_not_bundled(tensorrt_graph: Path, tmp_path: Path) -> None:
    """OpenVINO's spelling lies beside TensorRT's, and TensorRT takes its uint8 for int8."""
    with pytest.raises(CheckFailedError, match="breaks rule 'type'") as caught:
        make_bundle(tensorrt_graph.with_name(OPENVINO_GRAPH), tmp_path / "b.tar.gz")
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(TENSORRT_GRAPH)
    assert not (tmp_path / "b.tar.gz").exists()


def test_an_engine_is_bundled_by_its_graph(
    int8_build: BuildResult, streets: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    frames = select_frames(Cityscapes(streets), 1)
    config: dict[str, Any] = {"min_agreement": 0.5}
    assert int8_build.quantized is not None
    engine: Artifact = BuildTensorRTStage(
        BuildTensorRTConfig(
            precision="int8+fp16", flavour="tensorrt-rtx", graph=TENSORRT_GRAPH, **config
        ),
        Store(tmp_path / "store"), frames,
    ).run(int8_build.quantized, int8_build.graph)  # fmt: skip
    made = make_bundle(engine.path, tmp_path / "b.tar.gz")
    with tarfile.open(made.path) as archive:
        member = archive.extractfile(f"{made.folder}/bundle.json")
        assert member is not None
        index = json.loads(member.read())
    assert (
        made.folder == "tiny-int8+fp16-64x128-tensorrt"
    )  # in the store it is "engine", like all others
    assert index["model"]["precision"] == "int8+fp16"
    assert index["model"]["output"] == "logits"
    assert index["model"]["preset"] == "tiny"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.onnx", "does not exist"),
        ("stray.onnx", "has no manifest beside it"),
        ("engine.xml", "has no manifest beside it"),
        ("engine.pth", "cannot be bundled: name an engine"),
        ("", "is a directory"),
    ],
)
def test_what_cannot_be_bundled_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    if name not in ("absent.onnx", ""):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=said):
        make_bundle(tmp_path / name, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


@pytest.mark.parametrize("name", ["b.zip", "b", "folder.tar.gz"])
def test_a_target_that_is_no_archive_is_refused(
    tensorrt_graph: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.tar.gz").mkdir()
    with pytest.raises(UsageError, match="--output"):
        make_bundle(tensorrt_graph, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.tar.gz"]


def test_a_full_disk_is_named(
    tensorrt_graph: Path, streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SinkError, match=r"b\.tar\.gz' cannot be written: No space left"):
        make_bundle(tensorrt_graph, tmp_path / "b.tar.gz", dataset=streets)
    assert not list(tmp_path.iterdir())


def test_the_wheel_list_is_the_projects() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.partition("\ndependencies = [")[2].partition("]")[0]
    assert f'openvino = ["{OPENVINO_REQUIREMENT}"]' in text
    assert set(RUNNER_REQUIREMENTS) == {line.strip(' ",') for line in listed.split("\n")} - {""}


def test_the_guide_names_every_package() -> None:
    table = (ROOT / "docs" / "jetson.md").read_text().partition("| package |")[2]
    table = table.partition("\n\n")[0]
    assert [r for r in RUNNER_REQUIREMENTS if f"`{r.partition('>=')[0]}`" not in table] == []


def test_imports_are_followed_into_functions(tmp_path: Path) -> None:
    package = tmp_path / "pipeline"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from pipeline.b import g\n")
    (package / "b.py").write_text("import os, pipeline.a\nfrom pipeline import c\n")
    (package / "c.py").write_text("")
    (package / "unused.py").write_text("")
    found = import_closure(tmp_path, (package / "a.py",))
    assert {path.name for path in found} == {"__init__.py", "a.py", "b.py", "c.py"}
