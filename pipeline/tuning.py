"""Which streams, threads and slots an engine is opened with: candidates, and who wins.

The default is the incumbent. A challenger takes its place only if it was faster in *every* round
and by ``LEAST_GAIN`` in the median of rounds: the whole spread of the measurement lies on its side.
Were all setups alike, that happened to one of k challengers with probability k / 2^rounds at most,
whatever the noise looks like. Rounds are compared with themselves only, so that what slows the
machine for a while decides nothing.

Being faster in every round is transitive. So whoever wins beats the default, and nobody who was
measured beats the winner; of those that cannot be told apart the cheapest wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.benchmark.statistics import PairedRatio, median, paired_ratio
from pipeline.engines.setups import MOST_STREAMS, Goal, Setup, default_setup

LEAST_GAIN: Final = 1.02
"""How many times as fast is worth leaving the default for."""


@dataclass(frozen=True)
class Timed:
    """A setup's times.

    Attributes:
        setup: what was timed.
        threads: those that the runtime really took.
        rounds: milliseconds, the median of each round: of one inference for latency, between two
            results for throughput.
    """

    setup: Setup
    threads: int
    rounds: tuple[float, ...]


def candidates(goal: Goal, cpus: int) -> list[Setup]:
    """What is worth measuring: the default first, then from cheap to dear.

    For latency fewer threads (a small network may not feed them all), by halves. For throughput
    fewer streams, by halves, on all threads and on half of them (one for each core, where a core
    has two), and more slots. Slots cannot be told from the time of one request, so for latency
    they stay as they are. All streams of all candidates together are fewer than five times the
    default's, which bounds the memory.

    Args:
        goal: what they are measured for.
        cpus: logical CPUs at hand, at least 1.
    """
    default = default_setup(goal, cpus)
    half = cpus // 2
    if goal == "latency":
        others = [Setup(1, threads, default.slots) for threads in _halves(half)]
    else:
        others = [Setup(streams, 0, streams + 1) for streams in _halves(default.streams)]
        others += [Setup(s, half, s + 1) for s in _halves(min(half, MOST_STREAMS))]
        others.append(Setup(default.streams, 0, 2 * default.streams))
    cheap = sorted(set(others), key=lambda s: (s.streams, s.slots, s.threads or cpus))
    return [default] + [s for s in cheap if s != default]


def _halves(number: int) -> list[int]:
    found = []
    while number:
        found.append(number)
        number //= 2
    return found


def beats(challenger: Timed, incumbent: Timed) -> bool:
    """Whether it was faster in every round, and by ``LEAST_GAIN`` in the median of them."""
    ratio = _ratio(incumbent, challenger)
    return ratio.low > 1 and ratio.value >= LEAST_GAIN


def choose(timed: Sequence[Timed]) -> Timed:
    """The winner. The first is the default; the others come from cheap to dear.

    Raises:
        ValueError: nothing was timed, or not in as many rounds each.
    """
    if not timed:
        raise ValueError("there is nothing to choose from")
    best = timed[0]
    for challenger in timed[1:]:
        if beats(challenger, best):
            best = challenger
    return best


def as_facts(timed: Sequence[Timed], tiles: int) -> dict[str, Any]:
    """What was chosen and all that was measured, plain JSON.

    ``chosen`` and ``default`` are setups; ``gain`` how many times as fast as the default the
    chosen one is, ``null`` for the default itself. ``candidates`` has for each setup the threads
    that the runtime took, ``ms`` (median of rounds), ``rounds_ms``, ``tiles_per_second`` and its
    ``gain``.

    Args:
        timed: see ``choose``.
        tiles: in one inference, the engine's batch.
    """
    default, best = timed[0], choose(timed)
    return {
        "chosen": best.setup.as_json(),
        "default": default.setup.as_json(),
        "gain": _gain(default, best),
        "candidates": [
            each.setup.as_json()
            | {
                "threads_taken": each.threads,
                "ms": round(median(each.rounds), 4),
                "tiles_per_second": round(tiles * 1e3 / median(each.rounds), 3),
                "gain": _gain(default, each),
                "rounds_ms": [round(ms, 4) for ms in each.rounds],
            }
            for each in timed
        ],
    }


def _gain(default: Timed, other: Timed) -> dict[str, float] | None:
    if other is default:
        return None
    ratio = _ratio(default, other)
    return {
        "value": round(ratio.value, 4), "low": round(ratio.low, 4), "high": round(ratio.high, 4)
    }  # fmt: skip


def _ratio(above: Timed, below: Timed) -> PairedRatio:
    return paired_ratio(above.rounds, below.rounds)
