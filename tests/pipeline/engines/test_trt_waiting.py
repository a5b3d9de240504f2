"""How long a request is waited for, and what is still under way when it is given up.

The device is the stand-in of the other tests of a request.
"""

from __future__ import annotations

import pytest

from pipeline.engines import trt_executor
from pipeline.engines.trt_executor import OWN_RUNS
from pipeline.errors import EngineError
from tests.pipeline.engines.test_trt_executor import RUN, Context, Diary, make_request


def broken(event: int) -> bool:
    """What a device answers after a fault."""
    raise EngineError("CUDA failed: ILLEGAL_ADDRESS")


def test_a_first_run_that_hangs_ends_the_wait_and_is_under_way_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trt_executor, "RUN_SECONDS", 0.01)
    diary = Diary()
    request = make_request(diary)
    diary.pending = 10**9
    with pytest.raises(EngineError, match=r"did not finish the engine's first run within 0\.01 s"):
        request.warm_up(capture=True, runs=OWN_RUNS)
    assert diary.calls.count("execute on 11") == 1
    assert "begin" not in diary.calls
    assert not request.drain(timeout=0.01)


def test_a_wait_without_a_timeout_ends_when_the_device_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once: the slot stays taken, and nobody waits for it again before it is closed."""
    monkeypatch.setattr(trt_executor, "RUN_SECONDS", 0.01)
    diary = Diary()
    request = make_request(diary)
    request.submit(0)
    diary.pending = 10**9
    said = r"did not finish a run of the engine within 0\.01 s"
    with pytest.raises(EngineError, match=said) as caught:
        request.wait(0, None)
    assert caught.value.hint is not None
    diary.calls.clear()
    with pytest.raises(EngineError, match="did not finish a run of the engine"):
        request.wait(0, 60.0)
    with pytest.raises(EngineError, match="still in flight"):
        request.submit(0)
    assert diary.calls == []
    assert not request.drain(timeout=0.01)


def test_slots_that_hang_together_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from when a run was queued, not from when someone comes to wait for it."""
    now = [0.0]
    monkeypatch.setattr(trt_executor, "perf_counter", lambda: now[0])
    monkeypatch.setattr(trt_executor, "sleep", lambda _seconds: now.__setitem__(0, now[0] + 1))
    diary = Diary()
    requests = [make_request(diary), make_request(diary)]
    for slot, request in enumerate(requests):
        request.submit(slot)
    diary.pending = 10**9
    for slot, request in enumerate(requests):
        with pytest.raises(EngineError, match="did not finish a run of the engine within 300 s"):
            request.wait(slot, None)
    assert now == [300.0]


def test_a_first_run_may_take_its_time() -> None:
    diary = Diary()
    diary.pending = 3
    assert make_request(diary).warm_up(capture=False) is None
    assert diary.calls == [*RUN, *["happened?"] * 3]


def test_waiting_polls_and_times_out_and_can_be_resumed() -> None:
    diary = Diary()
    request = make_request(diary)
    request.submit(0)
    diary.pending = 10**9
    with pytest.raises(TimeoutError, match="slot 0 did not finish within 0"):
        request.wait(0, 0.0)
    diary.pending = 3
    request.wait(0, 5.0)
    assert diary.calls[-4:] == ["happened?"] * 4


def test_the_copy_before_a_run_that_was_refused_is_waited_for() -> None:
    """Its host and device memory are freed next."""
    diary = Diary()
    request = make_request(diary, Context(diary, works=False))
    with pytest.raises(EngineError, match="could not be run"):
        request.submit(0)
    diary.calls.clear()
    assert request.drain()
    assert diary.calls == ["record 12 on 11", "happened?"]
    diary.pending = 10**9
    assert not request.drain(timeout=0.01)


def test_what_was_only_recorded_is_not_waited_for() -> None:
    diary = Diary()
    request = make_request(diary)
    assert request.warm_up(capture=True) is None
    diary.calls.clear()
    assert request.drain()
    assert diary.calls == []


def test_draining_goes_on_whatever_the_device_does() -> None:
    """A fault ends what was under way; after a hang nobody knows, and nothing may be freed."""
    hanging = Diary()
    request = make_request(hanging)
    request.submit(0)
    hanging.pending = 10**9
    assert not request.drain(timeout=0.01)
    faulty = Diary()
    request = make_request(faulty)
    request.submit(0)
    faulty.happened = broken  # type: ignore[method-assign]  # the device fails
    assert request.drain()
    assert request.drain()  # nothing is under way
    request.submit(0)


def test_a_device_that_fails_frees_the_slot() -> None:
    diary = Diary()
    request = make_request(diary)
    request.submit(0)
    diary.happened = broken  # type: ignore[method-assign]  # the device fails
    with pytest.raises(EngineError, match="ILLEGAL_ADDRESS"):
        request.wait(0, None)
    request.submit(0)
