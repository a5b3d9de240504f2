"""The whole benchmark: build, open, take turns, and put it into one object."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from pipeline import Precision
from pipeline.artifact import sha256_of
from pipeline.benchmark import app, clip, contenders, runner
from pipeline.benchmark.contenders import (
    Built,
    Entries,
    busy_entry,
    engine_entries,
    onnxruntime_entries,
    skipped,
)
from pipeline.benchmark.machine import (
    describe,
    look,
    others_share,
    read_clock,
    why_loaded,
)
from pipeline.benchmark.options import BenchmarkOptions
from pipeline.benchmark.path import path_entries
from pipeline.benchmark.roofline import roofline
from pipeline.benchmark.rows import GROUPS, TORCH_DEPLOY, TORCH_TRAIN, compare, make_rows
from pipeline.benchmark.schema import Benchmark, Network, Roofline
from pipeline.benchmark.torch_forms import torch_entries
from pipeline.benchmark.turns import Contender, take_turns
from pipeline.build import DEFAULT_PRESET, BuildOptions, Progress, build
from pipeline.build_inputs import checkpoint_file
from pipeline.engines.base import FrameBatch
from pipeline.engines.cpu import cpu_count
from pipeline.engines.opening import open_engine
from pipeline.engines.setups import default_setup
from pipeline.errors import CheckFailedError, EdgeError
from pipeline.lineage import STORE
from pipeline.stage import Notify

_TARGET_SHAPE, _TARGET_CPUS = (512, 1024), 2


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Who is told what: of the builds' stages, of what is under way, of what spoils the figures
    while there is still time to stop, and whose turn it is."""

    stage: Notify = lambda event: None
    say: Callable[[str], None] = lambda line: None
    warn: Callable[[str], None] = lambda line: None
    turn: Callable[[int, str], None] = lambda number, row: None


@dataclass(frozen=True)
class Prepared:
    """The engines, and what they were built from."""

    built: Built
    network: Network
    checkpoint: Path


def run(options: BenchmarkOptions, listener: Listener | None = None) -> Benchmark:
    """Measure everything that can be measured here.

    Raises:
        UsageError, CheckpointError, ModelError, DatasetError, SourceError: bad input.
        CheckFailedError: not even the fp32 engine is what its network says.
        EngineError, MissingDependencyError, SinkError: nothing can be built or run here.
    """
    told = listener or Listener()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepared = prepare(options, told.stage)
        # Before any other runtime has threads here: beside theirs, OpenVINO's took turns on one
        # core, and the engine half as long again, in some runs.
        roofs = None
        if options.roofline and prepared.built.int8 is not None:
            told.say("profiling the int8 engine's layers")
            roofs = _roofline(prepared.built.int8, told.say)
        video, what = _video(options, folder, told.say)
        told.say("opening the engines")
        entries = _entries(options, prepared, video, folder, stack)
        before = look(options.pace.look)
        busy = why_loaded(before, None, cpu_count())
        if busy is not None:
            told.warn(busy)
        start, clock = perf_counter(), read_clock()
        found = take_turns(_contenders(entries), options.rounds, told.turn, options.pace.settle)
        others = others_share(clock, read_clock(), cpu_count())
        seconds = perf_counter() - start
        after = look(options.pace.look)
    return Benchmark(
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=options.command, network=prepared.network, video=what, rounds=options.rounds,
        seconds=round(seconds, 1), machine=describe(before, after, others),
        rows=make_rows(entries, found), comparisons=compare(found, targets=_targets(options)),
        roofline=roofs,
    )  # fmt: skip


def prepare(options: BenchmarkOptions, notify: Notify) -> Prepared:
    """Build the fp32 and the int8 engine, or find them in the store. Errors: see ``run``.

    An int8 engine that its checks refuse is no reason to measure nothing: it is left out.
    """
    preset = options.preset
    if preset is None and options.checkpoint is None:
        preset = DEFAULT_PRESET
    checkpoint = checkpoint_file(
        options.checkpoint, preset or DEFAULT_PRESET, options.engines / STORE,
        random=options.random_weights,
    )  # fmt: skip

    def asked(precision: Precision) -> BuildOptions:
        return BuildOptions(
            precision=precision, checkpoint=options.checkpoint,
            random_weights=options.random_weights, preset=preset, shape=options.shape,
            replace_other=False,
            dataset=options.dataset, frames=options.frames, output=options.engines,
            injection=options.injection,
            min_agreement=0.0 if options.random_weights else options.min_agreement,
        )  # fmt: skip

    floating = build(asked("fp32"), Progress(stage=notify))
    built, agreement = Built(floating.engine, floating.graph.path), None
    try:
        int8 = build(asked("int8"), Progress(stage=notify))
    except CheckFailedError as error:
        built = Built(floating.engine, floating.graph.path, reason=f"int8 was refused: {error}")
    else:
        # So that ``run_video.py``, which takes the newest engine, takes this one.
        int8.engine.touch()
        quantized = int8.quantized.path if int8.quantized else None
        built = Built(floating.engine, floating.graph.path, int8.engine, quantized)
        agreement = int8.checks["int8_agreement"]
    network = Network(
        preset=floating.preset, checkpoint=checkpoint.name,
        checkpoint_sha256=sha256_of(checkpoint), shape=options.shape,
        injection=options.injection, multiply_adds=int(floating.graph.facts["multiply_adds"]),
        int8_agreement=agreement,
    )  # fmt: skip
    return Prepared(built, network, checkpoint)


