"""FC3's weights rounded so that their errors cancel: which constants change, and what it gains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from calibration.compensation import MOST_FRAMES, compensate
from calibration.errors import CalibrationDataError
from calibration.quantize import QuantizeSettings, calibrate, quantize
from calibration.streets import StreetScene
from models.checkpoints import load_into, shipped_checkpoint
from models.locality import inject_locality
from models.segmenter import PRESETS, Segmenter, build_segmenter
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.lowering.network import lower
from tests.models.helpers import tiny_segmenter

SIZE = (128, 128)
SETTINGS = QuantizeSettings(estimator="minmax", rounding="nearest")


def street(seed: int, count: int) -> list[np.ndarray]:
    scene = StreetScene(seed=seed, height=SIZE[0], width=SIZE[1])
    return [np.ascontiguousarray(scene.render(40 * i).bgr[None]) for i in range(count)]


def crushed() -> Segmenter:
    """A network whose long-range weights one scale would round away."""
    model = tiny_segmenter()
    with torch.no_grad():
        for _name, block in model.backbone.repmlp_blocks():
            block.fc3.weight.mul_(0.01)
    return model


def lowered(*, convolve: bool = False) -> onnx.ModelProto:
    model = inject_locality(crushed(), "full").model
    return lower(
        model, batch=1, height=SIZE[0], width=SIZE[1], opset=17, metadata={}, convolve=convolve
    )


@pytest.fixture(scope="module")
def floating() -> onnx.ModelProto:
    return lowered()


@pytest.fixture(scope="module")
def nearest(floating: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(floating, street(1, 8), 8, SETTINGS)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def output(model: onnx.ModelProto, name: str, frame: np.ndarray, folder: Path) -> np.ndarray:
    """Of one node, executed exactly."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    node = next(node for node in probed.graph.node if node.name == name)
    del probed.graph.output[:]
    probed.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    onnx.save(probed, folder / "probed.onnx")
    session = onnxruntime.InferenceSession(str(folder / "probed.onnx"), options)
    return np.asarray(session.run(None, {probed.graph.input[0].name: frame})[0])


def test_only_the_integers_of_fc3_change(
    floating: onnx.ModelProto, nearest: onnx.ModelProto
) -> None:
    model, found = compensate(nearest, floating, street(1, 8))
    assert [layer.layer for layer in found] == [f"stages.{i}.0.repmlp_block.fc3" for i in range(4)]
    assert list(model.graph.node) == list(nearest.graph.node)
    before, after = constants(nearest), constants(model)
    assert list(before) == list(after)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    kept = {layer.layer for layer in found if layer.kept == "compensated"}
    assert kept
    assert len(changed) == len(kept)
    for name in changed:
        assert any(layer in name for layer in kept)
        assert after[name].dtype == np.int8
        assert after[name].shape == before[name].shape
        assert np.abs(after[name].astype(int)).max() <= np.abs(before[name].astype(int)).max()


def test_what_it_says_of_a_layer_is_so_on_other_frames(
    floating: onnx.ModelProto, nearest: onnx.ModelProto, tmp_path: Path
) -> None:
    """The first block's product, computed with the float graph's input and each graph's weights."""
    model, found = compensate(nearest, floating, street(1, 8))
    first = found[0]
    assert first.kept == "compensated"
    assert first.compensated < 0.6 * first.nearest
    frame = street(9, 3)[2]
    node = next(node for node in floating.graph.node if node.name == first.layer)
    maker = next(n for n in floating.graph.node if node.input[0] in n.output)
    x = output(floating, maker.name, frame, tmp_path).astype(np.float64)
    wanted = x @ constants(floating)[node.input[1]].astype(np.float64)

    def error(graph: onnx.ModelProto) -> float:
        dq = next(
            n for n in graph.graph.node
            if n.op_type == "DequantizeLinear" and first.layer in n.name and "weight" in n.name
        )  # fmt: skip
        values = constants(graph)
        weights = values[dq.input[0]].astype(np.float64) * values[dq.input[1]]
        return float(np.linalg.norm(x @ weights - wanted) / np.linalg.norm(wanted))

    assert error(nearest) == pytest.approx(first.nearest, rel=0.5)
    assert error(model) == pytest.approx(first.compensated, rel=0.5)
    assert error(model) < 0.75 * error(nearest)


