"""Which setup wins: only one that is better than the whole spread of the measurement."""

from __future__ import annotations

from itertools import product
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.setups import GOALS, MOST_STREAMS, Goal, Setup, default_setup
from pipeline.tuning import LEAST_GAIN, Timed, as_facts, candidates, choose

ROUNDS = 5
times = st.lists(st.floats(1.0, 100.0), min_size=ROUNDS, max_size=ROUNDS).map(tuple)
fields = st.lists(times, min_size=1, max_size=6)


def timed(rounds: list[tuple[float, ...]]) -> list[Timed]:
    """Setups told apart by their slots, the default first."""
    return [Timed(Setup(1, 0, 2 + n), 2, each) for n, each in enumerate(rounds)]


def gains(one: Timed, other: Timed) -> list[float]:
    """How many times as fast ``other`` is, round by round."""
    return [a / b for a, b in zip(one.rounds, other.rounds, strict=True)]


def clearly_faster(one: Timed, other: Timed) -> bool:
    return min(gains(one, other)) > 1 and median(gains(one, other)) >= LEAST_GAIN


@given(fields)
def test_the_winner_beats_the_default_and_nobody_beats_the_winner(
    rounds: list[tuple[float, ...]],
) -> None:
    found = timed(rounds)
    winner = choose(found)
    assert winner is found[0] or clearly_faster(found[0], winner)
    assert not [each for each in found if clearly_faster(winner, each)]


@given(fields, st.lists(st.floats(0.5, 20.0), min_size=ROUNDS, max_size=ROUNDS))
def test_what_slows_everybody_in_a_round_decides_nothing(
    rounds: list[tuple[float, ...]], slower: list[float]
) -> None:
    """In powers of two, so that not even rounding does."""
    powers = [2.0 ** round(each) for each in slower]
    loaded = [tuple(t * f for t, f in zip(each, powers, strict=True)) for each in rounds]
    assert choose(timed(loaded)).setup == choose(timed(rounds)).setup


@given(times, st.integers(2, 6))
def test_of_equals_the_default_stays(rounds: tuple[float, ...], count: int) -> None:
    found = timed([rounds] * count)
    assert choose(found) is found[0]


def test_one_slower_round_or_too_small_a_gain_is_not_enough() -> None:
    default = (10.0,) * ROUNDS
    assert choose(timed([default, (5.0, 5.0, 5.0, 5.0, 10.1)])).setup.slots == 2
    assert choose(timed([default, (9.9,) * ROUNDS])).setup.slots == 2
    assert choose(timed([default, (9.5,) * ROUNDS])).setup.slots == 3


def test_of_winners_alike_the_cheapest_is_taken_and_a_better_one_replaces_it() -> None:
    default, fast = (10.0,) * ROUNDS, (8.0,) * ROUNDS
    assert choose(timed([default, fast, (7.9,) * ROUNDS])).setup.slots == 3
    assert choose(timed([default, fast, (7.0,) * ROUNDS])).setup.slots == 4


def test_noise_leaves_the_default_as_seldom_as_the_docstring_says() -> None:
    """Every order of noise that comes in pairs, faster or slower than the default alike."""
    rounds = 4
    left = 0
    for signs in product((0.8, 1.25), repeat=2 * rounds):
        default = (10.0,) * rounds
        found = timed([default, *(tuple(10.0 * s for s in signs[n::2]) for n in range(2))])
        left += choose(found) is not found[0]
    assert 0 < left / 4**rounds <= 2 / 2**rounds


def test_nothing_to_choose_from_and_rounds_that_do_not_match_are_bugs() -> None:
    with pytest.raises(ValueError, match="nothing"):
        choose([])
    with pytest.raises(ValueError, match="paired"):
        choose(timed([(1.0, 1.0), (1.0,)]))


@pytest.mark.parametrize("goal", GOALS)
@given(cpus=st.integers(1, 512))
def test_candidates_begin_with_the_default_and_are_few_and_possible(goal: Goal, cpus: int) -> None:
    found = candidates(goal, cpus)
    assert found[0] == default_setup(goal, cpus)
    assert len(set(found)) == len(found) <= 1 + 2 * cpus.bit_length()
    for setup in found:
        assert 1 <= setup.streams <= MOST_STREAMS
        assert setup.streams < setup.slots
        assert setup.threads == 0 or setup.streams <= setup.threads < cpus or goal == "latency"
        assert setup.threads < max(cpus, 1)
        assert goal == "throughput" or setup.streams == 1
    cost = [(s.streams, s.slots) for s in found[1:]]
    assert cost == sorted(cost)


@given(st.integers(1, 512))
def test_all_candidates_together_hold_few_times_the_defaults_streams(cpus: int) -> None:
    pairs = {(s.streams, s.threads) for goal in GOALS for s in candidates(goal, cpus)}
    assert (
        sum(streams for streams, _threads in pairs) <= 5 * default_setup("throughput", cpus).streams
    )


def test_what_is_measured_on_two_cpus() -> None:
    assert candidates("latency", 2) == [Setup(1, 0, 2), Setup(1, 1, 2)]
    assert candidates("throughput", 2) == [
        Setup(2, 0, 3), Setup(1, 1, 2), Setup(1, 0, 2), Setup(2, 0, 4),
    ]  # fmt: skip


def test_facts_hold_the_choice_and_every_figure() -> None:
    facts = as_facts(timed([(20.0, 40.0, 20.0), (10.0, 16.0, 10.0)]), tiles=2)
    assert facts["default"] == {"streams": 1, "threads": 0, "slots": 2}
    assert facts["chosen"] == {"streams": 1, "threads": 0, "slots": 3}
    assert facts["gain"] == {"value": 2.0, "low": 2.0, "high": 2.5}
    first, second = facts["candidates"]
    assert (first["gain"], second["gain"]) == (None, facts["gain"])
    assert (first["ms"], first["tiles_per_second"], first["threads_taken"]) == (20.0, 100.0, 2)
    assert second["rounds_ms"] == [10.0, 16.0, 10.0]
    unmoved = as_facts(timed([(20.0,) * 3]), tiles=1)
    assert (unmoved["chosen"], unmoved["gain"]) == (unmoved["default"], None)
