"""Every layer of a compiled engine against what the CPU can do (Williams et al. 2009).

A layer of M multiply-adds that moves B bytes takes at least

    roof = max(M / peak, B / bandwidth)

with the int8 peak of a plain MatMul and the bandwidth of plain copying. Both are measured, and so
is the layer, by OpenVINO's own profile. What fits into the caches moves faster than memory does,
so a layer may beat its memory roof; none beats its compute roof but by what the MatMul leaves.

Multiply-adds are counted in the graph that OpenVINO compiled, not in the one it was given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.artifact import read_manifest
from pipeline.benchmark.peak import measure_peak
from pipeline.benchmark.schema import Layer, Peak, Roofline
from pipeline.benchmark.statistics import median
from pipeline.benchmark.turns import timed
from pipeline.engines.opening import manifest_of
from pipeline.engines.openvino import import_openvino
from pipeline.errors import EngineError, last_line

RUNS: Final = 30
_WARM: Final = 3


@dataclass(frozen=True)
class Measured:
    """A layer as it ran: see ``schema.Layer``."""

    name: str
    kind: str
    kernel: str
    ms: float
    macs: int
    bytes: int


def roofline(engine: Path, peak: Peak | None = None, runs: int = RUNS) -> Roofline:
    """Profile an OpenVINO engine and compare it with the CPU's best.

    Args:
        engine: the ``.xml`` of an engine with its manifest.
        peak: measured now where none is given.
        runs: profiled inferences; each layer's time is their median.

    Raises:
        ArtifactError: the engine has no manifest.
        EngineError: it cannot be compiled or profiled.
    """
    precision = str(read_manifest(manifest_of(engine)).facts["precision"])
    peak = peak or measure_peak()
    layers, engine_ms = profile(engine, runs)
    return summarise(engine.name, precision, peak, layers, engine_ms)


def summarise(
    engine: str, precision: str, peak: Peak, layers: Sequence[Measured], engine_ms: float
) -> Roofline:
    """Roofs of measured layers, and the whole."""
    total = sum(layer.ms for layer in layers)
    rows = [_against(layer, peak, total) for layer in layers]
    macs = sum(layer.macs for layer in layers)
    gmacs = macs / engine_ms / 1e6
    return Roofline(
        engine=engine, precision=precision, peak=peak, macs=macs,
        bytes=sum(layer.bytes for layer in layers),
        layers_ms=round(total, 4), roof_ms=round(sum(row.roof_ms for row in rows), 4),
        engine_ms=round(engine_ms, 4), gmacs=round(gmacs, 2),
        share_of_peak=round(gmacs / peak.int8_gmacs, 4),
        layers=sorted(rows, key=lambda row: -row.ms),
    )  # fmt: skip


def _against(layer: Measured, peak: Peak, total: float) -> Layer:
    compute = layer.macs / peak.int8_gmacs / 1e6  # ms
    memory = layer.bytes / peak.bandwidth_gbs / 1e6
    return Layer(
        name=layer.name, kind=layer.kind, kernel=layer.kernel, ms=round(layer.ms, 4),
        share=round(layer.ms / total, 4) if total else 0.0,
        macs=layer.macs, bytes=layer.bytes,
        intensity=round(layer.macs / layer.bytes, 2) if layer.bytes else 0.0,
        gmacs=round(layer.macs / layer.ms / 1e6, 2) if layer.ms else 0.0,
        roof_ms=round(max(compute, memory), 4),
        bound="compute" if compute > memory else "memory",
    )  # fmt: skip


def profile(engine: Path, runs: int = RUNS) -> tuple[list[Measured], float]:
    """(the layers that ran, milliseconds of one inference without profiling).

    The kernels of what is not quantized are float32, as in ``engines.openvino``.

    Raises:
        EngineError: OpenVINO cannot compile the file.
    """
    openvino = import_openvino()
    core = openvino.Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        plain = core.compile_model(str(engine), "CPU", config)
        profiled = core.compile_model(str(engine), "CPU", config | {"PERF_COUNT": True})
    except RuntimeError as error:
        reason = last_line(str(error))
        raise EngineError(f"'{engine}' cannot be compiled by OpenVINO: {reason}") from error
    frame = np.random.default_rng(0).integers(0, 256, tuple(plain.inputs[0].shape), np.uint8)
    given = openvino.Tensor(frame, shared_memory=True)
    request = plain.create_infer_request()
    request.set_input_tensor(given)
    engine_ms = median(timed(request.infer, 0.0, runs))
    request = profiled.create_infer_request()
    request.set_input_tensor(given)
    times: dict[str, list[float]] = {}
    kinds: dict[str, tuple[str, str]] = {}
    for number in range(_WARM + runs):
        request.infer()
        if number < _WARM:
            continue
        for info in request.profiling_info:
            if info.status == openvino.ProfilingInfo.Status.EXECUTED:
                times.setdefault(info.node_name, []).append(info.real_time.total_seconds() * 1e3)
                kinds[info.node_name] = info.node_type, info.exec_type
    nodes = {n.get_friendly_name(): n for n in profiled.get_runtime_model().get_ops()}
    return [
        Measured(name, *kinds[name], median(spent), *count(nodes[name]))
        for name, spent in times.items()
        if name in nodes
    ], engine_ms


def count(node: Any) -> tuple[int, int]:
    """(multiply-adds, bytes read and written) of a node of OpenVINO's runtime model."""
    taken = [tuple(int(n) for n in port.get_shape()) for port in node.inputs()]
    given = [tuple(int(n) for n in port.get_shape()) for port in node.outputs()]
    moved = sum(_bytes(port) for port in (*node.inputs(), *node.outputs()))
    kind = node.get_rt_info()["layerType"].astype(str)
    return multiply_adds(kind, taken, given), moved


