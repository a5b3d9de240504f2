"""Finding the node at which an engine leaves its graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.build import BuildResult
from pipeline.divergence import Cut, cut_after, first_divergence, run_exact, trace
from pipeline.errors import EngineError
from tests.qdq_graphs import run_exact as run_whole


@pytest.fixture(scope="module")
def graph(int8_build: BuildResult) -> onnx.ModelProto:
    assert int8_build.quantized is not None
    return onnx.load(int8_build.quantized.path)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3), np.uint8)


def uncut(graph: onnx.ModelProto, *tensors: str) -> list[np.ndarray]:
    """The logits and these tensors of the whole graph, read from one run of all its nodes."""
    whole = onnx.ModelProto()
    whole.CopyFrom(graph)
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return run_whole(whole, {graph.graph.input[0].name: image()})


def test_a_cut_is_the_graph_up_to_there(graph: onnx.ModelProto, tmp_path: Path) -> None:
    tensors = ("conv_embedding.relu", "stages.1.0.add1", "stages.3.0.add2")
    wanted = dict(zip(("logits", *tensors), uncut(graph, *tensors), strict=True))
    assert wanted["conv_embedding.relu"].shape == (1, 4, 16, 32)
    assert wanted["logits"].shape == (1, 19, 16, 32)
    sizes = []
    for name in (*tensors, "logits"):
        cut_after(graph, name, tmp_path / "cut.onnx")
        np.testing.assert_array_equal(run_exact(tmp_path / "cut.onnx", image()), wanted[name])
        sizes.append(len(onnx.load(tmp_path / "cut.onnx").graph.node))
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == len(graph.graph.node)


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
    """One that never sees a cut: it reads the tensor from a run of the whole graph."""
    nodes = ["conv_embedding", "stages.2.0.add1", "head.classifier.biased"]
    asked = []

    def runner(path: Path, _frames: np.ndarray) -> np.ndarray:
        (output,) = onnx.load(path).graph.output
        asked.append(output.name)
        return uncut(graph, output.name)[1]

    cuts = list(trace(graph, image(), runner, nodes))
    assert [c.node for c in cuts] == nodes
    assert len(set(asked)) == len(nodes)
    assert first_divergence(cuts) is None
    assert all(c.error == 0 for c in cuts)


def test_what_is_not_finite_diverges() -> None:
    assert first_divergence([Cut("a", "Conv", float("nan"), float("nan"))]) is not None


def test_what_cannot_be_executed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cut\.onnx' cannot be opened by ONNX Runtime") as caught:
        run_exact(tmp_path / "cut.onnx", image())
    assert "\n" not in str(caught.value)