def profile_only(options: BenchmarkOptions, listener: Listener | None = None) -> Roofline:
    """The roofline alone, of the int8 engine. Errors: see ``run``, and ``CheckFailedError``."""
    told = listener or Listener()
    built = prepare(options, told.stage).built
    if built.int8 is None:
        raise CheckFailedError(built.reason or "there is no int8 engine to profile")
    told.say("profiling the int8 engine's layers")
    return roofline(built.int8)


def _roofline(engine: Path, say: Callable[[str], None]) -> Roofline | None:
    try:
        return roofline(engine)
    except EdgeError as error:
        say(f"no roofline: {error}")
        return None


def _video(options: BenchmarkOptions, folder: Path, say: Callable[[str], None]) -> tuple[Path, str]:
    """(the clip, what it is)."""
    if options.video is not None:
        height, width = clip.read_frames(options.video, 1)[0].shape[:2]
        return options.video, f"{options.video.name}, {width}x{height}"
    say("rendering a clip")
    path = folder / "streets.mp4"
    return path, clip.write_streets(path, frames=options.pace.clip)


def _entries(
    options: BenchmarkOptions, prepared: Prepared, video: Path, folder: Path, stack: ExitStack
) -> Entries:
    """A contender for every row, or why there is none."""
    built, pace, against = prepared.built, options.pace, options.against
    streams = default_setup("throughput", cpu_count()).streams  # as for files
    frame = _tile(video, options.shape)
    entries: Entries = {}
    if "torch" in against:
        entries |= torch_entries(
            prepared.checkpoint, prepared.network.preset, options.injection, frame, pace.engine
        )
    else:
        entries |= dict.fromkeys((TORCH_TRAIN, TORCH_DEPLOY), skipped(contenders.NOT_ASKED))
    entries |= engine_entries(built, frame, stack, pace.engine)
    if "onnxruntime" in against:
        entries |= onnxruntime_entries(built, frame, folder, stack, pace.engine)
    else:
        names = (contenders.ORT_FP32, contenders.ORT_INT8)
        entries |= dict.fromkeys(names, skipped(contenders.NOT_ASKED))
    latency = stack.enter_context(open_engine(built.best))
    entries |= path_entries(latency, video, folder, stack, pace.path)
    for name in (app.APP_LATENCY, app.APP_THROUGHPUT):
        entries[name] = app.app_entry(
            name, built.best, latency.info.precision, streams,
            asked="benchmark_app" in against, seconds=pace.app,
        )  # fmt: skip
    busy = stack.enter_context(open_engine(built.best, streams=streams, slots=streams + 1))
    entries[runner.BUSY] = busy_entry(busy, runner.BUSY, pace.runner)
    entries[runner.LABELS] = runner.runner_entry(busy, video, None, pace.runner)
    entries[runner.OVERLAY] = runner.runner_entry(busy, video, folder / "o.mp4", pace.runner)
    entries[runner.IMPORT] = runner.import_entry()
    entries[runner.FIRST_FRAME] = runner.first_frame_entry(built.best, video)
    return entries


def _tile(video: Path, shape: tuple[int, int]) -> FrameBatch:
    """The clip's first frame at the engine's size, (1, H, W, 3) uint8 BGR."""
    frame = clip.read_frames(video, 1)[0]
    resized = cv2.resize(frame, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)[None]


def _contenders(entries: Entries) -> list[Contender]:
    """Each of them once, in the order of the rows; one may fill several rows."""
    found: list[Contender] = []
    for names in GROUPS.values():
        for name in names:
            contender = entries[name].contender
            if contender is not None and contender not in found:
                found.append(contender)
    return found


def _targets(options: BenchmarkOptions) -> bool:
    return options.shape == _TARGET_SHAPE and cpu_count() == _TARGET_CPUS
