"""OpenVINO CPU: the Q/DQ between a convolution and the sum fused into it is left out.

    python skipped_rounding.py

Three graphs, executed by ONNX Runtime with every Q and DQ on its own, and by OpenVINO:

    residual   Conv3x3(x) -> [Q/DQ] -> Add(r) -> Q/DQ -> y
    upsampled  Conv3x3(x) -> Relu -> [Q/DQ] -> Add(Resize(r)) -> Q/DQ -> y
    gated      Conv3x3(x) -> [Q/DQ] -> Add(Conv1x1(x) -> Q/DQ) -> Q/DQ -> Mul(gate) -> Q/DQ -> y

OpenVINO gives what ONNX Runtime gives for the graph *without* the pair in brackets: exactly, or
where values are rounded from uint8 within a few in a thousand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

CHANNELS, HEIGHT, WIDTH = 16, 8, 16
MAP, GATE = [1, CHANNELS, HEIGHT, WIDTH], [1, CHANNELS, 1, 1]
HALF = [1, CHANNELS, HEIGHT // 2, WIDTH // 2]
SHAPES = {"residual": MAP, "upsampled": HALF, "gated": GATE}
KINDS = tuple(SHAPES)
Array = npt.NDArray[np.float32]


def graph(kind: str, *, bracketed: bool = True) -> onnx.ModelProto:
    """One of them; ``bracketed`` is whether the pair in brackets is there."""
    rng = np.random.default_rng(0)
    constants: dict[str, npt.ArrayLike] = {"zero": np.int8(0), "least": np.uint8(0)}
    nodes: list[onnx.NodeProto] = []

    def pair(source: str, scale: float, result: str, zero: str = "zero") -> str:
        constants[f"{result}_s"] = np.float32(scale)
        for operator, taken, given in (
            ("QuantizeLinear", source, f"{result}_q"), ("DequantizeLinear", f"{result}_q", result)
        ):  # fmt: skip
            nodes.append(helper.make_node(operator, [taken, f"{result}_s", zero], [given]))
        return result

    def conv(source: str, size: int, result: str) -> str:
        shape = (CHANNELS, CHANNELS, size, size)
        constants[f"{result}_w"] = rng.integers(-63, 64, shape).astype(np.int8)
        constants[f"{result}_s"] = rng.uniform(2e-3, 6e-3, CHANNELS).astype(np.float32)
        constants[f"{result}_z"] = np.zeros(CHANNELS, np.int8)
        constants[f"{result}_b"] = rng.normal(size=CHANNELS).astype(np.float32)
        weights = [f"{result}_{part}" for part in "wsz"]
        nodes.append(helper.make_node("DequantizeLinear", weights, [f"{result}_d"], axis=0))
        inputs = [source, f"{result}_d", f"{result}_b"]
        nodes.append(helper.make_node("Conv", inputs, [result], pads=[size // 2] * 4))
        return result

    x = pair("x", 0.03, "xd")
    first = conv(x, 3, "first")
    if kind == "upsampled":
        nodes.append(helper.make_node("Relu", [first], ["positive"]))
        first = "positive"
    if bracketed:
        first = pair(first, 0.25, "rounded", "least" if kind == "upsampled" else "zero")
    if kind == "residual":
        other = pair("r", 0.11, "rd")
    elif kind == "upsampled":
        constants["twice"] = np.array([1, 1, 2, 2], np.float32)
        inputs = [pair("r", 0.11, "rd"), "", "twice"]
        nodes.append(helper.make_node(
            "Resize", inputs, ["other"], mode="linear",
            coordinate_transformation_mode="half_pixel",
        ))  # fmt: skip
        other = "other"
    else:
        other = pair(conv(x, 1, "second"), 0.2, "other")
    nodes.append(helper.make_node("Add", [first, other], ["sum"]))
    if kind != "gated":
        pair("sum", 0.3, "y")
    else:
        nodes.append(helper.make_node("Mul", [pair("sum", 0.3, "total"), "r"], ["product"]))
        pair("product", 0.2, "y")
    used = {name for node in nodes for name in node.input}
    shapes = {"x": MAP, "r": SHAPES[kind]}
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, MAP)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def feeds(kind: str) -> dict[str, Array]:
    """Normal numbers; ``r`` is a gate in (0, 1) where it multiplies."""
    rng = np.random.default_rng(0)
    r = rng.random(GATE) if kind == "gated" else 3 * rng.normal(size=SHAPES[kind])
    return {"x": rng.normal(size=MAP).astype(np.float32), "r": r.astype(np.float32)}


def exact(model: onnx.ModelProto, given: dict[str, Array]) -> Array:
    """As ONNX says."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, given)[0], np.float32)


def engine(model: onnx.ModelProto, given: dict[str, Array]) -> Array:
    """As OpenVINO does."""
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.array(compiled(given)[0], np.float32)


def different(one: Array, other: Array) -> float:
    """Share of values that differ by a rounding step; the steps are 0.3 and 0.2."""
    return float(np.mean(np.abs(one - other) > 0.1))


def main() -> None:
    """Print the table of README.md."""
    print(f"openvino {openvino.__version__}, onnxruntime {onnxruntime.__version__}")
    for kind in KINDS:
        given = feeds(kind)
        got = engine(graph(kind), given)
        whole = different(got, exact(graph(kind), given))
        without = different(got, exact(graph(kind, bracketed=False), given))
        print(f"{kind:<10} values unlike the graph's {whole:6.1%}, unlike those of the graph "
              f"without the pair {without:6.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
