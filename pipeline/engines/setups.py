"""How an engine is opened on a CPU: streams, threads and slots.

What ``build_engine.py --tune`` measured wins over the defaults where it was measured on such a
machine: the same CPU, and as many of it. It lies in the engine's manifest under ``tuning``, which
no hash covers, so it is read as input: what cannot be is left aside, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from pipeline.engines.cpu import cpu_count, cpu_model

Goal: TypeAlias = Literal["latency", "throughput"]
GOALS: Final[tuple[Goal, ...]] = ("latency", "throughput")
TUNING_VERSION: Final = 1
MOST_STREAMS: Final = 8
"""Each holds the network's activations once more."""

_MOST_SLOTS, _MOST_THREADS = 64, 4096
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Setup:
    """How an engine is opened.

    Attributes:
        streams: requests computed at the same time.
        threads: of the CPU, for all streams together; 0 is as many as the runtime wants.
        slots: requests that may be in flight.
    """

    streams: int
    threads: int
    slots: int

    def as_json(self) -> dict[str, int]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Chosen:
    """A setup, and where it comes from.

    Attributes:
        tuned: it was measured to be the best here.
        ignored: why a measured one was left aside; ``None`` where there is none.
    """

    setup: Setup
    tuned: bool = False
    ignored: str | None = None


def default_setup(goal: Goal, cpus: int) -> Setup:
    """What is taken where nothing was measured.

    A stream more gives more frames a second and makes each of them wait longer. There is a slot
    more than there are streams, so that the next frame is there when a stream is.
    """
    streams = 1 if goal == "latency" else min(cpus, MOST_STREAMS)
    return Setup(streams, 0, streams + 1)


def choose_setup(
    facts: Mapping[str, Any], goal: Goal, *, threads: int = 0, streams: int = 0, slots: int = 0
) -> Chosen:
    """How to open an engine here.

    Args:
        facts: of its manifest.
        goal: the least time a frame, or the most frames a second.
        threads: 0 leaves them open.
        streams: 0 leaves them open. Threads and streams were measured together, so one that is
            given puts what was measured aside, without a word.
        slots: at least so many; there are always more than streams.
    """
    chosen = Chosen(default_setup(goal, cpu_count()))
    if threads or streams:
        streams = streams or chosen.setup.streams
        chosen = Chosen(Setup(streams, threads, streams + 1))
    elif facts.get("tuning") is not None:
        chosen = _tuned(facts["tuning"], goal, chosen)
    setup = chosen.setup
    return replace(chosen, setup=replace(setup, slots=max(slots, setup.slots)))


def _tuned(tuning: Any, goal: Goal, default: Chosen) -> Chosen:
    """The measured setup for that goal, or the default and why."""
    try:
        if tuning["version"] != TUNING_VERSION:
            raise ValueError
        setup = Setup(**tuning[goal]["chosen"])
        _check(setup)
        cpu, cpus = tuning["machine"]["cpu"], tuning["machine"]["cpus"]
        if not isinstance(cpu, str) or type(cpus) is not int:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        return replace(default, ignored="the engine's tuning cannot be read: taking the defaults")
    here = (cpu_model(), cpu_count())
    if (cpu, cpus) != here:
        name = " ".join(cpu.split())[:_LONGEST_NAME]
        there = f"the engine was tuned with {cpus} CPUs ({name})"
        why = f"{there}, this run has {here[1]} ({here[0]}): taking the defaults"
        return replace(default, ignored=why)
    return Chosen(setup, tuned=True)


def _check(setup: Setup) -> None:
    """Raise ``ValueError`` unless these are numbers that a measurement could have chosen."""
    most = {"streams": MOST_STREAMS, "threads": _MOST_THREADS, "slots": _MOST_SLOTS}
    for name, value in setup.as_json().items():
        least = 0 if name == "threads" else 1
        if type(value) is not int or not least <= value <= most[name]:
            raise ValueError(name)
    if setup.slots <= setup.streams:
        raise ValueError("slots")
