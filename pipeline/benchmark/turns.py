"""Contenders take turns: A B C, A B C, ... Each round gives every one of them its time.

Before each turn the machine is left alone for a moment: thread pools of other runtimes spin for a
while after their last run, and would take the next one's CPU. Then one run is not timed, so that
caches hold the contender's own data and not its neighbour's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, TypeAlias

from pipeline.engines.base import Engine
from pipeline.errors import EdgeError

LEAST_SAMPLES: Final = 3

Samples: TypeAlias = "dict[str, list[float]]"
"""Milliseconds a frame, sample by sample, by name of the row."""


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes:
        rows: names of the rows it fills.
        turn: one turn; gives at least one sample for each of them.
    """

    rows: tuple[str, ...]
    turn: Callable[[], Samples]


@dataclass
class Found:
    """What the turns gave.

    Attributes:
        rounds: by row, the samples of each round.
        failed: by row, why it has none: a row that failed once is out.
    """

    rounds: dict[str, list[list[float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    notify: Callable[[int, str], None] = lambda number, row: None,
    settle: float = 0.0,
) -> Found:
    """Run every contender once a round.

    An ``EdgeError`` puts its contender out of the run, with that reason; every other error is a
    bug and ends it.

    Args:
        contenders: in the order of their turns.
        rounds: at least 1.
        notify: told the round, from 0, and the row whose turn comes.
        settle: seconds of rest before each turn; none unless told.
    """
    found = Found()
    for number in range(rounds):
        for contender in contenders:
            if contender.rows[0] in found.failed:
                continue
            notify(number, contender.rows[0])
            time.sleep(settle)
            try:
                samples = contender.turn()
            except EdgeError as error:
                for row in contender.rows:
                    found.failed[row] = str(error)
                    found.rounds.pop(row, None)
                continue
            for row in contender.rows:
                found.rounds.setdefault(row, []).append(samples[row])
    return found


def timed(run: Callable[[], object], seconds: float, least: int = LEAST_SAMPLES) -> list[float]:
    """Milliseconds of each run: as many as fill ``seconds``, ``least`` at least, after one more."""
    run()
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < least or perf_counter() < end:
        begin = perf_counter()
        run()
        samples.append((perf_counter() - begin) * 1e3)
    return samples


def kept_busy(
    engine: Engine, slots: int, seconds: float, least: int = LEAST_SAMPLES
) -> list[float]:
    """Milliseconds between two results with so many requests in flight, in the order of slots.

    With one slot: of one inference. Each sample is the mean over a round of all slots.
    """
    for slot in range(slots):
        engine.submit(slot)

    def run() -> None:
        for slot in range(slots):
            engine.wait(slot)
            engine.submit(slot)

    samples = timed(run, seconds, least)
    for slot in range(slots):
        engine.wait(slot)
    return [sample / slots for sample in samples]
