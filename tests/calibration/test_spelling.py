"""The int8 spelling changes the resolution of what was uint8, and nothing else.

Graphs are run as written by onnxruntime; what they should give is computed with NumPy in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from calibration.qdq_graph import QuantizedGraphError
from calibration.qdq_lint import lint
from calibration.spelling import to_int8_spelling
from tests.qdq_graphs import FLOAT, UINT8, Builder, conv_graph, matmul_graph, run_exact

Array = npt.NDArray[Any]


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: np.asarray(numpy_helper.to_array(t)) for t in model.graph.initializer}


def _quantizer(model: onnx.ModelProto, output: str) -> tuple[Array, Array]:
    """(scale, zero point) of the DequantizeLinear that makes ``output``."""
    constants = _constants(model)
    (node,) = [n for n in model.graph.node if output in n.output]
    return constants[node.input[1]], constants[node.input[2]]


def _only_quantizer(scale: Any, dtype: Any, axis: int | None = None) -> onnx.ModelProto:
    """x -> Q -> DQ -> y: the rounding itself. Identity keeps y apart from the DQ's output."""
    b = Builder()
    b.op("Identity", [b.quantize("x", "xd", scale, axis=axis, dtype=dtype)], "y")
    return b.model({"x": (FLOAT, [1, 4, 64])}, {"y": [1, 4, 64]})


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-4, 10.0), seed=st.integers(0, 999))
def test_uint8_keeps_its_range_in_half_the_steps(scale: float, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(-20, 300, (1, 4, 64)).astype(np.float32)
    x *= np.float32(scale)  # beyond the range on both sides
    before = _only_quantizer(scale, np.uint8)
    after = to_int8_spelling(before)
    stored, zero = _quantizer(after, "xd")
    assert zero.dtype == np.int8
    assert zero == 0
    assert stored.shape == ()
    wide = float(np.float32(scale)) * 255 / 127
    assert stored == pytest.approx(wide, rel=1e-6)

    wanted = np.clip(x, -128 * wide, 127 * wide)
    got = run_exact(after, {"x": x})[0]
    assert np.abs(got - wanted).max() <= wide * (0.5 + 1e-4)
    # Where the activation is in its range, old and new are both within half of their own step.
    inside = (x >= 0) & (x <= 255 * scale)
    old = run_exact(before, {"x": x})[0]
    assert np.abs(got - old)[inside].max() <= (wide + scale) * (0.5 + 1e-4)


def test_per_channel_scales_become_the_widest() -> None:
    scales = np.array([0.01, 0.5, 0.02, 0.1], np.float32)
    for dtype, wide in ((np.int8, 0.5), (np.uint8, 0.5 * 255 / 127)):
        after = to_int8_spelling(_only_quantizer(scales, dtype, axis=1))
        stored, zero = _quantizer(after, "xd")
        assert stored.shape == zero.shape == ()
        assert float(stored) == pytest.approx(wide, rel=1e-6)
        assert not any(a.name == "axis" for n in after.graph.node for a in n.attribute)
        x = np.linspace(0, 60, 256, dtype=np.float32).reshape(1, 4, 64)
        assert np.abs(run_exact(after, {"x": x})[0] - x).max() <= wide * 0.5001


def test_what_is_spelled_rightly_stays_byte_for_byte() -> None:
    for model in (conv_graph(), conv_graph(group=32), matmul_graph()):
        assert to_int8_spelling(model).SerializeToString() == model.SerializeToString()


def test_it_is_a_copy_and_a_fixed_point() -> None:
    model = conv_graph(dtype=np.uint8, scale=np.linspace(0.1, 0.2, 32), scale_axis=1)
    before = model.SerializeToString()
    once = to_int8_spelling(model)
    assert model.SerializeToString() == before
    assert to_int8_spelling(once).SerializeToString() == once.SerializeToString()


def test_rank_one_scales_become_scalars_without_changing_a_value() -> None:
    model = conv_graph(scale=[0.1])
    after = to_int8_spelling(model)
    assert lint(after, "tensorrt") == []
    x = np.random.default_rng(1).standard_normal((1, 32, 16, 32)).astype(np.float32)
    old, new = (run_exact(m, {"x": x})[0] for m in (model, after))
    np.testing.assert_array_equal(new, old)


def test_a_missing_zero_point_means_uint8() -> None:
    after = to_int8_spelling(conv_graph(zero=None, scale=0.1))
    scale, zero = _quantizer(after, "xd")
    assert zero.dtype == np.int8
    assert float(scale) == pytest.approx(0.1 * 255 / 127)


def test_all_readers_of_one_quantizer_follow_it() -> None:
    b = Builder()
    b.quantize("x", "xd", 0.1, dtype=np.uint8)
    b.op("DequantizeLinear", ["xd_q", "xd_scale", "xd_zero"], "xe")
    b.op("Add", ["xd", "xe"], "y")
    after = to_int8_spelling(b.model({"x": (FLOAT, [4])}, {"y": [4]}))
    x = np.array([0, 1, 10, 25.5], np.float32)
    np.testing.assert_allclose(run_exact(after, {"x": x})[0], 2 * x, atol=0.1 * 255 / 127 * 1.001)
    assert _quantizer(after, "xd")[0] == _quantizer(after, "xe")[0]


def test_the_result_is_checked_onnx_and_clean_for_tensorrt() -> None:
    b = Builder()
    x = b.quantize("x", "xd", np.linspace(0.1, 0.3, 16), axis=1, dtype=np.uint8)
    y = b.op("Conv", [x, b.weights("w", 16, 1, 3, 3), b.normal("b", 16)], "c", group=16)
    y = b.quantize(b.op("Relu", [y], "r"), "rd", 0.02, dtype=np.uint8)
    b.op("Conv", [y, b.weights("v", 8, 16, 1, 1)], "y")
    model = b.model({"x": (FLOAT, [1, 16, 8, 8])}, {"y": [1, 8, 6, 6]})
    assert lint(model, "openvino") == []
    assert lint(model, "tensorrt") != []
    after = to_int8_spelling(onnx.shape_inference.infer_shapes(model))
    onnx.checker.check_model(after, full_check=True)
    assert lint(after, "tensorrt") == []


def _image_graph(
    *,
    scale: float = 1.0,
    dtype: Any = np.uint8,
    weights: str = "stored",
    bias: bool = True,
    padding: int = 0,
    quantized: bool = True,
    order: tuple[str, ...] = ("Cast", "Transpose"),
    seed: int = 0,
) -> onnx.ModelProto:
    """image uint8 NHWC -> Cast, Transpose -> [Q/DQ] -> Conv 4x4/4, as the exporter writes it."""
    b = Builder(seed)
    y = "image"
    for kind in order:
        extra: dict[str, Any] = {"to": FLOAT} if kind == "Cast" else {"perm": [0, 3, 1, 2]}
        y = b.op(kind, [y], kind.lower(), **extra)
    if quantized:
        y = b.quantize(y, "xd", scale, dtype=dtype)
    if weights == "stored":
        w = b.weights("w", 16, 3, 4, 4)
    elif weights == "float":
        w = b.normal("w", 16, 3, 4, 4, std=0.02)
    else:
        w = b.quantize(
            b.normal("w", 16, 3, 4, 4, std=0.02), "wd", np.linspace(1e-4, 1e-3, 16), axis=0
        )
    inputs = [y, w] + ([b.normal("b", 16, std=1.0)] if bias else [])
    b.op("Conv", inputs, "y", strides=[4, 4], pads=[padding] * 4)
    side = (8 + 2 * padding) // 4
    return b.model({"image": (UINT8, [1, 8, 16, 3])}, {"y": [1, 16, side, side + 2]})


def _images(seed: int) -> list[Array]:
    shape = (1, 8, 16, 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape)
    return [np.asarray(a, np.uint8) for a in (noise, np.zeros(shape), np.full(shape, 255))]


@pytest.mark.parametrize("weights", ["stored", "float", "rounded"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", [("Cast", "Transpose"), ("Transpose", "Cast")])
def test_the_image_is_shifted_and_stays_exact(
    weights: str, bias: bool, order: tuple[str, ...]
) -> None:
    model = _image_graph(weights=weights, bias=bias, order=order)
    after = to_int8_spelling(model)
    onnx.checker.check_model(after, full_check=True)
    scale, zero = _quantizer(after, "xd")
    assert float(scale) == 1.0
    assert zero.dtype == np.int8
    for image in _images(3):
        old, new = (run_exact(m, {"image": image})[0] for m in (model, after))
        # Both sum 48 products of size up to 255 * |w| in float32.
        np.testing.assert_allclose(new, old, rtol=0, atol=2e-4 * max(1.0, float(np.abs(old).max())))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.3, 2.5), seed=st.integers(0, 999), dtype=st.sampled_from(["u1", "i1"]))
def test_an_inexact_image_quantizer_becomes_exact(scale: float, seed: int, dtype: str) -> None:
    """Whatever scale calibration found, the new graph gives what the unquantized image gives."""
    after = to_int8_spelling(_image_graph(scale=scale, seed=seed, dtype=np.dtype(dtype)))
    plain = _image_graph(quantized=False, seed=seed)
    for image in _images(seed):
        want, got = (run_exact(m, {"image": image})[0] for m in (plain, after))
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-4 * float(np.abs(want).max() + 1))


