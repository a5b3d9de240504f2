"""How an engine is opened: what is given wins, then what was measured here, then defaults."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines import setups
from pipeline.engines.setups import GOALS, Chosen, Goal, Setup, choose_setup, default_setup

CPU, CPUS = "Some CPU", 4


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setups, "cpu_model", lambda: CPU)
    monkeypatch.setattr(setups, "cpu_count", lambda: CPUS)


def tuning(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": 1,
        "machine": {"cpu": CPU, "cpus": CPUS},
        "latency": {"chosen": {"streams": 1, "threads": 2, "slots": 2}},
        "throughput": {"chosen": {"streams": 3, "threads": 0, "slots": 6}},
    }
    return {"tuning": found | changes}


def test_defaults_are_taken_without_a_word_where_nothing_was_measured() -> None:
    assert choose_setup({}, "latency") == Chosen(Setup(1, 0, 2))
    assert choose_setup({"tuning": None}, "throughput") == Chosen(Setup(4, 0, 5))
    assert default_setup("throughput", 64) == Setup(8, 0, 9)


def test_what_was_measured_here_is_taken_by_goal() -> None:
    assert choose_setup(tuning(), "latency") == Chosen(Setup(1, 2, 2), tuned=True)
    assert choose_setup(tuning(), "throughput") == Chosen(Setup(3, 0, 6), tuned=True)


@pytest.mark.parametrize("goal", GOALS)
def test_what_is_given_wins(goal: Goal) -> None:
    assert choose_setup(tuning(), goal, streams=2) == Chosen(Setup(2, 0, 3))
    assert choose_setup(tuning(), goal, streams=2, threads=3).setup.threads == 3
    alone = choose_setup(tuning(), goal, threads=1)
    assert alone == choose_setup({}, goal, threads=1)
    assert (alone.setup.threads, alone.setup.streams) == (1, default_setup(goal, CPUS).streams)


def test_slots_are_a_least_number_and_leave_the_tuning_standing() -> None:
    assert choose_setup(tuning(), "throughput", slots=8) == Chosen(Setup(3, 0, 8), tuned=True)
    assert choose_setup(tuning(), "throughput", slots=2) == Chosen(Setup(3, 0, 6), tuned=True)
    assert choose_setup({}, "latency", streams=2, slots=1).setup == Setup(2, 0, 3)


@pytest.mark.parametrize(
    "there", [{"cpu": "Other CPU", "cpus": CPUS}, {"cpu": CPU, "cpus": 16}], ids=["cpu", "cpus"]
)
def test_another_machines_tuning_is_left_aside_and_both_are_named(there: dict[str, Any]) -> None:
    found = choose_setup(tuning(machine=there), "throughput")
    assert found.setup == default_setup("throughput", CPUS)
    assert not found.tuned
    assert found.ignored is not None
    for said in (there["cpu"], str(there["cpus"]), CPU, str(CPUS), "defaults"):
        assert said in found.ignored
    assert "\n" not in found.ignored
    long = choose_setup(tuning(machine={"cpu": "a\nb" * 999, "cpus": 1}), "latency").ignored
    assert long is not None
    assert "\n" not in long
    assert len(long) < 200
    assert choose_setup(tuning(machine=there), "throughput", streams=1).ignored is None


def chosen(**changes: Any) -> dict[str, Any]:
    setup = {"streams": 1, "threads": 2, "slots": 2} | changes
    return tuning(latency={"chosen": setup})


@pytest.mark.parametrize(
    "facts",
    [
        {"tuning": []}, {"tuning": "x"}, {"tuning": 7}, {"tuning": {}},
        tuning(version=2), tuning(latency=None), tuning(latency={"chosen": None}),
        tuning(machine=None), tuning(machine={}), tuning(machine={"cpu": CPU, "cpus": "4"}),
        chosen(streams=0), chosen(streams=9), chosen(streams="1"), chosen(streams=True),
        chosen(threads=-1), chosen(threads=1.5), chosen(slots=10**9), chosen(slots=1),
        chosen(more=1),
    ],
)  # fmt: skip
def test_a_tuning_that_cannot_be_read_is_left_aside(facts: dict[str, Any]) -> None:
    found = choose_setup(facts, "latency")
    assert found.setup == default_setup("latency", CPUS)
    assert found.ignored is not None
    assert "cannot be read" in found.ignored


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["version", "machine", "cpu", "cpus", "latency", "chosen", "streams"]),
        inner, max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip


@given(plain)
def test_whatever_stands_there_opens_an_engine(value: Any) -> None:
    setup = choose_setup({"tuning": value}, "latency").setup
    assert setup == default_setup("latency", CPUS)
