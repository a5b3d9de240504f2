"""OpenVINO CPU: signed int8 tensors lose their scale in a Concat that a convolution reads.

    python signed_concat.py

x0, x1 (1, 16, 8, 16) -> Q/DQ int8 each, scale s -> Concat over channels -> 1x1 convolution with
int8 weights, of seven bits so that no CPU overflows -> y. Executed by ONNX Runtime with every Q and
DQ on its own, and by OpenVINO. Then one channel is fed the 128 steps
-64 s ... 63 s, and the values that come out are counted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

CHANNELS, HEIGHT, WIDTH = 16, 8, 16
SHAPE = [1, CHANNELS, HEIGHT, WIDTH]
Feeds = dict[str, npt.NDArray[np.float32]]


def graph(scale: float, *, signed: bool = True, inputs: int = 2) -> onnx.ModelProto:
    """The inputs quantized, concatenated where there are several, and convolved."""
    rng = np.random.default_rng(0)
    kind = np.int8 if signed else np.uint8
    names = [f"x{k}" for k in range(inputs)]
    constants = {
        "s": np.float32(scale), "z": kind(0),
        "w": rng.integers(-63, 64, (8, inputs * CHANNELS, 1, 1)).astype(np.int8),
        "ws": rng.uniform(2e-3, 6e-3, 8).astype(np.float32), "wz": np.zeros(8, np.int8),
        "b": rng.normal(size=8).astype(np.float32),
    }  # fmt: skip
    nodes = []
    for name in names:
        nodes += [
            helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}q"]),
            helper.make_node("DequantizeLinear", [f"{name}q", "s", "z"], [f"{name}d"]),
        ]
    joined = f"{names[0]}d"
    if inputs > 1:
        joined = "joined"
        nodes.append(helper.make_node("Concat", [f"{n}d" for n in names], [joined], axis=1))
    nodes += [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", [joined, "wd", "b"], ["y"]),
    ]
    used = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, HEIGHT, WIDTH])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def both(model: onnx.ModelProto, feeds: Feeds) -> tuple[Feeds, Feeds]:
    """(as ONNX says, as OpenVINO does)."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return {"y": np.asarray(session.run(None, feeds)[0])}, {"y": np.array(compiled(feeds)[0])}


def difference(model: onnx.ModelProto) -> float:
    """||OpenVINO - ONNX Runtime|| / ||ONNX Runtime|| on normal numbers."""
    feeds = {
        value.name: np.random.default_rng(i).normal(size=SHAPE).astype(np.float32)
        for i, value in enumerate(model.graph.input)
    }
    want, got = both(model, feeds)
    return float(np.linalg.norm(got["y"] - want["y"]) / np.linalg.norm(want["y"]))


def steps(scale: float) -> tuple[int, int]:
    """How many different values (ONNX Runtime, OpenVINO) make of the steps of one channel."""
    feeds = {name: np.zeros(SHAPE, np.float32) for name in ("x0", "x1")}
    feeds["x0"][0, 0] = (np.arange(-64, 64) * scale).reshape(HEIGHT, WIDTH)
    want, got = both(graph(scale), feeds)
    return len(np.unique(want["y"][0, 0])), len(np.unique(got["y"][0, 0]))


def main() -> None:
    """Print the tables of README.md."""
    print(f"openvino {openvino.__version__}, onnxruntime {onnxruntime.__version__}")
    print(f"two int8 tensors, concatenated   {difference(graph(0.03)):.2e}")
    print(f"two uint8 tensors, concatenated  {difference(graph(0.03, signed=False)):.2e}")
    print(f"one int8 tensor                  {difference(graph(0.03, inputs=1)):.2e}")
    for scale in (0.03, 0.1, 0.5, 1.0, 2.0):
        exact, engine = steps(scale)
        print(f"scale {scale:<5} {exact:4} values, OpenVINO {engine:4}")


if __name__ == "__main__":
    main()
