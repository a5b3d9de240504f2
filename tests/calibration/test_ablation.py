"""Single layers quantized: against NumPy, against both whole graphs, bit for bit where it must."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.ablation import Ablation
from calibration.qdq_graph import QuantizedGraphError
from calibration.qdq_lint import lint
from calibration.quantize import QuantizeSettings, quantize
from calibration.spelling import to_int8_spelling
from tests.calibration.test_quantize import network, some_frames
from tests.qdq_graphs import run_exact

FRAME = some_frames(1)[0]


@pytest.fixture(scope="module")
def quantized() -> onnx.ModelProto:
    return quantize(network(), some_frames(), 4, QuantizeSettings())


def logits(model: onnx.ModelProto) -> np.ndarray:
    return run_exact(model, {"frames": FRAME})[0]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("tensorrt", [False, True])
def test_all_layers_are_the_quantized_graph_and_none_the_float_one(
    quantized: onnx.ModelProto, tensorrt: bool
) -> None:
    model = to_int8_spelling(quantized) if tensorrt else quantized
    ablation = Ablation(model, network())
    assert list(ablation.layers) == [
        "embed", "u.reduce", "u.ffn_fc2", "u.add2", "gated", "classifier",
    ]  # fmt: skip
    np.testing.assert_array_equal(logits(ablation.only(list(ablation.layers))), logits(model))
    np.testing.assert_array_equal(logits(ablation.without([])), logits(model))
    np.testing.assert_array_equal(logits(ablation.only([])), logits(network()))
    assert lint(ablation.without([]), "tensorrt" if tensorrt else "openvino") == []


def test_one_layer_alone_is_what_numpy_says(quantized: onnx.ModelProto) -> None:
    """u.ffn_fc2 is a 1x1 convolution: rounded by hand, everything else left as it is."""
    mixed = Ablation(quantized, network()).only(["u.ffn_fc2"])
    made = {node.output[0]: node for node in quantized.graph.node}
    held = constants(quantized)
    conv = next(node for node in quantized.graph.node if node.name == "u.ffn_fc2")
    activation, weight = (made[name] for name in conv.input[:2])
    step = held[activation.input[1]]
    integers, scales = held[weight.input[0]], held[weight.input[1]]

    part = network()
    part.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("u.reduce.relu", onnx.TensorProto.FLOAT, [1, 8, 8, 8])
    )
    x = run_exact(part, {"frames": FRAME})[0]
    rounded = np.clip(np.rint(x / step), 0, 255) * step
    kernel = integers.astype(np.float32)[..., 0, 0] * scales.reshape(-1, 1)
    bias = constants(network())["b2"]
    fc2 = np.einsum("oc,nchw->nohw", kernel, rounded) + bias[:, None, None]

    probe = onnx.ModelProto()
    probe.CopyFrom(mixed)
    probe.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("u.ffn_fc2", onnx.TensorProto.FLOAT, [1, 8, 8, 8])
    )
    got = run_exact(probe, {"frames": FRAME})[0]
    np.testing.assert_allclose(got, fc2, rtol=1e-4, atol=1e-3)
    assert np.abs(logits(mixed) - logits(network())).max() > 0


def test_a_shared_tensor_is_rounded_for_the_chosen_reader_only(quantized: onnx.ModelProto) -> None:
    """u.reduce and the residual sum read the same pair; alone, u.reduce must not round the sum."""
    ablation = Ablation(quantized, network())
    mixed = ablation.only(["u.reduce"])
    add = next(node for node in mixed.graph.node if node.name == "u.add2")
    assert list(add.input) == ["embed.relu", "u.ffn_fc2"]
    assert sum(node.op_type == "QuantizeLinear" for node in mixed.graph.node) == 1
    both = ablation.only(["u.reduce", "u.add2"])
    assert sum(node.op_type == "QuantizeLinear" for node in both.graph.node) == 1


def test_leaving_a_layer_out_leaves_exactly_it_out(quantized: onnx.ModelProto) -> None:
    ablation = Ablation(quantized, network())
    mixed = ablation.without(["u.reduce"])
    assert list(Ablation(mixed, network()).layers) == [
        "embed", "u.ffn_fc2", "u.add2", "gated", "classifier",
    ]  # fmt: skip
    assert [v.rule for v in lint(mixed, "openvino")] == ["heavy-float"] * 2
    assert lint(mixed, "openvino", ["u.reduce"]) == []


def test_what_does_not_belong_together_is_refused(quantized: onnx.ModelProto) -> None:
    with pytest.raises(QuantizedGraphError, match="no layer called 'nonsense'"):
        Ablation(quantized, network()).only(["nonsense"])
    other = network()
    other.graph.node[2].name = "another"
    with pytest.raises(QuantizedGraphError, match="'another'"):
        Ablation(quantized, other)
    newer = network()
    newer.opset_import[0].version = 18
    with pytest.raises(QuantizedGraphError, match="opsets"):
        Ablation(quantized, newer)