def test_the_logits_of_the_shipped_network_come_nearer_to_float(tmp_path: Path) -> None:
    model = build_segmenter(PRESETS["edge-s"], seed=0)
    load_into(model, shipped_checkpoint("edge-s"))
    floating = lower(
        inject_locality(model.eval(), "full").model, batch=1, height=SIZE[0], width=SIZE[1],
        opset=17, metadata={},
    )  # fmt: skip
    nearest = quantize(floating, street(1, 4), 4, SETTINGS)
    compensated, _found = compensate(nearest, floating, street(1, 4))
    unseen = street(9, 4)

    def run(graph: onnx.ModelProto) -> np.ndarray:
        onnx.save(graph, tmp_path / "model.onnx")
        with OnnxRuntimeEngine(tmp_path / "model.onnx") as engine:
            return np.stack([engine.infer(frame) for frame in unseen])

    wanted = run(floating)
    errors = [float(np.linalg.norm(run(graph) - wanted)) for graph in (nearest, compensated)]
    assert errors[1] < 0.8 * errors[0]


def test_a_product_spelled_as_a_convolution_is_rounded_alike(
    floating: onnx.ModelProto, nearest: onnx.ModelProto
) -> None:
    spelled = lowered(convolve=True)
    name = "stages.0.0.repmlp_block.fc3"
    assert next(n for n in spelled.graph.node if n.name == name).op_type == "Conv"
    model, found = compensate(quantize(spelled, street(1, 8), 8, SETTINGS), spelled, street(1, 8))
    plain, plainly = compensate(nearest, floating, street(1, 8))
    assert found[0].compensated == pytest.approx(plainly[0].compensated, rel=0.05)

    def integers(graph: onnx.ModelProto) -> np.ndarray:
        dq = next(
            n for n in graph.graph.node
            if n.op_type == "DequantizeLinear" and name in n.name and "weight" in n.name
        )  # fmt: skip
        return np.squeeze(constants(graph)[dq.input[0]]).astype(int)

    # Sums of another order tip a weight here and there.
    assert np.mean(integers(model) != integers(plain).T) < 0.02


def test_one_frame_will_do_and_many_are_not_all_looked_at(
    floating: onnx.ModelProto, nearest: onnx.ModelProto
) -> None:
    _model, found = compensate(nearest, floating, street(1, 1))
    assert found[0].kept == "compensated"
    frames = street(1, MOST_FRAMES)
    twice = [frame for frame in frames for _ in range(2)]
    assert compensate(nearest, floating, frames)[1] == compensate(nearest, floating, twice)[1]


def test_the_settings_say_which_rounding(
    floating: onnx.ModelProto, nearest: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = street(1, 8)
    monkeypatch.setattr("calibration.quantize.quantize", lambda *_args: nearest)
    assert calibrate(floating, frames, SETTINGS) == (nearest, [])
    both = compensate(nearest, floating, frames)
    assert calibrate(floating, frames, QuantizeSettings(estimator="minmax")) == both


def test_a_layer_left_in_float_is_left_alone(
    floating: onnx.ModelProto, nearest: onnx.ModelProto
) -> None:
    half = onnx.ModelProto()
    half.CopyFrom(nearest)
    name = "stages.0.0.repmlp_block.fc3"
    node = next(n for n in half.graph.node if n.name == name)
    weight = next(n for n in floating.graph.node if n.name == name).input[1]
    half.graph.initializer.append(next(t for t in floating.graph.initializer if t.name == weight))
    node.input[1] = weight
    model, found = compensate(half, floating, street(1, 2))
    assert [layer.layer for layer in found] == [f"stages.{i}.0.repmlp_block.fc3" for i in (1, 2, 3)]
    np.testing.assert_array_equal(constants(model)[weight], constants(floating)[weight])


def test_a_rounding_that_gains_nothing_on_other_frames_is_not_kept(
    floating: onnx.ModelProto, nearest: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that only the frames they were made from would like."""
    monkeypatch.setattr(
        "calibration.compensation.round_compensated",
        lambda weights, scale, limit, moments: np.zeros_like(weights),
    )
    model, found = compensate(nearest, floating, street(1, 8))
    assert {layer.kept for layer in found} == {"nearest"}
    assert model == nearest


def test_a_network_that_overflows_is_told_so(
    floating: onnx.ModelProto, nearest: onnx.ModelProto
) -> None:
    """Second moments beyond float32, though what is read is finite."""
    large = onnx.ModelProto()
    large.CopyFrom(floating)
    node = next(n for n in large.graph.node if n.name == "stages.0.0.repmlp_block.fc3")
    large.graph.initializer.append(numpy_helper.from_array(np.float32(1e25), "large"))
    place = list(large.graph.node).index(node)
    large.graph.node.insert(
        place, onnx.helper.make_node("Mul", [node.input[0], "large"], ["scaled"], name="scaled")
    )
    large.graph.node[place + 1].input[0] = "scaled"
    with pytest.raises(CalibrationDataError, match=r"stages\.0\.0.*not finite"):
        compensate(nearest, large, street(1, 2))
