"""What this CPU can do at best, measured: int8 and float32 multiply-adds a second, bytes a second.

A plain square MatMul with constant weights, by the same runtime and from the same Q/DQ spelling as
the network: what OpenVINO reaches where nothing is in its way. The best of some sizes and runs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.benchmark.schema import Peak
from pipeline.benchmark.turns import timed
from pipeline.engines.cpu import cpu_count
from pipeline.engines.openvino import import_openvino
from pipeline.errors import EngineError

SIZES: Final = (512, 1024, 2048)
TURN_SECONDS: Final = 0.6
COPIED: Final = 64 << 20
"""Bytes that each thread copies: more than the caches of a server CPU hold for one core."""

_COPIES: Final = 6
_OPSET, _IR_VERSION = 17, 8


@dataclass(frozen=True)
class Rate:
    """The best of the sizes: multiply-adds a second in 10^9, the size, and the kernel."""

    gmacs: float
    size: int
    kernel: str


def measure_peak(
    sizes: tuple[int, ...] = SIZES, seconds: float = TURN_SECONDS, copied: int = COPIED
) -> Peak:
    """All three.

    Args:
        sizes: M = N = K of the MatMuls.
        seconds: for each of them.
        copied: bytes that each thread copies at once.

    Raises:
        EngineError: OpenVINO did not run the int8 MatMul in int8.
    """
    int8 = max((_rate(size, seconds, int8=True) for size in sizes), key=lambda rate: rate.gmacs)
    f32 = max((_rate(size, seconds, int8=False) for size in sizes), key=lambda rate: rate.gmacs)
    return Peak(
        int8_gmacs=round(int8.gmacs, 2), int8_size=int8.size, int8_kernel=int8.kernel,
        f32_gmacs=round(f32.gmacs, 2), f32_size=f32.size,
        bandwidth_gbs=round(measure_bandwidth(copied), 2),
    )  # fmt: skip


def matmul_graph(size: int, *, int8: bool) -> onnx.ModelProto:
    """(size, size) x constant (size, size), float32 in and out; in int8, Q/DQ before both sides.

    The int8 weights have seven bits: sums of products overflow nowhere (``cpu.products_saturate``).
    """
    rng = np.random.default_rng(0)
    shape = [size, size]
    weights: npt.NDArray[Any] = (
        rng.integers(-63, 64, shape, np.int8) if int8 else rng.random(shape, np.float32)
    )
    constants = [numpy_helper.from_array(weights, "weights")]
    nodes = []
    left, right = "a", "weights"
    if int8:
        values = {"a_scale": np.float32(1 / 255), "a_zero": np.uint8(0),
                  "w_scale": np.float32(1 / 63), "w_zero": np.int8(0)}  # fmt: skip
        constants += [numpy_helper.from_array(np.array(v), name) for name, v in values.items()]
        spelled = (
            ("QuantizeLinear", ["a", "a_scale", "a_zero"], "a_quantized"),
            ("DequantizeLinear", ["a_quantized", "a_scale", "a_zero"], "a_float"),
            ("DequantizeLinear", ["weights", "w_scale", "w_zero"], "w_float"),
        )
        nodes = [helper.make_node(kind, taken, [given]) for kind, taken, given in spelled]
        left, right = "a_float", "w_float"
    nodes.append(helper.make_node("MatMul", [left, right], ["b"], name="matmul"))
    graph = helper.make_graph(
        nodes, "peak", [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, shape)], constants,
    )  # fmt: skip
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)


def _rate(size: int, seconds: float, *, int8: bool) -> Rate:
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(matmul_graph(size, int8=int8).SerializeToString())
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    compiled = core.compile_model(model, "CPU", config)
    name, kernel = _matmul(compiled, int8=int8)
    request = compiled.create_infer_request()
    frame = np.random.default_rng(1).random((size, size), np.float32)
    request.set_input_tensor(openvino.Tensor(frame, shared_memory=True))

    spent: list[float] = []

    def run() -> None:
        request.infer()
        # The layer's own time: that of quantizing its input is not the MatMul's.
        (layer,) = (info for info in request.profiling_info if info.node_name == name)
        spent.append(layer.real_time.total_seconds())

    timed(run, seconds)
    return Rate(size**3 / min(spent) / 1e9, size, kernel)


def _matmul(compiled: Any, *, int8: bool) -> tuple[str, str]:
    """(name, implementation) of the MatMul. Raises ``EngineError`` where int8 is not int8."""
    for node in compiled.get_runtime_model().get_ops():
        told = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        if told.get("layerType") in ("FullyConnected", "MatMul"):
            # The node's own precision may be that of its weights alone.
            taken = node.input(0).get_element_type().get_type_name()
            if int8 and taken not in ("u8", "i8"):
                raise EngineError(
                    f"OpenVINO runs an int8 MatMul on {taken} here: this CPU has no int8 peak to "
                    "compare with"
                )
            return str(node.get_friendly_name()), str(told["primitiveType"])
    raise EngineError("OpenVINO made something else of a plain MatMul")


def measure_bandwidth(copied: int = COPIED) -> float:
    """10^9 bytes a second, read and written, while every usable CPU copies; the best of some."""
    threads = cpu_count()
    sources = [np.ones(copied, np.uint8) for _ in range(threads)]
    targets = [np.empty(copied, np.uint8) for _ in range(threads)]

    def copy(number: int) -> None:
        np.copyto(targets[number], sources[number])  # releases the interpreter's lock

    fastest = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_COPIES + 1):  # the first one gives the targets their pages
            begin = perf_counter()
            list(pool.map(copy, range(threads)))
            fastest = min(fastest, perf_counter() - begin)
    return 2 * copied * threads / fastest / 1e9
