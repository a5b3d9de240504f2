"""An unpacked bundle, used as its user would: by running what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest

from pipeline import bundle_build
from pipeline.artifact import Manifest, open_artifact, read_manifest
from pipeline.build import BuildResult
from pipeline.bundle import make_bundle
from pipeline.bundle_build import BuildRequest
from pipeline.engines import trt_trial
from pipeline.engines.base import FrameBatch, OutputBatch
from pipeline.engines.cpu import cpu_features, cpu_model
from pipeline.engines.cuda_driver import find_gpu
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.opening import manifest_of, open_engine
from pipeline.engines.rebuild import rebuild_command
from pipeline.engines.tensorrt import built_with
from pipeline.errors import ArtifactError, CheckFailedError, EngineError, UsageError
from scripts import edge_box
from tests.pipeline.boxes import unpack


def _edge(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "edge.py", *words], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"COLUMNS": "200"} | environment, timeout=120, check=False,
    )  # fmt: skip


def _bare(folder: Path, packages: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With a Python that has numpy and OpenCV and nothing else installed."""
    return subprocess.run(
        [sys.executable, "-S", "edge.py", *words], cwd=folder, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)}, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bare_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("site")
    for module in (np, cv2):
        package = Path(str(module.__file__)).parent
        (folder / package.name).symlink_to(package)
        for libraries in package.parent.glob(f"{package.name}*.libs"):
            (folder / libraries.name).symlink_to(libraries)
    for libraries in Path(str(cv2.__file__)).parents[1].glob("opencv*.libs"):
        (folder / libraries.name).symlink_to(libraries)
    return folder


def test_on_a_bare_python_it_says_what_is_missing(unpacked: Path, bare_packages: Path) -> None:
    done = _bare(unpacked, bare_packages)
    assert done.stderr == ""
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "calibrated on 6 frames of train" in done.stdout
    assert "all whole" in lines["files"]
    assert "numpy" not in lines["packages"]
    assert "opencv" not in lines["packages"]
    for package in ("pydantic>=2.6", "rich>=13", "platformdirs>=4"):
        assert package in lines["packages"]
    assert "missing" in lines["TensorRT"]
    assert "not built yet" in lines["engine"]
    assert "next: python3 -m pip install -r" in done.stdout
    assert done.returncode == 2


def test_on_a_bare_python_build_and_run_are_one_line(unpacked: Path, bare_packages: Path) -> None:
    for words, said in (
        (["build"], "pydantic>=2.6"),
        (["run", "streets"], "the engine is not built yet"),
    ):
        done = _bare(unpacked, bare_packages, *words)
        assert done.returncode == 2
        first = done.stderr.splitlines()[0]
        assert first.startswith("error: ")
        assert said in first
        assert "Traceback" not in done.stderr


def _has_gpu() -> bool:
    try:
        find_gpu()
    except EngineError:
        return False
    return True


def test_the_engine_is_built_from_it(unpacked: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    done = _edge(unpacked, "build", "--flavour", "tensorrt-rtx", "--strict-int8")
    assert done.returncode == 0, done.stderr
    index = json.loads((unpacked / "bundle.json").read_text())
    built = open_artifact(unpacked / f"{index['name']}.engine.json")
    assert built.path.name == f"{index['name']}.engine"
    assert built_with(built.manifest, built.path.name).version == trt.__version__
    assert built.facts["float_fallback"] == []
    # What --patch-edges draws by.
    assert (
        built.facts["patch"] == json.loads((unpacked / "bundle.json").read_text())["model"]["patch"]
    )
    assert rebuild_command(built.manifest) == (
        f"cd {unpacked} && python3 edge.py build --flavour tensorrt-rtx --strict-int8"
    )
    assert built.facts["executed"]["gemm int8"] > 0
    assert "quantize" in built.manifest.provenance
    if not _has_gpu():
        done = _edge(unpacked, "run", "streets", "--max-frames", "1", "--headless")
        assert done.returncode == 2
        assert "no NVIDIA driver on this machine" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("found", "enough"),
    [("4.9.9", False), ("4.10.0.84", True), ("4.10", True), ("5", True), ("4.10rc1", True),
     ("4.8+jetson", False), (None, True)],
)  # fmt: skip
def test_a_package_that_is_too_old_is_missing(
    monkeypatch: pytest.MonkeyPatch, found: str | None, enough: bool
) -> None:
    """By what pip recorded; where pip does not know it, by what the module says of itself."""
    module: Any = ModuleType("thing")
    monkeypatch.setitem(sys.modules, "thing", module)

    def version(name: str) -> str:
        assert name == "thing"
        if by_pip and found is not None:
            return found
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    for by_pip in (True, False):
        if not by_pip and found is not None:
            module.__version__ = found
        lacking = edge_box.missing_packages(["thing>=4.10", "nothing-there>=1"])
        assert lacking.pop() == "nothing-there>=1"
        assert lacking == ([] if enough else [f"thing>=4.10 (here is {found})"])


