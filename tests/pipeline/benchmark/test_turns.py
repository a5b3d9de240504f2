"""Contenders take turns; one that fails is out and says why; bugs are not swallowed."""

from __future__ import annotations

import pytest

from pipeline.benchmark import turns
from pipeline.benchmark.turns import Contender, Samples, take_turns, timed
from pipeline.errors import EngineError


def test_turns_are_interleaved_and_samples_kept_by_round() -> None:
    log: list[str] = []

    def contender(name: str) -> Contender:
        def turn() -> Samples:
            log.append(name)
            return {name: [float(len(log))]}

        return Contender((name,), turn)

    told: list[tuple[int, str]] = []
    found = take_turns(
        [contender("a"), contender("b")], 3, lambda n, row: told.append((n, row)), settle=0
    )
    assert log == ["a", "b"] * 3
    assert told == [(n, row) for n in range(3) for row in "ab"]
    assert found.rounds == {"a": [[1.0], [3.0], [5.0]], "b": [[2.0], [4.0], [6.0]]}
    assert found.failed == {}


def test_one_contender_may_fill_several_rows() -> None:
    both = Contender(("x", "y"), lambda: {"x": [1.0], "y": [2.0]})
    assert take_turns([both], 2, settle=0).rounds == {"x": [[1.0]] * 2, "y": [[2.0]] * 2}


def test_a_contender_that_fails_is_out_with_all_its_rows() -> None:
    turns = 0

    def turn() -> Samples:
        nonlocal turns
        turns += 1
        if turns == 2:
            raise EngineError("the device is gone")
        return {"x": [1.0], "y": [1.0]}

    found = take_turns([Contender(("x", "y"), turn)], 4, settle=0)
    assert turns == 2
    assert found.rounds == {}
    assert found.failed == {"x": "the device is gone", "y": "the device is gone"}


def test_a_bug_is_not_a_result() -> None:
    def turn() -> Samples:
        raise KeyError("x")

    with pytest.raises(KeyError):
        take_turns([Contender(("x",), turn)], 1, settle=0)


def test_the_first_run_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 1, 2, 3, ... seconds by a clock of the test's own."""
    now, runs = 0.0, 0

    def run() -> None:
        nonlocal now, runs
        runs += 1
        now += runs

    monkeypatch.setattr(turns, "perf_counter", lambda: now)
    assert timed(run, 0.0, least=4) == [2000, 3000, 4000, 5000]
    assert runs == 5