def multiply_adds(
    kind: str, taken: Sequence[tuple[int, ...]], given: Sequence[tuple[int, ...]]
) -> int:
    """Of one node, by its kind and the shapes of its inputs and outputs.

    A convolution's weights are (O, I, ...) or (G, O/G, I/G, ...): each output element costs all
    but the channels it is one of. A MatMul's inner dimension is what its left side has beside the
    output's rows, whichever way round it lies.
    """
    if kind == "Convolution":
        weights = taken[1]
        grouped = len(weights) > len(given[0])
        return math.prod(given[0]) * math.prod(weights[2 if grouped else 1 :])
    if kind == "FullyConnected":
        return math.prod(given[0]) * taken[0][-1]
    if kind == "MatMul":
        rows = given[0][-2] if len(given[0]) > 1 else 1
        return math.prod(given[0]) * (math.prod(taken[0][-2:]) // rows)
    return 0


def _bytes(port: Any) -> int:
    elements = math.prod(int(n) for n in port.get_shape())
    return elements * port.get_element_type().bitwidth // 8 if elements else 0


def as_markdown(found: Roofline, most: int = 20) -> str:
    """The roofline as a Markdown table of the slowest layers, with the sums above it."""
    peak = found.peak
    lines = [
        f"`{found.engine}`: {found.macs / 1e9:.2f} G multiply-adds in {found.engine_ms:.2f} ms, "
        f"{found.gmacs:.0f} G a second, {found.share_of_peak:.0%} of the {peak.int8_gmacs:.0f} G "
        f"that a plain int8 MatMul of {peak.int8_size} reaches here ({peak.int8_kernel}; "
        f"float32: {peak.f32_gmacs:.0f} G). Copying moves {peak.bandwidth_gbs:.1f} GB a second. "
        f"All layers together take {found.layers_ms:.2f} ms; at their roofs, "
        f"{found.roof_ms:.2f} ms.",
        "",
        "| layer | kind | kernel | ms | share | M multiply-adds | MB | G a second | roof ms "
        "| bound |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{layer.name}` | {layer.kind} | {layer.kernel} | {layer.ms:.3f} "
        f"| {layer.share:.1%} | {layer.macs / 1e6:.1f} | {layer.bytes / 1e6:.2f} "
        f"| {layer.gmacs:.0f} | {layer.roof_ms:.3f} | {layer.bound} |"
        for layer in found.layers[:most]
    ]
    rest = found.layers[most:]
    if rest:
        lines.append(
            f"| {len(rest)} more | | | {sum(r.ms for r in rest):.3f} "
            f"| {sum(r.share for r in rest):.1%} | {sum(r.macs for r in rest) / 1e6:.1f} "
            f"| {sum(r.bytes for r in rest) / 1e6:.2f} | | {sum(r.roof_ms for r in rest):.3f} | |"
        )
    return "\n".join((*lines, "", *_by_kind(found), "")) + "\n"


def _by_kind(found: Roofline) -> list[str]:
    kinds: dict[str, list[Layer]] = {}
    for layer in found.layers:
        kinds.setdefault(layer.kind, []).append(layer)
    summed: Mapping[str, float] = {k: sum(x.ms for x in each) for k, each in kinds.items()}
    lines = ["| kind | layers | ms | share |", "|---|---|---|---|"]
    for kind in sorted(kinds, key=lambda k: -summed[k]):
        share = sum(layer.share for layer in kinds[kind])
        lines.append(f"| {kind} | {len(kinds[kind])} | {summed[kind]:.2f} | {share:.1%} |")
    return lines
