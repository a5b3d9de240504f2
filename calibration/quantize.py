"""Calibration: float ONNX + frames -> one Q/DQ ONNX that both back ends are spelled from.

nncf collects the ranges once and inserts Q/DQ: weights int8 symmetric per channel, activations
symmetric per tensor, zero points 0, no quantized bias. Non-negative activations come out as uint8
with zero point 0 (OpenVINO's spelling; for TensorRT see ``spelling``). Four things are then put
right here:

* the image's scale becomes exactly 1, so that quantizing the uint8 image is the identity, whatever
  the calibration frames' brightest pixel was;
* the fresh input of a residual sum is not rounded before the sum (``UNROUNDED``): the sum is
  rounded once, after it. That is what both back ends do anyway where they fuse a convolution with
  the sum that follows, so a graph that asks for the extra rounding is not the one that runs;
* a pair stands before the Reshapes and Transposes of its tensor (see ``placement``);
* a per-channel activation scale (nncf gives one to inputs of depthwise convolutions) becomes one
  per tensor, the largest: TensorRT would silently run such a layer in float.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from calibration import DEFAULT_ESTIMATOR, DEFAULT_ROUNDING, ESTIMATORS, ROUNDINGS
from calibration.compensation import LayerRounding, Stack, compensate
from calibration.errors import CalibrationDataError
from calibration.placement import quantize_before_moves
from calibration.qdq_graph import DEQUANTIZE, QdqGraph, drop_axis, drop_unused
from calibration.quantiles import quantiles
from calibration.telemetry import silence_telemetry

# Not worth quantizing. Of the gates and the pyramid: a handful of multiply-adds each, and rounding
# them moves whole maps. Of the classifier: half a per cent of the network's, its input the one
# tensor that loses most by rounding; measured in docs/openvino.md.
FLOAT_PATTERNS = (
    "*.gp.mean", "*.gp.map", "*.gp.fc1", "*.gp.fc2", "*.gp.sigmoid",
    "head.ppm.branches.*", "head.classifier",
)  # fmt: skip
# What is summed or gated straight away and rounded after that, not before; and the gates, numbers
# between 0 and 1 of which there is one a channel.
UNROUNDED = (
    "*.gp", "*.ffn_fc2", "stages.*.repmlp_block", "*.gated", "*.sum", "*.sum?",
    "refine.*.second", "*.bottleneck.level", "*.bottleneck.pooled", "head.fusion.?",
)  # fmt: skip


@dataclass(frozen=True)
class QuantizeSettings:
    """How ranges are found.

    Attributes:
        estimator: of activation ranges: ``minmax`` (extremes over all frames), ``mean-minmax``
            (nncf's default: mean over frames of each frame's extremes) or ``percentile`` (mean
            over frames of each frame's 0.01 and 99.99 percentiles).
        float_patterns: shell patterns of node names that stay in float.
        overflow_fix: weights of seven bits, for CPUs without VNNI: sums of 8-bit products overflow
            there.
        rounding: of FC3's weights, ``compensated`` or ``nearest``: see ``compensation``.
    """

    estimator: str = DEFAULT_ESTIMATOR
    float_patterns: tuple[str, ...] = FLOAT_PATTERNS
    overflow_fix: bool = False
    rounding: str = DEFAULT_ROUNDING

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for keys and provenance."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def float_nodes(model: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    """Names of the nodes that match any of the patterns."""
    return [
        node.name
        for node in model.graph.node
        if any(PurePath(node.name).match(pattern) for pattern in patterns)
    ]


def calibrate(
    model: onnx.ModelProto, stacks: Sequence[Stack], settings: QuantizeSettings,
    notify: Callable[[int], None] | None = None,
) -> tuple[onnx.ModelProto, list[LayerRounding]]:  # fmt: skip
    """``quantize``, with weights rounded as the settings say, and what that gained by layer.

    Args and errors as there, and of ``compensate``; all of ``stacks`` are used.
    """
    if settings.rounding not in ROUNDINGS:
        raise CalibrationDataError(
            f"unknown rounding '{settings.rounding}': choose from {', '.join(ROUNDINGS)}"
        )
    quantized = quantize(model, stacks, len(stacks), settings, notify)
    if settings.rounding == "nearest":
        return quantized, []
    return compensate(quantized, model, stacks)


def quantize(
    model: onnx.ModelProto, frames: Iterable[npt.NDArray[np.uint8]], count: int,
    settings: QuantizeSettings, notify: Callable[[int], None] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    """The Q/DQ graph, uint8 where activations are never negative; weights at their nearest step.

    Args:
        model: float graph with one input, uint8 (N, H, W, 3).
        frames: at least ``count`` inputs of exactly that shape; walked through once per pass.
        count: how many to use.
        settings: how.
        notify: called with the number of frames used so far.

    Raises:
        CalibrationDataError: no frames, or an estimator that does not exist.
    """
    if count < 1:
        raise CalibrationDataError("calibration needs at least one frame")
    if settings.estimator not in ESTIMATORS:
        raise CalibrationDataError(
            f"unknown range estimator '{settings.estimator}': choose from {', '.join(ESTIMATORS)}"
        )
    silence_telemetry()
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    nncf.set_log_level(logging.ERROR)
    name = model.graph.input[0].name
    used = 0

    def feed(frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.uint8]]:
        nonlocal used
        used += 1
        if notify is not None:
            notify(used)
        return {name: frame}

    fix = OverflowFix.ENABLE if settings.overflow_fix else OverflowFix.DISABLE
    # nncf draws its own progress on stdout, where a command's JSON belongs.
    with contextlib.redirect_stdout(io.StringIO()), _fast_quantiles():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(frames, feed),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            target_device=nncf.TargetDevice.CPU,
            subset_size=count,
            ignored_scope=nncf.IgnoredScope(names=float_nodes(model, settings.float_patterns)),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=fix,
                # It corrects for nncf's own graph, with the roundings that UNROUNDED removes.
                disable_bias_correction=True,
                activations_range_estimator_params=_estimator(settings.estimator),
            ),
        )
    return make_regular(quantized)


@contextlib.contextmanager
def _fast_quantiles() -> Iterator[None]:
    """Within it, nncf finds the same quantiles in a tenth of the time."""
    from nncf.tensor.functions import numeric

    # nncf's table from array types to functions, for whoever has an array type of their own.
    # An nncf without it is as right, and slower.
    table = getattr(numeric.quantile, "registry", {})
    usual = table.get(np.ndarray)
    if usual is None:
        yield
        return
    table[np.ndarray] = quantiles
    try:
        yield
    finally:
        table[np.ndarray] = usual


def _estimator(name: str) -> Any:
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    def side(kind: StatisticsType, aggregate: AggregatorType, tail: float | None = None) -> Any:
        if tail is None:
            return StatisticsCollectorParameters(kind, aggregate)
        return StatisticsCollectorParameters(kind, aggregate, quantile_outlier_prob=tail)

    if name == "percentile":
        return RangeEstimatorParameters(
            side(StatisticsType.QUANTILE, AggregatorType.MEAN, 1e-4),
            side(StatisticsType.QUANTILE, AggregatorType.MEAN, 1e-4),
        )
    over = (
        (AggregatorType.MIN, AggregatorType.MAX)
        if name == "minmax"
        else (AggregatorType.MEAN, AggregatorType.MEAN)
    )
    return RangeEstimatorParameters(
        side(StatisticsType.MIN, over[0]), side(StatisticsType.MAX, over[1])
    )


def make_regular(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy as our back ends are to have it.

    The image's scale is exactly 1, every activation has one scale per tensor, what ``UNROUNDED``
    names is not rounded on its own, and pairs stand before the moves of a tensor.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _drop_pairs(fixed.graph, set(float_nodes(model, UNROUNDED)))
    quantize_before_moves(fixed.graph)
    graph = QdqGraph(fixed)
    image = _float_image(graph)
    changed: dict[str, npt.NDArray[Any]] = {}
    for node in graph.nodes:
        pair = graph.quantizer(node) if node.op_type == DEQUANTIZE else None
        if pair is None or pair.q is None or pair.constant:
            continue  # no pair, or a weight's
        if pair.scale is None or pair.zero_point is None:
            continue  # not of nncf's making; the rules will tell
        if pair.source == image:
            scale, zero = np.ones((), pair.scale.dtype), np.zeros((), np.uint8)
        elif pair.scale.size > 1:
            scale = np.asarray(pair.scale.max(), pair.scale.dtype)
            zero = np.asarray(pair.zero_point.ravel()[0], pair.zero_point.dtype)
        else:
            continue
        for each in (pair.q, pair.dq):
            changed |= {each.input[1]: scale, each.input[2]: zero}
            drop_axis(each)
    for tensor in fixed.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return fixed


def _drop_pairs(graph: onnx.GraphProto, makers: set[str]) -> None:
    """Remove the Q/DQ pair after each of the named nodes; their readers read the node itself."""
    outputs = {node.output[0] for node in graph.node if node.name in makers}
    first = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
    instead, gone = {}, set()
    for node in graph.node:
        pair = first.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if pair is not None and pair.input[0] in outputs:
            instead[node.output[0]] = pair.input[0]
            gone |= {node.name, pair.name}
    kept = [node for node in graph.node if node.name not in gone]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = instead.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)
    drop_unused(graph)


def _float_image(graph: QdqGraph) -> str | None:
    """The image in float: what the cast of the graph's input makes; ``None`` where none is cast."""
    for node in graph.nodes:
        if node.op_type == "Cast" and node.input[0] in graph.inputs:
            return str(node.output[0])
    return None
