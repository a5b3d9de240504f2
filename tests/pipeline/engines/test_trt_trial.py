"""What becomes of an engine just built: run, not to be run here, or a build that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Manifest
from pipeline.engines import tensorrt, trt_trial
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.trt_preflight import UnfitError, this_platform
from pipeline.engines.trt_trial import open_fresh
from pipeline.errors import ArtifactError, EdgeError, EngineError, MissingDependencyError

ADA = GpuFacts("NVIDIA L4", (8, 9), 24 << 30, (13, 0))
PATH = Path("m.engine")


def _manifest(**built: Any) -> Manifest:
    facts = {
        "built_with": {
            "flavour": "tensorrt-rtx", "version": "1.7.1.116", "cuda": 13,
            "platform": this_platform(), "capabilities": [],
        } | built,
    }  # fmt: skip
    return Manifest(kind="engine", main="m.engine", files={}, key="", facts=facts)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what opening the engine raises, on a machine with a GPU."""
    monkeypatch.setattr(trt_trial, "find_gpu", lambda: ADA)

    def ends_in(error: EdgeError) -> None:
        def fail(*_given: Any, **_more: Any) -> None:
            raise error

        monkeypatch.setattr(trt_trial, "open_tensorrt", fail)

    return ends_in


@pytest.mark.parametrize(
    "error",
    [
        UnfitError("engine 'm.engine' was built for 8.6, this is 8.9", hint="build it here"),
        MissingDependencyError("cuda-python", "cuda", why="running it"),
    ],
)
def test_what_cannot_be_tried_here_says_why(opening: Any, error: EdgeError) -> None:
    opening(error)
    assert open_fresh(PATH, _manifest()) == f"{error} (NVIDIA L4)"


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (EngineError("out of GPU memory: no room", hint="--workspace 640"), "--workspace 640"),
        (EngineError("engine 'm.engine' could not be run: a reason"), None),
        (ArtifactError("engine 'm.engine' is not the one its manifest describes"), None),
        # What it says to do was just done.
        (ArtifactError("it is no engine, or is damaged", hint="build it here"), None),
    ],
)
def test_what_fails_on_its_gpu_is_an_error_with_the_reason(
    opening: Any, flavour: str, error: EdgeError, hint: str | None
) -> None:
    """Of TensorRT for RTX too, which needs no GPU to build: here is one."""
    opening(error)
    with pytest.raises(EngineError) as caught:
        open_fresh(PATH, _manifest(flavour=flavour))
    assert str(caught.value) == (
        f"the engine was built and does not run on this GPU (NVIDIA L4): {error}"
    )
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("built", "gpu", "said"),
    [
        ({"capabilities": ["8.6"]}, ADA, "was built for compute capability 8.6, this is 8.9"),
        ({}, GpuFacts("H200", (9, 0), 1, (13, 0)), "or newer than 12.1, this is 9.0"),
        ({}, GpuFacts("L4", (8, 9), 1, (11, 8)), "needs a driver for CUDA"),
    ],
)
def test_an_engine_for_other_gpus_or_drivers_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, built: dict[str, Any], gpu: GpuFacts, said: str
) -> None:
    """By the real preflight, which asks before TensorRT and CUDA are."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    for module in (tensorrt, trt_trial):
        monkeypatch.setattr(module, "find_gpu", lambda: gpu)
    found = open_fresh(PATH, _manifest(version=trt.__version__, **built))
    assert isinstance(found, str)
    assert said in found