def test_a_refused_option_is_one_line(unpacked: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    done = _edge(unpacked, "build", "--flavour", "tensorrt-rtx", "--timing-cache")
    assert done.returncode == 2
    assert "has no timing cache" in done.stderr
    assert "Traceback" not in done.stderr


def test_damage_is_found_before_anything_is_built(
    tensorrt_graph: Path, tmp_path: Path, bare_packages: Path
) -> None:
    inside = unpack(make_bundle(tensorrt_graph, tmp_path / "b.tar.gz"), tmp_path)
    with (inside / "model.onnx").open("r+b") as file:
        file.write(b"damage")
    done = _edge(inside, "build")
    assert done.returncode == 2
    assert "'model.onnx' is not what was packed" in done.stderr
    assert "DAMAGED: model.onnx" in _bare(inside, bare_packages).stdout
    index = json.loads((inside / "bundle.json").read_text())
    (inside / "bundle.json").write_text(
        json.dumps(index | {"files": index["files"] | {"../../etc/passwd": "0"}})
    )
    done = _edge(inside, "build")
    assert "names a file outside the bundle" in done.stderr
    changes: list[dict[str, Any]] = [
        {"model": {}}, {"files": {}}, {"requirements": [3]}, {"version": "3"},
    ]  # fmt: skip
    for change in changes:
        (inside / "bundle.json").write_text(json.dumps(index | change))
        done = _edge(inside, "check")
        assert done.returncode == 2, change
        assert "altered" in done.stderr
        assert "Traceback" not in done.stderr
    for text in ("{", "[]", "{}", '{"version": 3}', '{"version": 3, "files": []}'):
        (inside / "bundle.json").write_text(text)
        done = _edge(inside, "check")
        assert done.returncode == 2
        assert "altered or half copied" in done.stderr
        assert "Traceback" not in done.stderr
    (inside / "bundle.json").write_text('{"version": 1}')
    assert "this bundle is of version 1" in _edge(inside, "check").stderr
    (inside / "bundle.json").unlink()
    assert "there is no bundle here" in _edge(inside, "check").stderr


@pytest.mark.parametrize("lost", ["model.json", "app/pipeline/errors.py", "app"])
def test_the_look_at_a_bundle_survives_what_is_missing(
    unpacked: Path, tmp_path: Path, bare_packages: Path, lost: str
) -> None:
    inside = tmp_path / "box"
    shutil.copytree(unpacked, inside)
    if (inside / lost).is_dir():
        shutil.rmtree(inside / lost)
    else:
        (inside / lost).unlink()
    done = _bare(inside, bare_packages)
    assert done.stderr == ""
    assert f"DAMAGED: {lost}" in done.stdout
    assert "next: copy the archive again and unpack it" in done.stdout
    assert done.returncode == 2


def test_another_engine_is_not_run_from_a_bundle(unpacked: Path) -> None:
    for words in (("--engine", "other.engine"), ("--eng=other.engine",), ("--e", "o.engine")):
        done = _edge(unpacked, "run", "cam0", *words)
        assert done.returncode == 2
        assert "leave --engine out" in done.stderr


def test_a_full_stdout_is_one_line(unpacked: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "edge.py"], cwd=unpacked, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: No space left on device")
    assert "Traceback" not in done.stderr


def _request(unpacked: Path, engine: Path) -> BuildRequest:
    index = json.loads((unpacked / "bundle.json").read_text())
    about = {"rebuild": "again", "bundle": edge_box.bundle_digest(index)}
    return BuildRequest(unpacked, index, engine, about, flavour="tensorrt-rtx")


@pytest.mark.parametrize("faithful", [True, False])
def test_an_engine_that_is_not_its_graph_is_not_written(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faithful: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The plan is real; the GPU that runs it is ONNX Runtime, or one that reads frames mirrored."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)

    class Mirrored(OnnxRuntimeEngine):
        def infer(self, frames: FrameBatch) -> OutputBatch:
            return super().infer(np.ascontiguousarray(frames[:, :, ::-1]))

    def opened(_path: Path, manifest: Manifest) -> OnnxRuntimeEngine:
        assert manifest.facts["built_with"]["flavour"] == "tensorrt-rtx"
        return (OnnxRuntimeEngine if faithful else Mirrored)(unpacked / "model.onnx")

    monkeypatch.setattr(bundle_build, "open_fresh", opened)
    engine = tmp_path / "m.engine"
    if faithful:
        assert bundle_build.build_engine(_request(unpacked, engine)) == 0
        built = open_artifact(tmp_path / "m.engine.json")
        assert built.facts["agreement"]["graph"] == {
            "labels": 1.0, "worst_frame": 1.0, "frames": 3,
        }  # fmt: skip
        assert rebuild_command(built.manifest) == "again"
        assert "100.00% of labels as its graph" in capsys.readouterr().err
    else:
        with pytest.raises(CheckFailedError, match="the engine is not its graph"):
            bundle_build.build_engine(_request(unpacked, engine))
        assert not list(tmp_path.iterdir())


def test_an_engine_that_cannot_run_here_says_why(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)

    def none_here() -> NoReturn:
        raise EngineError("no NVIDIA driver, said the test")

    monkeypatch.setattr(trt_trial, "find_gpu", none_here)
    assert bundle_build.build_engine(_request(unpacked, tmp_path / "m.engine")) == 0
    facts = open_artifact(tmp_path / "m.engine.json").facts
    assert (facts["agreement"], facts["not_executed"]) == (None, "no NVIDIA driver, said the test")
    assert "not compared with its graph" in capsys.readouterr().err


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
    done = _bare(adopted, bare_packages)
    assert done.stderr == ""
    assert "openvino>=2026.4" in done.stdout
    assert "GPU" not in done.stdout
    assert "TensorRT" not in done.stdout
    before = _edge(adopted, "run", "streets", "--max-frames", "1", "--headless")
    assert before.returncode == 2
    assert "the engine is not built yet" in before.stderr
    checked = _edge(adopted)
    assert checked.returncode == 0, checked.stdout
    assert "next: python3 edge.py build" in checked.stdout
    built = _edge(adopted, "build")
    assert built.returncode == 0, built.stderr
    assert "of labels as its graph, on 3 frames, with OpenVINO" in built.stderr
    name = json.loads((adopted / "bundle.json").read_text())["name"]
    facts = open_artifact(adopted / f"{name}.xml.json").facts
    assert facts["device"] == {"cpu": cpu_model(), "features": list(cpu_features())}
    assert facts["agreement"]["graph"]["labels"] >= 0.98
    assert "tuning" not in facts
    assert "next:" not in _edge(adopted).stdout
    ran = _edge(adopted, "run", "streets", "--max-frames", "2", "--headless", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["frames"] == 2


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
    done = _edge(inside, "build")
    assert done.returncode == 2
    assert "it stays out of service" in " ".join(done.stderr.split())
    assert not (inside / f"{index['name']}.xml.json").exists()
    assert _edge(inside, "build", "--timing-cache").returncode == 2  # TensorRT's


def test_an_engine_of_the_bundle_before_is_not_run(adopted: Path, tmp_path: Path) -> None:
    """A new bundle unpacked over an old one finds the old one's engine."""
    inside = tmp_path / "box"
    shutil.copytree(adopted, inside)
    assert _edge(inside, "build").returncode == 0
    index = json.loads((inside / "bundle.json").read_text())
    index["model"]["multiply_adds"] = 1
    (inside / "bundle.json").write_text(json.dumps(index))
    done = _edge(inside, "run", "streets", "--max-frames", "1", "--headless")
    assert done.returncode == 2
    assert "built of another bundle" in done.stderr
    assert "built of another bundle" in _edge(inside).stdout


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
    assert _edge(inside, "build").returncode == 0
    name = json.loads((inside / "bundle.json").read_text())["name"]
    path = inside / f"{name}.xml.json"
    manifest = read_manifest(path)
    facts = manifest.facts | {"tools": {"openvino": "2020.1"}}
    path.write_bytes(replace(manifest, facts=facts).to_json())
    told = _edge(inside).stdout
    assert "proven with OpenVINO 2020.1" in told
    assert "next: python3 edge.py build" in told
    # A build that fails for another reason leaves what was in service where it is.
    (inside / "check" / "labels.npy").rename(inside / "labels.npy")
    assert _edge(inside, "build").returncode == 2
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
