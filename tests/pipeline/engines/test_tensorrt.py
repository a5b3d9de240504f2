"""Opening TensorRT engines where something is missing: one line each, and TensorRT never asked."""

from __future__ import annotations

import sys
from importlib import invalidate_caches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.artifact import Manifest, TensorSpec
from pipeline.engines import tensorrt as module
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.tensorrt import open_tensorrt
from pipeline.engines.trt_modules import import_flavour, installed_flavours
from pipeline.engines.trt_preflight import this_platform
from pipeline.errors import ArtifactError, EngineError, MissingDependencyError

ADA = GpuFacts("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30, (13, 0))


def _manifest(**built: Any) -> Manifest:
    facts = {
        "precision": "int8",
        "preset": "edge-s",
        "built_with": {
            "flavour": "tensorrt-rtx", "version": "1.7.1.116", "cuda": 13,
            "platform": this_platform(), "capabilities": [],
        } | built,
    }  # fmt: skip
    frames = TensorSpec(name="frames", dtype="uint8", shape=(1, 512, 1024, 3), layout="NHWC")
    return Manifest(
        kind="engine", main="m.engine", files={"m.engine": "0"}, key="0", inputs=(frames,),
        facts=facts,
    )  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "m.engine"
    path.write_bytes(b"not to be handed to TensorRT")
    return path


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the driver answered; whatever opens the engine then would crash on that file."""
    monkeypatch.setattr(module, "find_gpu", lambda: ADA)


def test_a_flavour_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="'tensorrt', which is not installed") as e:
        import_flavour("tensorrt", why="this test")
    assert e.value.hint == "pip install -e '.[tensorrt]' in this project's folder"


def test_a_flavour_whose_libraries_are_missing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=r"libraries do not load: libnvinfer\.so") as caught:
        import_flavour("tensorrt", why="this test")
    assert caught.value.hint


def test_a_folder_that_a_removed_wheel_left_is_no_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match="only half installed: its module 'tensorrt' is empty"):
        import_flavour("tensorrt", why="this test")
    monkeypatch.delitem(sys.modules, "tensorrt")


def test_a_flavour_that_needs_another_package_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("import tensorrt_bindings_that_are_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match="No module named 'tensorrt_bindings_that_are"):
        import_flavour("tensorrt", why="this test")


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(
    ("there", "said"),
    [
        (SimpleNamespace(__version__="1.7.1.116"), "TensorRT for RTX 1.7.1.116"),
        (None, "TensorRT for RTX, which does not load"),
    ],
)
def test_an_engine_of_the_other_flavour_is_one_line_with_both_sides(
    plan: Path, monkeypatch: pytest.MonkeyPatch, there: Any, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", there)
    monkeypatch.setattr(module, "installed_flavours", lambda: ["tensorrt-rtx"])
    with pytest.raises(ArtifactError) as caught:
        open_tensorrt(plan, _manifest(flavour="tensorrt", version="10.3.0"))
    assert str(caught.value) == f"engine 'm.engine' was built by TensorRT 10.3.0, here is {said}"
    assert caught.value.hint is not None
    assert "--backend tensorrt --precision int8 --preset edge-s --shape 512x1024" in (
        caught.value.hint
    )


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(
    ("built", "said"),
    [
        ({"version": "1.6.0.1"}, "was built by TensorRT for RTX 1.6.0.1, here is"),
        ({"capabilities": ["8.6"]}, "was built for compute capability 8.6, this is 8.9"),
        ({"platform": "linux-riscv"}, "was built on linux-riscv, this is"),
    ],
)
def test_preflight_comes_before_tensorrt(plan: Path, built: dict[str, Any], said: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    manifest = _manifest(**({"version": trt.__version__} | built))
    with pytest.raises(ArtifactError, match=said):
        open_tensorrt(plan, manifest)


@pytest.mark.usefixtures("with_gpu")
def test_host_code_is_refused_unless_allowed(plan: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    manifest = _manifest(version=trt.__version__, version_compatible=True)
    with pytest.raises(EngineError, match="carries host code, which is not run by default"):
        open_tensorrt(plan, manifest)


@pytest.mark.usefixtures("with_gpu")
def test_a_missing_cuda_package_is_named(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    monkeypatch.setattr("pipeline.engines.cuda_memory.installed", lambda package: False)
    with pytest.raises(MissingDependencyError, match="'cuda-python', which is not installed") as e:
        open_tensorrt(plan, _manifest(version=trt.__version__))
    assert e.value.hint == "pip install -e '.[cuda]' in this project's folder"


def test_installed_flavours_are_found_without_loading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules that cannot be loaded, on a path that holds no others."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert installed_flavours() == []
    for name, found in (
        ("tensorrt_rtx", ["tensorrt-rtx"]),
        ("tensorrt", ["tensorrt", "tensorrt-rtx"]),
    ):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('it was loaded')")
        invalidate_caches()
        assert installed_flavours() == found