def test_a_padded_convolution_is_not_shifted() -> None:
    """Padding adds zeros, not 128s: there the image is rescaled like any activation."""
    model = _image_graph(padding=2)
    after = to_int8_spelling(model)
    assert not any(node.op_type == "Sub" for node in after.graph.node)
    assert float(_quantizer(after, "xd")[0]) == pytest.approx(255 / 127)
    image = _images(5)[0]
    old, new = (run_exact(m, {"image": image})[0] for m in (model, after))
    weight = _constants(model)["w_int"] * _constants(model)["w_scale"].reshape(-1, 1, 1, 1)
    bound = 0.5 * 255 / 127 * np.abs(weight).sum(axis=(1, 2, 3)).reshape(1, -1, 1, 1)
    assert (np.abs(new - old) <= bound * 1.001).all()
    assert np.abs(new - old).max() > 0  # it does lose resolution, or the test sees nothing


@pytest.mark.parametrize(
    ("model", "node"),
    [
        (conv_graph(zero=3), "xd_op"),
        (conv_graph(dtype=np.uint8, zero=128), "xd_op"),
        (conv_graph(weight_zero=1), "w_op"),
        (conv_graph(weight_dtype=np.uint8), "w_op"),
        (conv_graph(dtype=np.int16, opset=21), "xd_op"),
        (conv_graph(bias="int32"), "b_op"),
    ],
)
def test_what_cannot_be_respelled_is_named(model: onnx.ModelProto, node: str) -> None:
    with pytest.raises(QuantizedGraphError, match=f"^{node}: "):
        to_int8_spelling(model)


def test_a_split_pair_is_named() -> None:
    model = conv_graph()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.2), "another_scale"))
    next(n for n in model.graph.node if n.op_type == "DequantizeLinear").input[1] = "another_scale"
    with pytest.raises(QuantizedGraphError, match="xd_op: is not one half"):
        to_int8_spelling(model)
