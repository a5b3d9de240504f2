"""Frames under way at once: submit, finish, discard, and what a failing device leaves behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pipeline.errors import EngineError
from pipeline.inference import FrameSegmenter
from tests.pipeline.fake_engine import FakeEngine, picture


def test_frames_under_way_do_not_disturb_each_other() -> None:
    frames = [picture(50, 90, seed) for seed in range(5)]
    engine = FakeEngine(slots=6)
    segmenter = FrameSegmenter(engine, tiles="cover", overlap=0.2)
    alone = [segmenter.segment(frame) for frame in frames]
    assert segmenter.batches(50, 90) == 4
    wide = FrameSegmenter(FakeEngine(slots=20), tiles="cover", overlap=0.2)
    assert (segmenter.lanes(50, 90), wide.lanes(50, 90)) == (1, 5)
    tickets = [wide.submit(frame) for frame in frames]
    order = [3, 0, 4, 1, 2]
    for index in order:
        np.testing.assert_array_equal(wide.finish(tickets[index]), alone[index])
    assert all(t.prepare > 0 and t.infer > 0 and t.decode > 0 for t in tickets)
    assert tickets[0].shape == (50, 90)


def test_sizes_may_be_mixed() -> None:
    segmenter = FrameSegmenter(FakeEngine(slots=3))
    sizes = [(20, 30), (70, 90), (20, 30), (32, 64)]
    alone = [segmenter.segment(picture(*size, seed)) for seed, size in enumerate(sizes)]
    tickets = [segmenter.submit(picture(*size, seed)) for seed, size in enumerate(sizes[:3])]
    for ticket, want in zip(tickets, alone, strict=False):
        np.testing.assert_array_equal(segmenter.finish(ticket), want)
    for side in range(1, 40):  # more sizes than are kept
        assert segmenter.segment(picture(side, 9)).shape == (side, 9)


def test_threads_may_share_a_segmenter() -> None:
    frames = [picture(40, 70, seed) for seed in range(4)]
    segmenter = FrameSegmenter(FakeEngine(slots=4))
    want = [segmenter.segment(frame) for frame in frames]
    wrong: list[int] = []

    def work(index: int) -> None:
        results = [segmenter.segment(frames[index]) for _ in range(20)]
        wrong.extend(index for labels in results if (labels != want[index]).any())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_too_many_frames_at_once() -> None:
    segmenter = FrameSegmenter(FakeEngine(slots=2))
    frame = picture(32, 64)
    first, second = segmenter.submit(frame), segmenter.submit(frame)
    with pytest.raises(EngineError, match="takes 1 engine slots but 0 are free; finish a frame"):
        segmenter.submit(frame)
    segmenter.finish(first)
    segmenter.finish(segmenter.submit(frame))
    segmenter.finish(second)


def test_a_ticket_is_finished_once() -> None:
    segmenter = FrameSegmenter(FakeEngine())
    ticket = segmenter.submit(picture(32, 64))
    segmenter.finish(ticket)
    with pytest.raises(EngineError, match="finished or discarded before"):
        segmenter.finish(ticket)
    segmenter.discard(ticket)
    assert segmenter.segment(picture(32, 64)).shape == (32, 64)


def test_a_discarded_frame_frees_its_slots() -> None:
    engine = FakeEngine(slots=1)
    segmenter = FrameSegmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    for _ in range(3):
        segmenter.discard(segmenter.submit(frame))
    np.testing.assert_array_equal(segmenter.segment(frame), want)


def test_a_timeout_leaves_the_frame_under_way() -> None:
    engine = FakeEngine(slots=2)
    segmenter = FrameSegmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    engine.slow = {1}
    ticket = segmenter.submit(frame)
    with pytest.raises(TimeoutError):
        segmenter.finish(ticket, timeout=0.01)
    engine.slow.clear()
    np.testing.assert_array_equal(segmenter.finish(ticket, timeout=0.01), want)


def test_a_slot_that_never_answers_is_not_used_again() -> None:
    engine = FakeEngine(slots=2)
    segmenter = FrameSegmenter(engine)
    engine.slow = {0}
    ticket = segmenter.submit(picture(32, 64))
    segmenter.discard(ticket, timeout=0.01)
    frame = picture(32, 64, 1)
    np.testing.assert_array_equal(
        segmenter.segment(frame), FrameSegmenter(FakeEngine()).segment(frame)
    )
    kept = segmenter.submit(frame)
    with pytest.raises(EngineError, match="0 are free"):
        segmenter.submit(frame)
    segmenter.finish(kept)


@pytest.mark.parametrize(("slots", "broken"), [(1, 0), (2, 1), (9, 5)])
def test_a_failing_device_is_reported_and_frees_its_slots(slots: int, broken: int) -> None:
    engine = FakeEngine(slots=slots)
    segmenter = FrameSegmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    engine.broken = {broken}  # one of those that the second frame is given
    with pytest.raises(EngineError, match="the device is gone"):
        segmenter.segment(frame)
    engine.broken.clear()
    for _ in range(2):
        np.testing.assert_array_equal(segmenter.segment(frame), want)


def test_a_submission_that_fails_midway_frees_its_slots() -> None:
    engine = FakeEngine(slots=9)
    segmenter = FrameSegmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    submit = engine.submit
    calls: list[int] = []

    def failing(slot: int) -> None:
        calls.append(slot)
        if len(calls) == 3:
            raise EngineError("cannot start")
        submit(slot)

    engine.submit = failing  # type: ignore[method-assign]  # a device that fails once
    with pytest.raises(EngineError, match="cannot start"):
        segmenter.submit(frame)
    engine.submit = submit  # type: ignore[method-assign]
    for _ in range(3):
        np.testing.assert_array_equal(segmenter.segment(frame), want)
