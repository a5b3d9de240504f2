"""A verified OpenVINO engine -> the streams, threads and slots it runs best with on this machine.

Setups take turns, round by round, on one picture of noise: an engine's time does not depend on
what it sees. The choice is an artifact of its own, kept under a key over the engine's files, the
runtime's version, the CPU and how many of it there are: the engine in the store stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import Field

from pipeline import OpenVINOPrecision
from pipeline.artifact import Artifact
from pipeline.benchmark.machine import look, others_share, read_clock, why_loaded
from pipeline.benchmark.statistics import median
from pipeline.benchmark.turns import Contender, Samples, kept_busy, take_turns
from pipeline.engines.cpu import cpu_count, cpu_model, device_facts
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.engines.setups import GOALS, TUNING_VERSION, Goal, Setup
from pipeline.errors import EngineError
from pipeline.stage import Notify, Product, Stage, StageConfig
from pipeline.store import Store
from pipeline.tuning import Timed, as_facts, candidates

TUNING = "tuning.json"
_LEAST_SAMPLES = 1


class TuneConfig(StageConfig):
    """Precision of the engine, and how long is measured, see ``TunePace``."""

    precision: OpenVINOPrecision
    rounds: int = Field(ge=1)
    seconds: float = Field(gt=0)
    settle: float = Field(ge=0)
    look: float = Field(gt=0)


class TuneStage(Stage):
    """Input: an OpenVINO engine.

    Its fact ``tuning`` is what goes into the engine's manifest: for each of ``latency`` and
    ``throughput`` what ``tuning.as_facts`` says, and ``machine``, ``load``, ``rounds``,
    ``seconds``, ``tiles`` (the engine's batch), ``measured_at``.

    Args:
        config: see ``TuneConfig``.
        store: where the choice is kept.
        notify: told of the stage.
        turned: told the turns done and all of them.
    """

    name = "tune"
    version = 1
    produces = "tuning"
    tools = ("openvino",)
    config: TuneConfig

    def __init__(
        self, config: TuneConfig, store: Store, notify: Notify | None = None,
        turned: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:  # fmt: skip
        super().__init__(config, store, notify)
        self.turned = turned

    def device(self) -> dict[str, Any]:
        """What is best on this CPU, with so many of it, is so nowhere else."""
        return device_facts() | {"cpus": cpu_count()}

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``EngineError`` where the engine fails."""
        (artifact,) = inputs
        config, cpus = self.config, cpu_count()
        begin = perf_counter()
        with ExitStack() as stack:
            plans = {goal: candidates(goal, cpus) for goal in GOALS}
            opened = self._open(artifact.path, plans, stack)
            members = [(g, s) for g, plan in plans.items() for s in plan if _pair(s) in opened]
            tiles = opened[_pair(members[0][1])].inputs[0].shape[0]
            before = look(config.look)
            clock = read_clock()
            rounds = self._turns(opened, members)
            others = others_share(clock, read_clock(), cpus)
            found: dict[Goal, list[Timed]] = {goal: [
                Timed(s, int(opened[_pair(s)].info.extra["threads"]), rounds[_row(g, s)])
                for g, s in members if g == goal
            ] for goal in GOALS}  # fmt: skip
        after = look(config.look)
        facts: dict[str, Any] = {
            "version": TUNING_VERSION,
            "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": {"cpu": cpu_model(), "cpus": cpus},
            "load": {
                "before": before.model_dump(), "after": after.model_dump(), "others": others,
                "loaded": why_loaded(before, others, cpus),
            },
            "rounds": config.rounds,
            "seconds": round(perf_counter() - begin, 1),
            "tiles": tiles,
        }  # fmt: skip
        for goal, each in found.items():
            facts[goal] = as_facts(each, tiles)
        (folder / TUNING).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return Product(main=TUNING, facts={"tuning": facts})

    def _open(
        self, path: Path, plans: Mapping[Goal, Sequence[Setup]], stack: ExitStack
    ) -> dict[tuple[int, int], OpenVINOEngine]:
        """An engine for every pair of streams and threads, with all the slots anyone wants.

        The runtime may take fewer than it is offered; of pairs that come to the same, the first
        and defaults.
        """
        defaults = [_pair(plan[0]) for plan in plans.values()]
        setups = [setup for plan in plans.values() for setup in plan]
        opened: dict[tuple[int, int], OpenVINOEngine] = {}
        for pair in dict.fromkeys(_pair(setup) for setup in setups):
            slots = max(setup.slots for setup in setups if _pair(setup) == pair)
            engine = OpenVINOEngine(
                path, precision=self.config.precision, streams=pair[0], threads=pair[1],
                slots=slots,
            )  # fmt: skip
            known = any(_taken(engine) == _taken(other) for other in opened.values())
            if known and pair not in defaults:
                engine.close()
                continue
            opened[pair] = stack.enter_context(engine)
            noise = np.random.default_rng(0).integers(0, 256, engine.inputs[0].shape, np.uint8)
            for slot in range(slots):
                np.copyto(engine.input(slot), noise)
        return opened

    def _turns(
        self, opened: Mapping[tuple[int, int], OpenVINOEngine],
        members: Sequence[tuple[Goal, Setup]],
    ) -> dict[str, tuple[float, ...]]:  # fmt: skip
        """Milliseconds by name of the row, the median of each round."""
        config, done = self.config, 0
        total = config.rounds * len(members)

        def told(_number: int, _row: str) -> None:
            nonlocal done
            self.turned(done, total)
            done += 1

        contenders = [
            _contender(_row(goal, setup), goal, setup, opened[_pair(setup)], config.seconds)
            for goal, setup in members
        ]
        found = take_turns(contenders, config.rounds, told, config.settle)
        self.turned(total, total)
        for row, reason in found.failed.items():
            raise EngineError(f"tuning failed ({row}): {reason}")
        return {row: tuple(median(each) for each in them) for row, them in found.rounds.items()}


def _pair(setup: Setup) -> tuple[int, int]:
    return setup.streams, setup.threads


def _taken(engine: OpenVINOEngine) -> tuple[int, int]:
    """(streams, threads) that the runtime really took."""
    return int(engine.info.extra["streams"]), int(engine.info.extra["threads"])


def _row(goal: Goal, setup: Setup) -> str:
    threads = setup.threads or "all"
    return f"{goal}: {setup.streams} streams, {threads} threads, {setup.slots} slots"


def _contender(
    row: str, goal: Goal, setup: Setup, engine: OpenVINOEngine, seconds: float
) -> Contender:
    """One request at a time, or as many as the setup has slots."""
    slots = 1 if goal == "latency" else setup.slots

    def turn() -> Samples:
        return {row: kept_busy(engine, slots, seconds, _LEAST_SAMPLES)}

    return Contender((row,), turn)
