"""A bundle, made from a real build, unpacked and used as a user would: by running what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from calibration.cityscapes import Cityscapes
from calibration.frames import select_frames
from pipeline.artifact import Artifact, open_artifact
from pipeline.build import BuildResult
from pipeline.bundle import RUNNER_REQUIREMENTS, Bundle, import_closure, make_bundle
from pipeline.engines.cuda_driver import find_gpu
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.rebuild import rebuild_command
from pipeline.engines.tensorrt import built_with
from pipeline.errors import ArtifactError, CheckFailedError, EngineError
from pipeline.stages.build_tensorrt import BuildTensorRTConfig, BuildTensorRTStage
from pipeline.stages.spellings import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.store import Store
from pipeline.verify import label_agreement
from scripts import edge_box

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph(int8_build: BuildResult) -> Path:
    assert int8_build.quantized is not None
    return int8_build.quantized.manifest_path.parent / TENSORRT_GRAPH


@pytest.fixture(scope="module")
def unpacked(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box")
    return _unpack(make_bundle(graph, folder / "b.tar.gz", labels=True), folder)


def _unpack(made: Bundle, folder: Path) -> Path:
    with tarfile.open(made.path) as archive:
        archive.extractall(folder, filter="data")
    return folder / made.folder


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


def test_the_same_input_gives_the_same_bytes(graph: Path, tmp_path: Path) -> None:
    first = make_bundle(graph, tmp_path / "a.tar.gz").path.read_bytes()
    assert make_bundle(graph, tmp_path / "b.tar.gz").path.read_bytes() == first


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
    graph: Path, tmp_path: Path, bare_packages: Path
) -> None:
    inside = _unpack(make_bundle(graph, tmp_path / "b.tar.gz"), tmp_path)
    with (inside / "model.onnx").open("r+b") as file:
        file.write(b"damage")
    done = _edge(inside, "build")
    assert done.returncode == 2
    assert "'model.onnx' is not what was packed" in done.stderr
    assert "DAMAGED: model.onnx" in _bare(inside, bare_packages).stdout
    index = json.loads((inside / "bundle.json").read_text())
    (inside / "bundle.json").write_text(json.dumps(index | {"files": {"../../etc/passwd": "0"}}))
    done = _edge(inside, "build")
    assert "names a file outside the bundle" in done.stderr
    for text in ("{", "[]", "{}", '{"version": 2}', '{"version": 2, "files": []}'):
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


def test_what_tensorrt_would_misread_is_not_bundled(graph: Path, tmp_path: Path) -> None:
    """OpenVINO's spelling lies beside TensorRT's, and TensorRT takes its uint8 for int8."""
    with pytest.raises(CheckFailedError, match="breaks rule 'type'") as caught:
        make_bundle(graph.with_name(OPENVINO_GRAPH), tmp_path / "b.tar.gz")
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(TENSORRT_GRAPH)
    assert not (tmp_path / "b.tar.gz").exists()


def test_another_engine_is_not_run_from_a_bundle(unpacked: Path) -> None:
    done = _edge(unpacked, "run", "cam0", "--engine", "other.engine")
    assert done.returncode == 2
    assert "leave --engine out" in done.stderr


def test_an_engine_is_bundled_by_its_graph(
    int8_build: BuildResult, streets: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    frames = select_frames(Cityscapes(streets), 1)
    config: dict[str, Any] = {"frames": frames.sha256, "min_agreement": 0.5, "check_frames": 1}
    assert int8_build.quantized is not None
    engine: Artifact = BuildTensorRTStage(
        BuildTensorRTConfig(
            precision="int8+fp16", flavour="tensorrt-rtx", graph=TENSORRT_GRAPH, **config
        ),
        Store(tmp_path / "store"), frames,
    ).run(int8_build.quantized, int8_build.graph)  # fmt: skip
    made = make_bundle(engine.path, tmp_path / "b.tar.gz")
    with tarfile.open(made.path) as archive:
        member = archive.extractfile("engine/bundle.json")
        assert member is not None
        index = json.loads(member.read())
    assert index["model"]["precision"] == "int8+fp16"
    assert index["model"]["output"] == "logits"
    assert index["model"]["preset"] == "tiny"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.onnx", "does not exist"),
        ("stray.onnx", "has no manifest beside it"),
        ("engine.xml", "cannot be bundled: name a TensorRT engine"),
    ],
)
def test_what_cannot_be_bundled_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    if name != "absent.onnx":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=said):
        make_bundle(tmp_path / name, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_the_wheel_list_is_the_projects() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.partition("\ndependencies = [")[2].partition("]")[0]
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
