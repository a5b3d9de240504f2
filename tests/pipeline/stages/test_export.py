"""The exported graph against torch, and float64 as the judge where float32 cannot tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from models.locality import inject_locality
from models.segmenter import BgrFrames
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.lowering.network import lower
from pipeline.stages.export import NOISE, compare_with_float64, compare_with_torch
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
