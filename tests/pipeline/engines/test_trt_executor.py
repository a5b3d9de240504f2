"""The order in which a request uses CUDA, seen by a stand-in for memory that only writes it down.

What CUDA and TensorRT do with these calls is not tested here; see the tests marked ``gpu``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.engines.base import TensorSpec
from pipeline.engines.cuda_memory import Bytes
from pipeline.engines.trt_executor import OWN_RUNS, Request, open_context
from pipeline.errors import EngineError

GIVEN = TensorSpec("frames", "uint8", (1, 2, 4, 3), "NHWC")
GIVES = TensorSpec("logits", "float32", (1, 5, 1, 1), "NCHW")
STREAM, EVENT, GRAPH = 11, 12, 13


class Diary:
    """Writes down every call, and fails if one is made outside ``active``."""

    name = "diary"

    def __init__(self, *, graphs: bool = True, end_fails: bool = False) -> None:
        self.has_graphs, self.end_fails = graphs, end_fails
        self.calls: list[str] = []
        self.pending = 0
        self.result = np.arange(5, dtype=np.float32)
        self._inside = 0
        self._next = 100

    def note(self, call: str) -> None:
        assert self._inside, f"{call} without a current context"
        self.calls.append(call)

    @contextmanager
    def active(self) -> Iterator[None]:
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def pinned(self, nbytes: int) -> Bytes:
        self.note(f"pinned {nbytes}")
        return np.zeros(nbytes, np.uint8)

    def device(self, nbytes: int) -> int:
        self.note(f"device {nbytes}")
        self._next += 1
        return self._next

    def stream(self) -> int:
        self.note("stream")
        return STREAM

    def event(self) -> int:
        self.note("event")
        return EVENT

    def to_device(self, target: int, source: Bytes, stream: int) -> None:
        self.note(f"in {target} {source.nbytes} on {stream}")

    def to_host(self, target: Bytes, source: int, stream: int) -> None:
        self.note(f"out {source} {target.nbytes} on {stream}")
        target[:] = self.result.view(np.uint8)

    def record(self, event: int, stream: int) -> None:
        self.note(f"record {event} on {stream}")

    def happened(self, event: int) -> bool:
        self.note("happened?")
        self.pending -= 1
        return self.pending < 0

    def begin_capture(self, stream: int) -> None:
        self.note("begin")

    def end_capture(self, stream: int) -> int:
        self.note("end")
        if self.end_fails:
            raise EngineError("CUDA failed: STREAM_CAPTURE_INVALIDATED")
        return GRAPH

    def launch(self, graph: int, stream: int) -> None:
        self.note(f"launch {graph} on {stream}")

    def close(self) -> None:
        self.note("close")


class Context:
    def __init__(self, diary: Diary, *, works: bool = True, accepts: bool = True) -> None:
        self.diary, self.works, self.accepts = diary, works, accepts
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.accepts

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.diary.note(f"execute on {stream_handle}")
        return self.works


QUEUE = ["in 101 24 on 11", "execute on 11", "out 102 20 on 11"]
RUN = [*QUEUE, "record 12 on 11", "happened?"]


def make_request(diary: Diary, context: Context | None = None) -> Request:
    request = Request(
        diary,
        context or Context(diary),
        GIVEN,
        GIVES,
        lambda what: EngineError(f"engine {what}: the reason TensorRT logged"),
    )
    diary.calls.clear()
    return request


def test_buffers_are_made_once_and_typed() -> None:
    diary = Diary()
    context = Context(diary)
    request = Request(diary, context, GIVEN, GIVES, EngineError)
    assert diary.calls == [
        "stream", "event", "pinned 24", "pinned 20", "device 24", "device 20",
    ]  # fmt: skip
    assert context.addresses == {"frames": 101, "logits": 102}
    assert request.input.dtype == np.uint8
    assert request.input.shape == GIVEN.shape
    assert request.output.dtype == np.float32
    assert request.output.shape == GIVES.shape
    assert request.input.flags.c_contiguous
    assert request.input.flags.writeable


def test_without_a_graph_each_step_is_queued_in_order() -> None:
    diary = Diary()
    request = make_request(diary)
    request.submit(0)
    assert diary.calls == [*QUEUE, "record 12 on 11"]
    diary.calls.clear()
    np.testing.assert_array_equal(request.wait(0, None).ravel(), diary.result)
    assert diary.calls == ["happened?"]
    request.wait(0, None)
    assert diary.calls == ["happened?"]  # done is done


def test_a_graph_is_recorded_after_a_first_run_and_launched_from_then_on() -> None:
    diary = Diary()
    request = make_request(diary)
    assert request.warm_up(capture=True) is None
    assert diary.calls == [*RUN, "begin", *QUEUE, "end"]
    diary.calls.clear()
    request.submit(0)
    assert diary.calls == ["launch 13 on 11", "record 12 on 11"]


def test_one_that_captures_by_itself_runs_until_it_replays() -> None:
    """Each run to its end, so that nobody polls an event while the second is captured."""
    assert OWN_RUNS == 3
    diary = Diary()
    assert make_request(diary).warm_up(capture=False, runs=OWN_RUNS) is None
    assert diary.calls == RUN * OWN_RUNS


def test_a_context_is_asked_whether_its_own_graph_can_be() -> None:
    diary = Diary()
    context = Context(diary)
    request = make_request(diary, context)
    assert request.own_graph_refused() is None  # older ones do not say
    for answer, said in ((True, None), (False, "TensorRT says that it cannot be captured")):
        context.is_stream_capturable = lambda stream, a=answer: stream == STREAM and a  # type: ignore[attr-defined]  # RTX has it
        assert request.own_graph_refused() == said


def test_a_capture_that_does_not_begin_is_a_reason_and_no_end_is_asked_for() -> None:
    diary = Diary()

    def refuse(stream: int) -> None:
        raise EngineError("CUDA failed: STREAM_CAPTURE_UNSUPPORTED (cuStreamBeginCapture)")

    diary.begin_capture = refuse  # type: ignore[method-assign]  # the driver refuses
    request = make_request(diary)
    said = request.warm_up(capture=True)
    assert said == "CUDA failed: STREAM_CAPTURE_UNSUPPORTED (cuStreamBeginCapture)"
    assert "end" not in diary.calls
    diary.calls.clear()
    request.submit(0)
    assert diary.calls == [*QUEUE, "record 12 on 11"]


def test_no_capture_where_none_is_wanted_or_to_be_had() -> None:
    wanted = Diary()
    assert make_request(wanted).warm_up(capture=False) is None
    assert "begin" not in wanted.calls
    lacking = Diary(graphs=False)
    request = make_request(lacking)
    assert request.warm_up(capture=True) == "diary alone has no CUDA graphs"
    assert "begin" not in lacking.calls


def test_a_failed_capture_is_ended_and_runs_go_on_without() -> None:
    diary = Diary(end_fails=True)
    request = make_request(diary)
    assert request.warm_up(capture=True) == "CUDA failed: STREAM_CAPTURE_INVALIDATED"
    diary.calls.clear()
    request.submit(0)
    assert diary.calls == [*QUEUE, "record 12 on 11"]


def test_an_engine_that_cannot_be_captured_still_ends_the_capture() -> None:
    diary = Diary()
    context = Context(diary)
    request = make_request(diary, context)
    runs = iter([True, False])

    def second_fails(stream_handle: int) -> bool:
        diary.note(f"execute on {stream_handle}")
        return next(runs)

    context.execute_async_v3 = second_fails  # type: ignore[method-assign]  # fails in the capture
    said = request.warm_up(capture=True)
    assert said == "engine could not be run: the reason TensorRT logged"
    assert diary.calls[-3:] == ["in 101 24 on 11", "execute on 11", "end"]


def test_a_slot_is_used_in_turn() -> None:
    request = make_request(Diary())
    with pytest.raises(EngineError, match="slot 3 was never submitted"):
        request.wait(3, None)
    request.submit(3)
    with pytest.raises(EngineError, match="slot 3 is still in flight"):
        request.submit(3)
    request.drain()
    request.submit(3)


def test_what_tensorrt_refuses_is_said_with_its_reason() -> None:
    diary = Diary()
    request = make_request(diary, Context(diary, works=False))
    with pytest.raises(EngineError, match="could not be run: the reason TensorRT logged"):
        request.submit(0)
    with pytest.raises(EngineError, match="was never submitted"):
        request.wait(0, None)
    with pytest.raises(EngineError, match="refused the buffer of 'frames'"):
        make_request(diary, Context(diary, accepts=False))


@pytest.mark.parametrize("rtx", [False, True])
def test_a_context_marks_nothing_for_profilers(rtx: bool) -> None:
    trt = SimpleNamespace(ProfilingVerbosity=SimpleNamespace(NONE="none"))
    if rtx:
        trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    for made in (SimpleNamespace(nvtx_verbosity="detailed"), SimpleNamespace(), None):
        engine = SimpleNamespace(
            create_execution_context=lambda *_config, made=made: made,
            create_runtime_config=SimpleNamespace,
        )
        context, _own = open_context(trt, engine, graphs=True)
        assert context is made
        assert getattr(context, "nvtx_verbosity", "none") == "none"
