"""An unpacked bundle, used as its user would: by running what is in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import invalidate_caches, metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import pytest

from pipeline import bundle_build
from pipeline.artifact import Manifest, open_artifact
from pipeline.bundle import make_bundle
from pipeline.bundle_build import BuildRequest
from pipeline.engines import trt_trial
from pipeline.engines.base import FrameBatch, OutputBatch
from pipeline.engines.cuda_driver import has_gpu
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.rebuild import recorded_command
from pipeline.engines.tensorrt import built_with
from pipeline.engines.trt_preflight import Flavour
from pipeline.errors import CheckFailedError, EngineError
from scripts import edge_box
from tests.pipeline.boxes import bare, edge, unpack


def test_on_a_bare_python_it_says_what_is_missing(unpacked: Path, bare_packages: Path) -> None:
    done = bare(unpacked, bare_packages)
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
        done = bare(unpacked, bare_packages, *words)
        assert done.returncode == 2
        first = done.stderr.splitlines()[0]
        assert first.startswith("error: ")
        assert said in first
        assert "Traceback" not in done.stderr


def test_the_engine_is_built_from_it(unpacked: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    done = edge(unpacked, "build", "--flavour", "tensorrt-rtx", "--strict-int8")
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
    assert recorded_command(built.manifest) == (
        f"cd {unpacked} && python3 edge.py build --flavour tensorrt-rtx --strict-int8"
    )
    assert built.facts["executed"]["gemm int8"] > 0
    assert "quantize" in built.manifest.provenance
    if not has_gpu():
        done = edge(unpacked, "run", "streets", "--max-frames", "1", "--headless")
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
    done = edge(unpacked, "build", "--flavour", "tensorrt-rtx", "--timing-cache")
    assert done.returncode == 2
    assert "has no timing cache" in done.stderr
    assert "Traceback" not in done.stderr


def test_damage_is_found_before_anything_is_built(
    tensorrt_graph: Path, tmp_path: Path, bare_packages: Path
) -> None:
    inside = unpack(make_bundle(tensorrt_graph, tmp_path / "b.tar.gz"), tmp_path)
    with (inside / "model.onnx").open("r+b") as file:
        file.write(b"damage")
    done = edge(inside, "build")
    assert done.returncode == 2
    assert "'model.onnx' is not what was packed" in done.stderr
    assert "DAMAGED: model.onnx" in bare(inside, bare_packages).stdout
    index = json.loads((inside / "bundle.json").read_text())
    (inside / "bundle.json").write_text(
        json.dumps(index | {"files": index["files"] | {"../../etc/passwd": "0"}})
    )
    done = edge(inside, "build")
    assert "names a file outside the bundle" in done.stderr
    changes: list[dict[str, Any]] = [
        {"model": {}}, {"files": {}}, {"requirements": [3]}, {"version": "3"},
    ]  # fmt: skip
    for change in changes:
        (inside / "bundle.json").write_text(json.dumps(index | change))
        done = edge(inside, "check")
        assert done.returncode == 2, change
        assert "altered" in done.stderr
        assert "Traceback" not in done.stderr
    for text in ("{", "[]", "{}", '{"version": 3}', '{"version": 3, "files": []}'):
        (inside / "bundle.json").write_text(text)
        done = edge(inside, "check")
        assert done.returncode == 2
        assert "altered or half copied" in done.stderr
        assert "Traceback" not in done.stderr
    (inside / "bundle.json").write_text('{"version": 1}')
    assert "this bundle is of version 1" in edge(inside, "check").stderr
    (inside / "bundle.json").unlink()
    assert "there is no bundle here" in edge(inside, "check").stderr


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
    done = bare(inside, bare_packages)
    assert done.stderr == ""
    assert f"DAMAGED: {lost}" in done.stdout
    assert "next: copy the archive again and unpack it" in done.stdout
    assert done.returncode == 2


def test_another_engine_is_not_run_from_a_bundle(unpacked: Path) -> None:
    for words in (("--engine", "other.engine"), ("--eng=other.engine",), ("--e", "o.engine")):
        done = edge(unpacked, "run", "cam0", *words)
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
    about = {"rebuild": "python3 edge.py build", "bundle": edge_box.bundle_digest(index)}
    return BuildRequest(unpacked, index, engine, about, flavour="tensorrt-rtx")


@pytest.mark.parametrize("faithful", [True, False])
def test_an_engine_that_is_not_its_graph_is_not_written(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faithful: bool
) -> None:
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
        made = bundle_build.build_engine(_request(unpacked, engine), lambda _line: None)
        assert made.path == engine
        built = open_artifact(tmp_path / "m.engine.json")
        assert built.facts["agreement"]["graph"] == {
            "labels": 1.0, "worst_frame": 1.0, "frames": 3,
        }  # fmt: skip
        assert recorded_command(built.manifest) == "python3 edge.py build"
        assert made.told == ("100.00% of labels as its graph, on 3 frames",)
    else:
        with pytest.raises(CheckFailedError, match="the engine is not its graph") as caught:
            bundle_build.build_engine(_request(unpacked, engine), lambda _line: None)
        assert "--precision fp32" in str(caught.value.hint)
        assert "--min-agreement" in str(caught.value.hint)
        assert "--level" not in str(caught.value.hint)  # RTX has none
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_to_try_on_the_box_is_what_there_is(precision: str, flavour: Flavour) -> None:
    hint = bundle_build._departing_hint(precision, flavour)
    assert ("--level" in hint) == (flavour == "tensorrt")  # TensorRT for RTX refuses it
    assert ("--precision fp32" in hint) == (precision != "fp32")
    assert "a lower --min-agreement, which accepts one that departs from its graph" in hint


def test_an_engine_that_cannot_run_here_says_why(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)

    def none_here() -> NoReturn:
        raise EngineError("no NVIDIA driver, said the test")

    monkeypatch.setattr(trt_trial, "find_gpu", none_here)
    said: list[str] = []
    made = bundle_build.build_engine(_request(unpacked, tmp_path / "m.engine"), said.append)
    facts = open_artifact(tmp_path / "m.engine.json").facts
    assert (facts["agreement"], facts["not_executed"]) == (None, "no NVIDIA driver, said the test")
    assert "not compared with its graph" in made.warnings[-1]
    assert made.told == ()
    assert said[0].startswith("building with TensorRT for RTX")


@pytest.mark.parametrize(
    ("text", "found", "broken"),
    [
        (None, {}, []),
        ("__version__ = '10.3.0'", {"tensorrt": "10.3.0"}, []),
        ("raise ImportError('libnvinfer.so.10: cannot open')", {},
         ["tensorrt: libnvinfer.so.10: cannot open"]),
        ("raise OSError('bad library')", {}, ["tensorrt: bad library"]),
        ("import tensorrt_bindings_gone", {},
         ["tensorrt: No module named 'tensorrt_bindings_gone'"]),
    ],
)  # fmt: skip
def test_a_tensorrt_that_does_not_load_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    text: str | None, found: dict[str, str], broken: list[str],
) -> None:  # fmt: skip
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if text is not None:
        (tmp_path / "tensorrt.py").write_text(text)
    invalidate_caches()
    assert edge_box.tensorrt_flavours() == (found, broken)
    monkeypatch.setattr(edge_box, "cuda_package", lambda: ("pycuda", []))
    todo = edge_box.check_gpu("R36 (release)", whole=False)
    again = "--reinstall " if broken else ""
    assert todo == ([] if found else [f"sudo apt install {again}python3-libnvinfer"])
    assert [f"             does not load: {each}" for each in broken] == [
        line for line in capsys.readouterr().out.splitlines() if "does not load" in line
    ]
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


@pytest.mark.parametrize(
    ("pycuda", "bindings", "found", "broken"),
    [
        (None, None, None, []),
        ("raise ImportError('libcuda.so.1: cannot open')", None, None,
         ["pycuda: libcuda.so.1: cannot open"]),
        ("raise OSError('bad library')", "", "cuda-bindings", ["pycuda: bad library"]),
        ("import pytools_that_is_not_there", "", "cuda-bindings",
         ["pycuda: No module named 'pytools_that_is_not_there'"]),
        ("", "raise AssertionError('asked in vain')", "pycuda", []),
    ],
)  # fmt: skip
def test_a_cuda_package_counts_where_its_driver_part_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pycuda: str | None, bindings: str | None,
    found: str | None, broken: list[str],
) -> None:  # fmt: skip
    """The package ``pycuda`` is empty and loads anywhere; its ``driver`` needs the driver."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("cuda", "pycuda")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for folder, text in (("pycuda", pycuda), ("cuda/bindings", bindings)):
        if text is not None:
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "__init__.py").write_text("")
            (tmp_path / folder / "driver.py").write_text(text)
    invalidate_caches()
    package, trouble = edge_box.cuda_package()
    assert package == found  # without a version, as pip does not know of it
    assert trouble == broken
    for name in [n for n in sys.modules if n.split(".")[0] in ("cuda", "pycuda")]:
        monkeypatch.delitem(sys.modules, name)


def test_an_interrupted_check_is_no_traceback(unpacked: Path) -> None:
    """Finding out which packages load takes a second or two."""
    program = (
        "import os, runpy, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pydantic':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "runpy.run_path('edge.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=unpacked, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == ""
