"""The lowered graph against torch, executed by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.numpy_helper import to_array

from calibration.quantize import FLOAT_PATTERNS, float_nodes
from models.errors import InputShapeError, ModelError
from models.locality import inject_locality
from models.segmenter import PRESETS, BgrFrames, Segmenter, build_segmenter
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.lowering.cost import multiply_adds
from pipeline.lowering.network import lower
from pipeline.lowering.resampling import bilinear_matrix, pooling_matrix
from tests.models.helpers import randomise, tiny_segmenter


def frames(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, height, width, 3), np.uint8)


def difference(
    model: Segmenter, form: str, batch: int, height: int, width: int, folder: Path, opset: int = 17,
    *, convolve: bool = False,
) -> float:  # fmt: skip
    """Largest |graph - torch| over largest |torch|, from the training form to the lowered one."""
    graph = lower(
        inject_locality(model, form).model, batch=batch, height=height, width=width, opset=opset,
        metadata={}, convolve=convolve,
    )  # fmt: skip
    onnx.save(graph, folder / "m.onnx")
    x = frames(batch, height, width)
    with OnnxRuntimeEngine(folder / "m.onnx", threads=1) as engine:
        got = engine.infer(x)
    with torch.no_grad():
        want = BgrFrames(model)(torch.from_numpy(x)).numpy()
    assert got.shape == want.shape == (batch, 19, height // 4, width // 4)
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("form", ["full", "split"])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (1, 64, 96), (2, 96, 64)])
def test_the_graph_is_the_network(
    tmp_path: Path, form: str, batch: int, height: int, width: int
) -> None:
    assert difference(tiny_segmenter(), form, batch, height, width, tmp_path) < 1e-5


@pytest.mark.parametrize("form", ["full", "split"])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (1, 64, 96), (2, 96, 64)])
def test_the_graph_for_cpus_without_vnni_is_the_network_too(
    tmp_path: Path, form: str, batch: int, height: int, width: int
) -> None:
    model = tiny_segmenter()
    assert difference(model, form, batch, height, width, tmp_path, convolve=True) < 1e-5
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = {
        name: [node.op_type for node in graph.node if node.name == f"{name}.fc3"]
        for name, _block in model.backbone.repmlp_blocks()
    }
    sets = {name: block.sets for name, block in model.backbone.repmlp_blocks()}
    assert kinds == {n: ["Conv" if sets[n] == 1 else "MatMul"] for n in kinds}
    assert {1} < set(sets.values())


@pytest.mark.parametrize("opset", [17, 18, 19])
def test_every_opset_gives_the_same(tmp_path: Path, opset: int) -> None:
    assert difference(tiny_segmenter(), "full", 1, 64, 64, tmp_path, opset) < 1e-5


@pytest.mark.parametrize("name", ["edge-s", "edge-m"])
def test_edge_presets_lower_exactly(tmp_path: Path, name: str) -> None:
    model = randomise(build_segmenter(PRESETS[name], seed=0)).eval()
    assert difference(model, "split", 1, 128, 256, tmp_path) < 1e-5


def test_the_input_is_frames_and_preprocessing_is_folded() -> None:
    graph = lower(
        inject_locality(tiny_segmenter()).model, batch=1, height=32, width=64, opset=17, metadata={}
    ).graph
    value = graph.input[0].type.tensor_type
    assert value.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in value.shape.dim] == [1, 32, 64, 3]
    kinds = [node.op_type for node in graph.node]
    # Cast, moves, convolution: nothing subtracts a mean or divides by a deviation.
    assert kinds[:4] == ["Cast", "Reshape", "Transpose", "Conv"]
    assert "BatchNormalization" not in kinds


def test_every_batched_int8_matmul_has_its_own_bias_directly_after_it() -> None:
    model = lower(
        inject_locality(tiny_segmenter(), "split").model, batch=1, height=32, width=64, opset=17,
        metadata={},
    )  # fmt: skip
    graph = model.graph
    constants = {t.name: len(t.dims) for t in graph.initializer}
    batched = [
        node
        for node in graph.node
        if node.op_type == "MatMul"
        and constants.get(node.input[1]) == 3
        and node.name not in float_nodes(model, FLOAT_PATTERNS)
    ]
    assert batched
    for node in batched:
        (reader,) = [n for n in graph.node if node.output[0] in n.input]
        assert reader.op_type == "Add"
        assert reader.input[1] in constants


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_no_bias_after_a_batched_matmul_is_even_or_holds_zeros(value: float) -> None:
    """OpenVINO would rewrite the Add and compute garbage; the graph stays equal to an ulp."""
    model = inject_locality(tiny_segmenter(), "split").model
    with torch.no_grad():
        for _name, block in model.backbone.repmlp_blocks():
            assert block.fc3.bias is not None
            block.fc3.bias.fill_(value)
    graph = lower(model, batch=1, height=32, width=64, opset=17, metadata={}).graph
    biases = [to_array(t) for t in graph.initializer if t.name.endswith("fc3.bias")]
    assert len(biases) == 4
    for bias in biases:
        assert bias.all()
        assert np.ptp(bias) > 0 or bias.size == 1
        np.testing.assert_allclose(bias, value, rtol=2e-7, atol=3e-9)


def test_nodes_are_called_after_their_modules() -> None:
    graph = lower(
        inject_locality(tiny_segmenter()).model, batch=1, height=32, width=32, opset=17, metadata={}
    ).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {
        "conv_embedding",
        "stages.0.0.repmlp_block.fc3",
        "head.fusion",
        "head.classifier",
    } <= set(names)


def test_train_form_sizes_and_opsets_that_cannot_be_are_refused() -> None:
    deploy = inject_locality(tiny_segmenter()).model
    with pytest.raises(ModelError, match="train form"):
        lower(tiny_segmenter(), batch=1, height=32, width=32, opset=17, metadata={})
    with pytest.raises(InputShapeError, match="nearest"):
        lower(deploy, batch=1, height=33, width=32, opset=17, metadata={})
    with pytest.raises(ModelError, match="opset"):
        lower(deploy, batch=1, height=32, width=32, opset=20, metadata={})


@given(st.integers(1, 70), st.integers(1, 6))
def test_pooling_matrix_is_adaptive_average_pooling(size: int, bins: int) -> None:
    if bins > size:
        bins = size
    x = torch.arange(size, dtype=torch.float64).square()
    want = torch.nn.functional.adaptive_avg_pool1d(x[None, None], bins)[0, 0].numpy()
    np.testing.assert_allclose(pooling_matrix(size, bins) @ x.numpy(), want, rtol=1e-12)


@given(st.integers(1, 40), st.integers(1, 90))
def test_bilinear_matrix_is_half_pixel_interpolation(size: int, target: int) -> None:
    x = torch.arange(size, dtype=torch.float64).square()
    want = torch.nn.functional.interpolate(
        x[None, None], target, mode="linear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(
        bilinear_matrix(size, target) @ x.numpy(), want, rtol=1e-9, atol=1e-9
    )


def test_multiply_adds_are_counted_by_hand() -> None:
    graph = lower(
        inject_locality(tiny_segmenter()).model, batch=1, height=64, width=64, opset=17, metadata={}
    )
    costs = multiply_adds(graph)
    assert costs["conv_embedding"] == 16 * 16 * 4 * 3 * 16
    assert costs["stages.0.0.repmlp_block.fc3"] == 4 * 4 * 64 * 64  # patches x channels x 8^2 x 8^2
    assert costs["stages.1.0.repmlp_block.fc3"] == 4 * 8 * 16 * 16
    assert costs["downsample.0.reduce"] == 8 * 8 * 8 * 9
    assert costs["head.fusion"] == 16 * 16 * 8 * (4 * 8) * 9


def test_zeros_that_a_spelling_pads_with_are_no_multiply_adds() -> None:
    model = inject_locality(build_segmenter(PRESETS["edge-s"], seed=0)).model
    costs = multiply_adds(lower(model, batch=1, height=128, width=256, opset=17, metadata={}))
    stem = PRESETS["edge-s"].backbone.stem
    assert costs["conv_embedding"] == 64 * 128 * stem * 3 * 2 * 2  # a kernel of 2x2, one square
    width, bins = PRESETS["edge-s"].width, sum(b * b for b in (1, 2, 3, 6))
    # Each branch spreads from its own bins, and from at most four of them to a place.
    assert costs["head.ppm.branches.spread"] <= 4 * width * 4 * 4 * 8
    assert costs["head.ppm.branches.conv"] == 4 * width * 128 * bins
