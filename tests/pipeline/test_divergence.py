"""Finding the node at which an engine leaves its graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.build import BuildResult
from pipeline.divergence import Cut, cut_after, first_divergence, run_exact, trace
from pipeline.errors import EngineError


@pytest.fixture(scope="module")
def graph(int8_build: BuildResult) -> onnx.ModelProto:
    assert int8_build.quantized is not None
    return onnx.load(int8_build.quantized.path)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3), np.uint8)


def test_a_cut_is_the_graph_up_to_there(graph: onnx.ModelProto, tmp_path: Path) -> None:
    cut_after(graph, "conv_embedding.relu", tmp_path / "cut.onnx")
    out = run_exact(tmp_path / "cut.onnx", image())
    assert out.shape == (1, 4, 16, 32)
    cut = onnx.load(tmp_path / "cut.onnx")
    assert len(cut.graph.node) < len(graph.graph.node)
    cut_after(graph, "logits", tmp_path / "whole.onnx")
    assert run_exact(tmp_path / "whole.onnx", image()).shape == (1, 19, 16, 32)


def test_the_first_node_that_goes_wrong_is_found(graph: onnx.ModelProto) -> None:
    """A runner that spoils everything from one node on."""
    guilty = "stages.1.0.ffn_block.ffn_fc1"

    def runner(path: Path, frames: np.ndarray) -> np.ndarray:
        out = run_exact(path, frames)
        cut = onnx.load(path)
        names = {node.name for node in cut.graph.node}
        return out * 1.5 if guilty in names else out

    nodes = [
        "conv_embedding",
        "stages.0.0.add2",
        "stages.1.0.add1",
        guilty,
        "stages.1.0.add2",
        "head.fusion",
    ]
    cuts = list(trace(graph, image(), runner, nodes))
    assert [c.node for c in cuts] == nodes
    found = first_divergence(cuts)
    assert found is not None
    assert found.node == guilty
    assert found.error == pytest.approx(0.5, rel=1e-3)


def test_an_honest_runner_never_diverges(graph: onnx.ModelProto) -> None:
    cuts = list(trace(graph, image(), run_exact, ["conv_embedding", "head.classifier"]))
    assert first_divergence(cuts) is None
    assert all(c.error == 0 for c in cuts)


def test_what_is_not_finite_diverges() -> None:
    assert first_divergence([Cut("a", "Conv", float("nan"), float("nan"))]) is not None


def test_what_cannot_be_executed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cut\.onnx' cannot be opened by ONNX Runtime") as caught:
        run_exact(tmp_path / "cut.onnx", image())
    assert "\n" not in str(caught.value)
