"""OpenVINO CPU: an int8 MatMul with batched constant weights is garbage without a full bias.

    python batched_matmul_without_bias.py

x (4, 64, 64) -> Q/DQ int8, one scale -> MatMul with int8 weights (4, 64, 64), one scale for each
output column -> one operator or none -> y. Executed by ONNX Runtime with every Q and DQ on its own,
and by OpenVINO.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

BATCH, SIZE = 4, 64
RNG = np.random.default_rng(2)
BIASES = {
    "full": RNG.normal(size=(BATCH, 1, SIZE)),
    "zeros": np.zeros((BATCH, 1, SIZE)),
    "uniform": np.full((BATCH, 1, SIZE), 0.3),
    "scalar": np.array(0.3),
    "per column": RNG.normal(size=(1, 1, SIZE)),
    "per batch": RNG.normal(size=(BATCH, 1, 1)),
}


def graph(
    tail: str, *, per_column: bool = True, bias: str = "full", rounded: bool = False
) -> onnx.ModelProto:
    """The product, followed by nothing or one operator ``tail``, and Q/DQ where ``rounded``."""
    rng = np.random.default_rng(0)
    scales = rng.uniform(1e-3, 3e-3, SIZE) if per_column else np.float64(2e-3)
    weights = rng.integers(-127, 128, (BATCH, SIZE, SIZE))
    constants = {
        "w": weights.astype(np.int8), "ws": np.float32(scales),
        "wz": np.zeros(np.shape(scales), np.int8),
        "xs": np.float32(0.05), "xz": np.int8(0), "half": np.float32(0.5),
        "bias": BIASES[bias].astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=2)
        if per_column
        else helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["product" if tail else "y"]),
    ]
    second = {"Add": ["bias"], "Mul": ["half"], "Relu": []}
    if tail:
        result = "before" if rounded else "y"
        nodes.append(helper.make_node(tail, ["product", *second[tail]], [result]))
    if tail and rounded:
        nodes.append(helper.make_node("QuantizeLinear", ["before", "xs", "xz"], ["yq"]))
        nodes.append(helper.make_node("DequantizeLinear", ["yq", "xs", "xz"], ["y"]))
    shape = [BATCH, SIZE, SIZE]
    used = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def difference(model: onnx.ModelProto) -> float:
    """||OpenVINO - ONNX Runtime|| / ||ONNX Runtime||."""
    x = np.random.default_rng(1).normal(size=(BATCH, SIZE, SIZE)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    want = np.asarray(session.run(None, {"x": x})[0], np.float64)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    got = np.asarray(compiled({"x": x})[0], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what comes out may be anything
        return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def main() -> None:
    """Print the table of README.md."""
    print(f"openvino {openvino.__version__}, onnxruntime {onnxruntime.__version__}")
    for per_column in (True, False):
        scales = "one scale per column" if per_column else "one scale"
        for tail in ("", "Relu", "Mul", "Add"):
            found = difference(graph(tail, per_column=per_column))
            print(f"{scales:<22}MatMul {'-> ' + tail if tail else '':<8} {found:9.2e}")
    for bias in BIASES:
        alone, rounded = (difference(graph("Add", bias=bias, rounded=r)) for r in (False, True))
        print(f"MatMul -> Add {bias:<12} {alone:9.2e}   -> Q/DQ {rounded:9.2e}")


if __name__ == "__main__":
    main()
