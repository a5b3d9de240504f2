"""An OpenVINO engine on another box: proven there before it may run, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifact import open_artifact, read_manifest
from pipeline.build import BuildResult
from pipeline.bundle import make_bundle
from pipeline.engines.cpu import cpu_features, cpu_model
from pipeline.engines.opening import manifest_of, open_engine
from pipeline.errors import ArtifactError, UsageError
from tests.pipeline.boxes import bare, edge, unpack


@pytest.fixture(scope="module")
def adopted(int8_build: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an OpenVINO engine that was verified on another machine, unpacked."""
    folder = tmp_path_factory.mktemp("openvino")
    engine = folder / "engines" / int8_build.engine.name
    shutil.copytree(int8_build.engine.parent, engine.parent)
    path = manifest_of(engine)
    manifest = read_manifest(path)
    elsewhere = {"device": {"cpu": "Another CPU", "features": ["avx2"]}, "tuning": {"version": 1}}
    path.write_bytes(replace(manifest, facts=manifest.facts | elsewhere).to_json())
    with pytest.raises(ArtifactError, match="was verified on Another CPU"):
        open_engine(engine)
    return unpack(make_bundle(engine, folder / "b.tar.gz"), folder)


def test_an_openvino_engine_is_proven_on_the_cpu_it_comes_to(
    adopted: Path, bare_packages: Path
) -> None:
    done = bare(adopted, bare_packages)
    assert done.stderr == ""
    assert "openvino>=2026.4" in done.stdout
    assert "GPU" not in done.stdout
    assert "TensorRT" not in done.stdout
    before = edge(adopted, "run", "streets", "--max-frames", "1", "--headless")
    assert before.returncode == 2
    assert "the engine is not built yet" in before.stderr
    checked = edge(adopted)
    assert checked.returncode == 0, checked.stdout
    assert "next: python3 edge.py build" in checked.stdout
    built = edge(adopted, "build")
    assert built.returncode == 0, built.stderr
    assert "of labels as its graph, on 3 frames, with OpenVINO" in built.stderr
    name = json.loads((adopted / "bundle.json").read_text())["name"]
    facts = open_artifact(adopted / f"{name}.xml.json").facts
    assert facts["device"] == {"cpu": cpu_model(), "features": list(cpu_features())}
    assert facts["agreement"]["graph"]["labels"] >= 0.98
    assert "tuning" not in facts
    assert "next:" not in edge(adopted).stdout
    ran = edge(adopted, "run", "streets", "--max-frames", "2", "--headless", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["frames"] == 2


def test_a_bundle_that_was_moved_says_to_build_it_where_it_lies(
    adopted: Path, tmp_path: Path
) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    shutil.copytree(adopted, first)
    assert edge(first, "build").returncode == 0
    first.rename(moved)
    name = json.loads((moved / "bundle.json").read_text())["name"]
    engine = moved / f"{name}.xml"
    manifest = read_manifest(manifest_of(engine))
    elsewhere = {"device": {"cpu": "Another CPU", "features": ["avx2"]}}
    manifest_of(engine).write_bytes(replace(manifest, facts=manifest.facts | elsewhere).to_json())
    done = edge(moved, "run", "streets", "--max-frames", "1", "--headless")
    assert done.returncode == 2
    assert f"cd {moved} && python3 edge.py build" in " ".join(done.stderr.split())


def test_an_openvino_engine_that_is_not_its_graph_here_stays_out_of_service(
    adopted: Path, tmp_path: Path
) -> None:
    inside = tmp_path / "box"
    shutil.copytree(adopted, inside)
    labels = np.load(inside / "check" / "labels.npy", allow_pickle=False)
    np.save(inside / "check" / "labels.npy", (labels + 1) % 19)
    index = json.loads((inside / "bundle.json").read_text())
    digest = hashlib.sha256((inside / "check" / "labels.npy").read_bytes()).hexdigest()
    index["files"]["check/labels.npy"] = digest
    (inside / "bundle.json").write_text(json.dumps(index))
    done = edge(inside, "build")
    assert done.returncode == 2
    assert "it stays out of service" in " ".join(done.stderr.split())
    assert not (inside / f"{index['name']}.xml.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workspace", "3"], "--workspace is for TensorRT bundles"),
        (["--level", "0"], "--level is for TensorRT bundles"),
        (["--timing-cache"], "--timing-cache is for TensorRT bundles"),
        (["--workspace", "x"], "argument --workspace: invalid int value: 'x'"),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_an_option_that_build_does_not_take_is_one_line(
    adopted: Path, words: list[str], said: str
) -> None:
    done = edge(adopted, "build", *words)
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert [line.startswith("  try: ") for line in rest] == [True]
    assert "of TensorRT bundles" in edge(adopted, "build", "--help").stdout


def test_an_engine_of_the_bundle_before_is_not_run(adopted: Path, tmp_path: Path) -> None:
    """A new bundle unpacked over an old one finds the old one's engine."""
    inside = tmp_path / "box"
    shutil.copytree(adopted, inside)
    assert edge(inside, "build").returncode == 0
    index = json.loads((inside / "bundle.json").read_text())
    index["model"]["multiply_adds"] = 1
    (inside / "bundle.json").write_text(json.dumps(index))
    done = edge(inside, "run", "streets", "--max-frames", "1", "--headless")
    assert done.returncode == 2
    assert "built of another bundle" in done.stderr
    assert "built of another bundle" in edge(inside).stdout


def test_labels_and_strays_of_openvino_are_refused(int8_build: BuildResult, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--labels"):
        make_bundle(int8_build.engine, tmp_path / "b.tar.gz", labels=True)
    for name in int8_build.engine.parent.glob(f"{int8_build.engine.stem}.*"):
        shutil.copy(name, tmp_path)
    with pytest.raises(ArtifactError, match="is not in the store beside it"):
        make_bundle(tmp_path / int8_build.engine.name, tmp_path / "b.tar.gz")


def test_an_engine_proven_with_another_openvino_is_told(adopted: Path, tmp_path: Path) -> None:
    inside = tmp_path / "box"
    shutil.copytree(adopted, inside)
    assert edge(inside, "build").returncode == 0
    name = json.loads((inside / "bundle.json").read_text())["name"]
    path = inside / f"{name}.xml.json"
    manifest = read_manifest(path)
    facts = manifest.facts | {"tools": {"openvino": "2020.1"}}
    path.write_bytes(replace(manifest, facts=facts).to_json())
    told = edge(inside).stdout
    assert "proven with OpenVINO 2020.1" in told
    assert "next: python3 edge.py build" in told
    # A build that fails for another reason leaves what was in service where it is.
    (inside / "check" / "labels.npy").rename(inside / "labels.npy")
    assert edge(inside, "build").returncode == 2
    assert path.exists()


def test_looking_at_a_bundle_calls_nobody(adopted: Path) -> None:
    """OpenVINO's telemetry goes out when it is first imported."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['edge.py']\n"
        "try:\n    runpy.run_path('edge.py', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "assert 'openvino' not in sys.modules, 'imported'\n"
        "assert 'openvino_telemetry' not in sys.modules, 'imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=adopted, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
