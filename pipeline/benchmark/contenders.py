"""Engines of every runtime on one tile of the same frame, one request at a time.

Each runtime chooses its own number of threads, as it does for its users; the row tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnx

from pipeline.benchmark.ort_graph import float_batched_weights
from pipeline.benchmark.turns import Contender, kept_busy, timed
from pipeline.engines.base import Engine, FrameBatch
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.opening import open_engine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.errors import EngineError

NOT_ASKED: Final = "not asked for (--against)"

FP32, BF16, INT8 = "openvino fp32", "openvino bf16", "openvino int8"
ORT_FP32, ORT_INT8 = "onnxruntime fp32", "onnxruntime int8"

WHAT: Final[Mapping[str, str]] = {
    FP32: "the engine, one tile, all kernels in float32",
    BF16: "the same graph as OpenVINO runs 'FP32' by default on a CPU with BF16",
    INT8: "the engine, one tile",
    ORT_FP32: "ONNX Runtime on the float ONNX that the fp32 engine is built from",
    ORT_INT8: "ONNX Runtime on the Q/DQ ONNX that the int8 engine is built from, fused as it likes",
}


@dataclass(frozen=True)
class Facts:
    """What a row says of how it ran."""

    precision: str | None = None
    executed: Mapping[str, int] | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Built:
    """What the builds left. A missing path means that its build was refused, for ``reason``.

    Attributes:
        fp32, int8: engines with their manifests.
        graph, quantized: the ONNX files they were built from.
        reason: why there is no int8.
    """

    fp32: Path
    graph: Path
    int8: Path | None = None
    quantized: Path | None = None
    reason: str | None = None

    @property
    def best(self) -> Path:
        """The int8 engine, or the fp32 one where there is none."""
        return self.int8 or self.fp32


@dataclass(frozen=True)
class Entry:
    """A row's contender and facts, or why there is none.

    Attributes:
        contender: fills the row.
        facts: how it ran.
        reason: why there is no contender.
        note: what else must be known of how it ran, added to what the row says.
    """

    contender: Contender | None
    facts: Facts
    reason: str | None = None
    note: str | None = None


Entries: TypeAlias = "dict[str, Entry]"


def skipped(reason: str) -> Entry:
    """A row that cannot be measured here."""
    return Entry(None, Facts(), reason)


def engine_entries(built: Built, frame: FrameBatch, stack: ExitStack, seconds: float) -> Entries:
    """OpenVINO in three precisions.

    Args:
        built: the engines.
        frame: uint8 BGR (1, H, W, 3), what every one of them is given.
        stack: closes the engines.
        seconds: of one turn.

    Raises:
        EngineError, ArtifactError: an engine that was just built does not open.
    """
    no_int8 = skipped(built.reason or "there is no int8 engine")
    return {
        FP32: engine_entry(FP32, stack.enter_context(open_engine(built.fp32)), frame, seconds),
        BF16: _bf16(built.fp32, frame, stack, seconds),
        INT8: no_int8
        if built.int8 is None
        else engine_entry(INT8, stack.enter_context(open_engine(built.int8)), frame, seconds),
    }


def _bf16(path: Path, frame: FrameBatch, stack: ExitStack, seconds: float) -> Entry:
    """The float engine with the kernels that OpenVINO takes where nobody asks for float32."""
    engine = stack.enter_context(OpenVINOEngine(path, precision="fp16"))
    if engine.info.extra["float_kernels"] != "bf16":
        return skipped("this CPU has no BF16: OpenVINO runs float32 there")
    entry = engine_entry(BF16, engine, frame, seconds)
    return replace(entry, facts=replace(entry.facts, precision="bf16"))


def onnxruntime_entries(
    built: Built, frame: FrameBatch, folder: Path, stack: ExitStack, seconds: float
) -> Entries:
    """ONNX Runtime on the graphs the engines are built from, fused as it likes.

    Args:
        built: the graphs.
        frame: uint8 BGR (1, H, W, 3).
        folder: for a spelling of the int8 graph that it runs, where it does not run ours.
        stack: closes the sessions.
        seconds: of one turn.
    """

    def entry(name: str, path: Path, precision: str, note: str | None = None) -> Entry:
        engine = stack.enter_context(OnnxRuntimeEngine(path, exact=False, precision=precision))
        engine.infer(frame)  # some of what it accepts it cannot run
        return replace(engine_entry(name, engine, frame, seconds), note=note)

    entries = {ORT_FP32: entry(ORT_FP32, built.graph, "fp32")}
    if built.quantized is None:
        return entries | {ORT_INT8: skipped(built.reason or "there is no int8 graph")}
    try:
        return entries | {ORT_INT8: entry(ORT_INT8, built.quantized, "int8")}
    except EngineError as error:
        refused = str(error)
    respelled, count = float_batched_weights(onnx.load(built.quantized))
    if not count:
        return entries | {ORT_INT8: skipped(refused)}
    path = folder / "onnxruntime.int8.onnx"
    onnx.save(respelled, path)
    note = f"weights of {count} batched MatMuls in float32, for its int8 kernel fails on them"
    try:
        return entries | {ORT_INT8: entry(ORT_INT8, path, "int8", note)}
    except EngineError as error:
        return entries | {ORT_INT8: skipped(str(error))}


def engine_entry(name: str, engine: Engine, frame: FrameBatch, seconds: float) -> Entry:
    """One open engine, one request at a time."""
    return Entry(
        Contender((name,), lambda: {name: _one_at_a_time(engine, frame, seconds)}),
        facts_of(engine),
    )


def facts_of(engine: Engine) -> Facts:
    """What an engine says of how it runs."""
    info = engine.info
    return Facts(info.precision, dict(info.executed) or None, info.extra.get("threads"))


def _one_at_a_time(engine: Engine, frame: FrameBatch, seconds: float) -> list[float]:
    np.copyto(engine.input(0), frame)

    def run() -> None:
        engine.submit(0)
        engine.wait(0)

    return timed(run, seconds)


def busy_entry(engine: Engine, name: str, seconds: float) -> Entry:
    """All slots kept busy, nothing else done: what the runner could reach at most."""
    if engine.slots < 2:
        raise EngineError(f"'{engine.info.path}' has one slot: it cannot be kept busy")

    def turn() -> dict[str, list[float]]:
        return {name: kept_busy(engine, engine.slots, seconds)}

    return Entry(Contender((name,), turn), facts_of(engine))
