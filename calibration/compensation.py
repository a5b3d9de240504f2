"""FC3's weights rounded anew, so that their errors cancel over the calibration frames.

An injected FC3 holds two sorts of weight: those of the merged convolutions, and the long-range ones
of the FC, up to hundreds of times smaller. One INT8 scale a row serves the first; rounded to the
nearest step, most of the second become zero, and with them what the FC is for. But there are a
thousand of them, and the map they read is smooth: rounded as in ``rounding``, a few single steps
among them stand for all. Scales, pairs and operators stay as they are; only int8 constants change,
so it costs an engine nothing.

What a layer gains is judged on frames that its rounding was not made from, and a layer that gains
nothing there keeps the nearest steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from calibration.errors import CalibrationDataError
from calibration.qdq_graph import QdqGraph
from calibration.rounding import Matrix, output_error, round_compensated

LAYERS: Final = "*.repmlp_block.fc3"
"""Nodes whose weights are rounded so."""
MOST_FRAMES: Final = 16
"""Stacks of frames looked at, at most. One alone already gives nearly all of the gain."""
_JUDGING: Final = 4
"""One stack in so many judges."""

_INT8: Final = 127
"""Greatest magnitude of a symmetric int8."""

Stack = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LayerRounding:
    """What rounding costs a layer: errors of its output as shares of its norm.

    Attributes:
        layer: the node's name.
        nearest: error with each weight at its nearest step, on the judging frames.
        compensated: the same with errors that cancel.

    The graph has the steps of the smaller error; of equal ones, the nearest.
    """

    layer: str
    nearest: float
    compensated: float

    @property
    def kept(self) -> str:
        """Which steps the graph has: ``nearest`` or ``compensated``."""
        return "compensated" if self.compensated < self.nearest else "nearest"


@dataclass
class _Layer:
    """One product of the float graph, and its int8 constant in the Q/DQ graph."""

    node: onnx.NodeProto
    constant: str
    weights: Matrix
    """(S, outputs, inputs)"""
    scale: Matrix
    """Broadcasts over ``weights``."""
    stored: npt.NDArray[np.int8]
    """The constant as it is in the graph."""

    def steps(self) -> Matrix:
        """(S, outputs, inputs): the constant in the order of ``weights``."""
        return _as_matrix(self.stored, self.node).astype(np.float64)

    def as_stored(self, steps: Matrix) -> npt.NDArray[np.int8]:
        """The way back from ``steps``."""
        if self.node.op_type == "MatMul":
            steps = steps.swapaxes(1, 2)
        return np.ascontiguousarray(steps.reshape(self.stored.shape)).astype(np.int8)


def compensate(
    quantized: onnx.ModelProto, floating: onnx.ModelProto, stacks: Sequence[Stack]
) -> tuple[onnx.ModelProto, list[LayerRounding]]:
    """The Q/DQ graph with ``LAYERS`` rounded anew, and what each of them gained.

    Args:
        quantized: weights are int8 initializers behind a DequantizeLinear.
        floating: the graph it was made from; nodes go by the same names.
        stacks: inputs, uint8 (N, H, W, 3); at least one. ``MOST_FRAMES`` of them are used, evenly
            spread; with one alone the same both makes and judges.

    Raises:
        CalibrationDataError: the float network overflows on those frames.
    """
    layers = list(_layers(QdqGraph(quantized), floating))
    if not layers:
        return quantized, []
    making, judging = _shares(stacks)
    probe = _Probe(floating, [layer.node for layer in layers])
    seen = probe.moments(making)
    unseen = probe.moments(judging) if judging else seen
    found, changed = [], dict[str, npt.NDArray[np.int8]]()
    for layer, own, others in zip(layers, seen, unseen, strict=True):
        if not (np.isfinite(own).all() and np.isfinite(others).all()):
            raise CalibrationDataError(
                f"what '{layer.node.name}' reads on the calibration frames is not finite, or too "
                "large for float32: the network cannot be quantized"
            )
        nearest = layer.steps()
        limit = min(_INT8, int(np.abs(nearest).max(initial=1)))
        steps = round_compensated(layer.weights, layer.scale, limit, own)
        before, after = (
            output_error(layer.weights, each * layer.scale, others) for each in (nearest, steps)
        )
        found.append(LayerRounding(layer.node.name, before, after))
        if found[-1].kept == "compensated":
            changed[layer.constant] = layer.as_stored(steps)
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return model, found


def _layers(graph: QdqGraph, floating: onnx.ModelProto) -> Iterator[_Layer]:
    weights = {tensor.name: tensor for tensor in floating.graph.initializer}
    quantized = {node.name: node for node in graph.nodes}
    for node in floating.graph.node:
        if not PurePath(node.name).match(LAYERS) or node.name not in quantized:
            continue
        pair = graph.quantizer_of(quantized[node.name].input[1])
        if pair is None or pair.q is not None or pair.scale is None:
            continue  # left in float
        stored = graph.constant(pair.source)
        if stored is None or stored.dtype != np.int8:
            continue
        scale = np.asarray(pair.scale, np.float64)
        if scale.size > 1:
            shape = np.ones(stored.ndim, int)
            shape[pair.axis] = scale.size
            scale = scale.reshape(shape)
        yield _Layer(
            node=node,
            constant=pair.source,
            weights=_as_matrix(numpy_helper.to_array(weights[node.input[1]]), node).astype(float),
            scale=_as_matrix(np.broadcast_to(scale, stored.shape), node)[:1, :, :1],
            stored=np.asarray(stored, np.int8),
        )


def _as_matrix(values: npt.NDArray[Any], node: onnx.NodeProto) -> npt.NDArray[Any]:
    """(S, outputs, inputs) of what ``lower_fc3`` wrote: (inputs, outputs), (S, inputs, outputs) of
    a product, (outputs, inputs, 1, 1) of a convolution."""
    if node.op_type == "MatMul":
        return np.asarray(values.reshape(-1, *values.shape[-2:]).swapaxes(1, 2))
    return values.reshape(1, *values.shape[:2])


def _shares(stacks: Sequence[Stack]) -> tuple[list[Stack], list[Stack]]:
    """(what rounding is made from, what judges it)."""
    count = min(len(stacks), MOST_FRAMES)
    chosen = [stacks[i * len(stacks) // count] for i in range(count)]
    if count == 1:
        return chosen, []
    every = min(count, _JUDGING)
    judging = range(every - 1, count, every)
    return [s for i, s in enumerate(chosen) if i not in judging], [chosen[i] for i in judging]


class _Probe:
    """The float graph, run for what some of its products read."""

    def __init__(self, floating: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
        import onnxruntime

        self._nodes = nodes
        self._names = [node.input[0] for node in nodes]
        self._input = floating.graph.input[0].name
        probed = onnx.ModelProto()
        probed.CopyFrom(floating)
        del probed.graph.output[:]
        probed.graph.output.extend(
            helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(self._names)
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        self._session = onnxruntime.InferenceSession(
            probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def moments(self, stacks: Sequence[Stack]) -> list[Matrix]:
        """Sum of x x^T over all inputs x of each product, (S, inputs, inputs)."""
        found: list[Matrix] = []
        for stack in stacks:
            read = self._session.run(self._names, {self._input: stack})
            for place, (node, x) in enumerate(zip(self._nodes, read, strict=True)):
                rows = _as_rows(x, node)
                with np.errstate(over="ignore", invalid="ignore"):  # looked at by compensate
                    products = (rows.swapaxes(1, 2) @ rows).astype(np.float64)
                if place == len(found):
                    found.append(products)
                else:
                    found[place] += products
        return found


def _as_rows(x: npt.NDArray[np.float32], node: onnx.NodeProto) -> npt.NDArray[np.float32]:
    """(S, samples, inputs) of what the product reads."""
    if node.op_type == "MatMul":
        return x.reshape(-1, *x.shape[-2:])
    patches, inputs, channels, _one = x.shape
    return np.asarray(x.transpose(0, 2, 1, 3).reshape(1, patches * channels, inputs))
