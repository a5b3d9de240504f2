"""The training form lowered, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models.errors import ModelError
from models.segmenter import BgrFrames
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.lowering.network import lower
from tests.models.helpers import tiny_segmenter


@pytest.mark.parametrize("batch", [1, 2])
def test_branches_apart_are_the_network(batch: int, tmp_path: Path) -> None:
    model = tiny_segmenter()
    graph = lower(
        model, batch=batch, height=64, width=96, opset=17, metadata={}, apart=True
    )  # fmt: skip
    onnx.save(graph, tmp_path / "m.onnx")
    x = np.random.default_rng(0).integers(0, 256, (batch, 64, 96, 3), np.uint8)
    with OnnxRuntimeEngine(tmp_path / "m.onnx", threads=1) as engine:
        got = engine.infer(x)
    with torch.no_grad():
        want = BgrFrames(model)(torch.from_numpy(x)).numpy()
    assert np.abs(got - want).max() / np.abs(want).max() < 1e-5
    names = {node.name for node in graph.graph.node}
    for part in ("fc3", "repconv1", "repconv3", "sum1", "sum3"):
        assert f"stages.2.0.repmlp_block.{part}" in names


def test_it_is_not_lowered_unasked() -> None:
    with pytest.raises(ModelError, match=r"stages\.0\.0\.repmlp_block is in train form"):
        lower(tiny_segmenter(), batch=1, height=64, width=64, opset=17, metadata={})
