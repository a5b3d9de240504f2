"""Where an engine parts from its graph: the graph is cut after each node in turn and both are run.

A cut is the graph up to one tensor, executed exactly by ONNX Runtime and by the back end. Their
difference is ||engine - exact|| / ||exact||. Rounding makes it grow slowly along the graph; a
defect makes it jump. The first node is the first at which it jumps by more than ``JUMP`` over the
largest of the node's own inputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine

JUMP = 0.04
_PASSIVE = {"QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Cast", "Identity"}
Runner = Callable[[Path, npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Cut:
    """The difference at one node: relative norm, and how much of it is new there."""

    node: str
    kind: str
    error: float
    jump: float


def cut_after(model: onnx.ModelProto, tensor: str, path: Path) -> None:
    """Write the part of ``model`` that ``tensor`` depends on, with it as the only output."""
    graph = model.graph
    makers = {out: node for node in graph.node for out in node.output}
    wanted: list[onnx.NodeProto] = []
    seen: set[str] = set()
    stack = [tensor]
    while stack:
        maker = makers.get(stack.pop())
        if maker is None or maker.output[0] in seen:
            continue
        seen.add(maker.output[0])
        wanted.append(maker)
        stack.extend(maker.input)
    needed = {name for node in wanted for name in node.input}
    order = {node.output[0]: i for i, node in enumerate(graph.node)}
    wanted.sort(key=lambda node: order[node.output[0]])
    part = helper.make_graph(
        wanted, f"cut at {tensor}", list(graph.input),
        [helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)],
        [t for t in graph.initializer if t.name in needed],
    )  # fmt: skip
    cut = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.save(onnx.shape_inference.infer_shapes(cut), path)


def run_exact(path: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The cut's output, as ONNX says it is. Raises ``EngineError`` where it cannot be run."""
    with OnnxRuntimeEngine(path) as engine:
        return np.asarray(engine.infer(frames), np.float32)


def run_openvino(path: Path, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The cut's output, as OpenVINO's CPU plugin computes it in int8. Raises ``EngineError``."""
    with OpenVINOEngine(path, precision="int8", slots=1) as engine:
        return np.asarray(engine.infer(frames), np.float32)


def trace(
    model: onnx.ModelProto, frames: npt.NDArray[np.uint8], run: Runner = run_openvino,
    nodes: Sequence[str] | None = None,
) -> Iterator[Cut]:  # fmt: skip
    """The difference after every computing node, or those named, in graph order, one by one."""
    makers = {out: node for node in model.graph.node for out in node.output}
    biased = _biased(model.graph)
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="repmlp-cut-") as folder:
        path = Path(folder) / "cut.onnx"
        for node in model.graph.node:
            if node.op_type in _PASSIVE or node.name in biased:
                continue
            if nodes is not None and node.name not in nodes:
                continue
            cut_after(model, node.output[0], path)
            exact = run_exact(path, frames)
            error = _difference(run(path, frames), exact)
            before = max(
                (errors.get(n, 0.0) for n in _active_inputs(node, makers, biased)), default=0.0
            )
            errors[node.output[0]] = error
            yield Cut(node.name, node.op_type, error, error - before)


def first_divergence(cuts: Iterable[Cut], jump: float = JUMP) -> Cut | None:
    """The first cut at which the difference jumps, or is not finite; ``None`` if it never does."""
    return next((c for c in cuts if not c.error < float("inf") or c.jump > jump), None)


def _active_inputs(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], through: set[str]
) -> list[str]:
    """The outputs of computing nodes that ``node`` reads, looking through Q/DQ, reshapes and the
    nodes called ``through``."""
    found = []
    stack = list(node.input)
    while stack:
        name = stack.pop()
        maker = makers.get(name)
        if maker is None:
            continue
        if maker.op_type in _PASSIVE or maker.name in through:
            stack.extend(maker.input)
        else:
            found.append(name)
    return found


def _biased(graph: onnx.GraphProto) -> set[str]:
    """MatMuls whose bias follows: cut in between, OpenVINO 2026.4 would compute garbage that the
    whole graph does not have. The cut after the bias stands for both."""
    constants = {t.name for t in graph.initializer}
    sums = {
        node.input[0] for node in graph.node if node.op_type == "Add" and node.input[1] in constants
    }
    return {n.name for n in graph.node if n.op_type == "MatMul" and n.output[0] in sums}


def _difference(engine: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    scale = float(np.linalg.norm(exact.astype(np.float64)))
    error = float(np.linalg.norm(engine.astype(np.float64) - exact.astype(np.float64)))
    return error / scale if scale else error
