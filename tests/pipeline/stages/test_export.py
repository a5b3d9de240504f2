"""The exported graph against torch, and float64 as the judge where float32 cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from calibration.cityscapes import Cityscapes
from calibration.frames import select_frames
from models.locality import inject_locality
from models.segmenter import BgrFrames
from pipeline.artifact import Artifact, checkpoint_artifact
from pipeline.engines.base import FrameBatch, OutputBatch
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import CheckFailedError
from pipeline.lowering.network import lower
from pipeline.stages import export
from pipeline.stages.export import (
    NOISE,
    ExportConfig,
    ExportStage,
    compare_with_float64,
    compare_with_torch,
)
from pipeline.stages.inject import InjectConfig, InjectStage
from pipeline.store import Store
from tests.models.helpers import tiny_segmenter

FRAMES = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)


def _graph(path: Path, *, wrong: float = 0.0) -> Path:
    """The tiny network's graph; ``wrong`` scales its classifier by 1 + wrong."""
    graph = lower(
        inject_locality(tiny_segmenter()).model, batch=1, height=64, width=64, opset=17, metadata={}
    )
    (kernel,) = [t for t in graph.graph.initializer if t.name == "head.classifier.weight"]
    kernel.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1 + wrong), kernel.name)
    )
    onnx.save(graph, path)
    return path


def test_float64_finds_float32_as_near_in_the_graph_as_in_torch(tmp_path: Path) -> None:
    judge = BgrFrames(tiny_segmenter()).eval()
    with OnnxRuntimeEngine(_graph(tmp_path / "model.onnx")) as engine:
        assert compare_with_torch(engine, judge, [FRAMES]).logits < 1e-5
        found = compare_with_float64(engine, judge, FRAMES)
        with torch.inference_mode():
            exact = judge(torch.from_numpy(FRAMES)).numpy()
        assert exact.dtype == np.float64
        gap = engine.infer(FRAMES) - exact
    assert found.error == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(exact), rel=1e-9)
    assert 0 < found.error <= NOISE * found.noise < 1e-4


def test_float64_tells_a_wrong_graph_from_rounding(tmp_path: Path) -> None:
    """A classifier that is off by 1e-4, the size of what a very deep network rounds."""
    judge = BgrFrames(tiny_segmenter()).eval()
    with OnnxRuntimeEngine(_graph(tmp_path / "model.onnx", wrong=1e-4)) as engine:
        found = compare_with_float64(engine, judge, FRAMES)
    assert found.error > 5e-5
    assert found.error > NOISE * found.noise


@pytest.fixture
def stage(tiny_checkpoint: Path, streets: Path, tmp_path: Path) -> Callable[[], Artifact]:
    """Runs injection and export of the tiny network."""

    def run() -> Artifact:
        store = Store(tmp_path / "store")
        source = checkpoint_artifact(tiny_checkpoint)
        deploy = InjectStage(InjectConfig(form="full"), store).run(source)
        frames = select_frames(Cityscapes(streets), 4)
        config = ExportConfig(batch=1, height=64, width=64, opset=17)
        return ExportStage(config, store, frames).run(deploy, source)

    return run


def test_a_graph_that_is_not_the_network_is_no_artifact(
    stage: Callable[[], Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage().facts["error"] < 1e-5

    def wrong(*args: object, **options: object) -> onnx.ModelProto:
        graph = lower(*args, **options)  # type: ignore[arg-type]  # as they came
        (kernel,) = [t for t in graph.graph.initializer if t.name == "head.classifier.weight"]
        values = numpy_helper.to_array(kernel) * np.float32(1.001)
        kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
        return graph

    monkeypatch.setattr(export, "lower", wrong)
    monkeypatch.setattr(ExportStage, "version", 99)
    with pytest.raises(CheckFailedError, match="the exported graph is not the network"):
        stage()


def test_a_graph_that_is_right_on_one_frame_only_is_no_artifact(
    stage: Callable[[], Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """float64 judges the first stack alone, and must not excuse the others."""
    infer = OnnxRuntimeEngine.infer
    seen: list[int] = []

    def later_wrong(self: OnnxRuntimeEngine, frames: FrameBatch) -> OutputBatch:
        seen.append(0)
        found = infer(self, frames)
        return -found if 1 < len(seen) <= 4 else found  # float64 comes fifth, on the first again

    monkeypatch.setattr(OnnxRuntimeEngine, "infer", later_wrong)
    with pytest.raises(CheckFailedError, match="the exported graph is not the network"):
        stage()
    assert len(seen) == 5
