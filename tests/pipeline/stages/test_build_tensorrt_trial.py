"""The TensorRT stage where there is a GPU: what it builds is run, and what comes of that."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.frames import FrameList
from pipeline.build import BuildResult
from pipeline.engines.base import FrameBatch, OutputBatch
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.trt_preflight import UnfitError
from pipeline.errors import CheckFailedError, EngineError
from pipeline.stages.build_tensorrt import GRAPH
from pipeline.store import Store
from pipeline.verify import departing_hint
from tests.pipeline.stages.tensorrt_stage import run_stage, stage_of

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)


def a_gpu_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = GpuFacts("NVIDIA L4", (8, 9), 24 << 30, (12, 6))
    for module in ("stages.build_tensorrt", "engines.trt_trial"):
        monkeypatch.setattr(f"pipeline.{module}.find_gpu", lambda: ada)


def test_a_gpu_that_appears_makes_it_another_build(
    store: Store, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what was never executed is executed then, not found in the store."""
    stage = stage_of(store, frames)
    assert int8_build.quantized is not None
    inputs = (int8_build.quantized, int8_build.graph)
    before = stage.key(inputs)
    a_gpu_appears(monkeypatch)
    assert stage.key(inputs) != before


def test_a_gpu_that_appears_runs_it_and_may_run_its_host_code(
    tmp_path: Path, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version-compatible engine carries code, which only its own build knows to be harmless."""
    asked: list[bool] = []

    def refuse(_path: Path, _manifest: Any, *, allow_host_code: bool = False) -> None:
        asked.append(allow_host_code)
        raise UnfitError("engine 'm' was built for another GPU")

    a_gpu_appears(monkeypatch)
    monkeypatch.setattr("pipeline.engines.trt_trial.open_tensorrt", refuse)
    built = run_stage(Store(tmp_path), frames, int8_build)
    assert asked == [True]
    assert built.facts["agreement"] is None
    assert built.facts["not_executed"] == "engine 'm' was built for another GPU (NVIDIA L4)"


def test_an_engine_that_fails_on_its_gpu_is_not_published(
    tmp_path: Path, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _manifest: Any, *, allow_host_code: bool = False) -> None:
        raise EngineError("out of GPU memory: engine 'm' has no room", hint="--workspace 640")

    a_gpu_appears(monkeypatch)
    monkeypatch.setattr("pipeline.engines.trt_trial.open_tensorrt", refuse)
    with pytest.raises(EngineError, match="out of GPU memory") as caught:
        run_stage(Store(tmp_path), frames, int8_build)
    assert caught.value.hint == "--workspace 640"
    assert not list(tmp_path.rglob("*.engine"))


def test_a_package_that_appears_makes_it_another_build(
    store: Store, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU that appears does: without one, the engine was not executed either."""
    stage = stage_of(store, frames)
    assert int8_build.quantized is not None
    inputs = (int8_build.quantized, int8_build.graph)
    a_gpu_appears(monkeypatch)
    keys = []
    for there in (False, True):
        monkeypatch.setattr(
            "pipeline.engines.cuda_memory.installed", lambda _package, there=there: there
        )
        keys.append(stage.key(inputs))
    assert keys[0] != keys[1]


@pytest.mark.parametrize("labels", [True, False])
def test_an_engine_that_runs_is_compared_frame_by_frame(
    tmp_path: Path, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch,
    left_open: list[str], labels: bool,
) -> None:  # fmt: skip
    """Its own graph stands for it, where there is no GPU."""
    module = "pipeline.stages.build_tensorrt"
    monkeypatch.setattr(
        f"{module}.open_fresh", lambda path, _manifest: OnnxRuntimeEngine(path.with_name(GRAPH))
    )
    precision = "int8" if labels else "int8+fp16"  # whose graph is compared before, too
    run = partial(run_stage, frames=frames, build=int8_build, labels=labels, precision=precision)
    found = run(Store(tmp_path / "all")).facts["agreement"]
    assert left_open == []
    assert found["graph"]["labels"] == found["graph"]["worst_frame"] == 1
    assert found["graph"]["frames"] == 2
    # As with every engine: the dearer the network, the fewer frames.
    monkeypatch.setattr("pipeline.verify._CHECK_MULTIPLY_ADDS", 1)
    fewer = run(Store(tmp_path / "few")).facts["agreement"]
    assert fewer["graph"]["frames"] == 1


def test_an_engine_that_is_not_its_graph_is_refused_with_what_to_try(
    store: Store, frames: FrameList, int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mirrored(OnnxRuntimeEngine):
        def infer(self, frames: FrameBatch) -> OutputBatch:
            return super().infer(np.ascontiguousarray(frames[:, :, ::-1]))

    module = "pipeline.stages.build_tensorrt"
    monkeypatch.setattr(
        f"{module}.open_fresh", lambda path, _manifest: Mirrored(path.with_name(GRAPH))
    )
    with pytest.raises(CheckFailedError, match="the int8 engine is not its graph") as caught:
        run_stage(store, frames, int8_build, min_agreement=1.0)
    assert caught.value.hint == departing_hint("int8")
