"""One stream's sinks stand still: the others must not notice, and files must lose nothing.

The slow sink is a gate that opens only when the others have done what they must: nothing here
depends on how fast the machine is.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import pytest

from pipeline.video.runner import Runner
from pipeline.video.sinks.base import Shown
from pipeline.video.source import Reader, SourceOptions, SourceSpec, open_reader
from pipeline.video.streams import OUTSIDE_ENGINE
from tests.pipeline.video.clips import HEIGHT, WIDTH, numbered, write_clip
from tests.pipeline.video.fakes import CameraFake, ColourEngine, Recorder
from tests.pipeline.video.harness import LIVE, add, make, run_for, script

pytestmark = pytest.mark.usefixtures("no_thread_outlives_its_test")

SLOTS = 2


class Gate(Recorder):
    """A sink that takes its first frame and then nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def write(self, shown: Shown) -> None:
        super().write(shown)
        self.opened.wait(20)


def two_cameras(*sinks: Recorder, rate: float = 100.0) -> Runner:
    cameras = iter([CameraFake(rate) for _ in sinks])
    runner = make(ColourEngine(HEIGHT, WIDTH, slots=SLOTS), opener=lambda *_: next(cameras))
    for sink in sinks:
        add(runner, LIVE, sink)
    return runner


def test_live_streams_do_not_wait_for_anothers_sink() -> None:
    gate, free = Gate(), Recorder()
    runner = two_cameras(gate, free)
    at_opening: list[int] = []

    def done() -> bool:
        if len(free.indices) >= 60 and gate.indices and not at_opening:
            at_opening.append(free.numbers[-1])
            assert len(gate.indices) == 1
            gate.opened.set()
        return bool(at_opening) and len(gate.indices) >= 10

    run_for(runner, done, 20)
    assert free.indices == sorted(free.indices)
    # The frames that came meanwhile were replaced, up to one that is about as new as the other
    # stream's: both cameras count alike.
    assert gate.numbers[1] > at_opening[0] - 30
    stats = runner.streams[0].stats
    assert stats.replaced >= gate.numbers[1] - gate.numbers[0] - OUTSIDE_ENGINE - SLOTS
    assert gate.indices == gate.numbers, "each buffer still holds its own frame"


def test_frames_shown_between_are_no_older_beside_a_slow_sink() -> None:
    slow, free = Recorder(delay=0.5), Recorder()
    runner = two_cameras(slow, free, rate=30.0)
    run_for(runner, lambda: len(slow.indices) >= 5, 20)
    assert np.median(free.ages) < 0.25, "half of the slow sink's time"
    assert len(free.indices) > 4 * len(slow.indices)


def test_a_file_behind_a_slow_sink_blocks_nobody_and_is_written_whole(tmp_path: Path) -> None:
    gate, free, live = Gate(), Recorder(), Recorder()
    clips = [write_clip(tmp_path / f"{n}.mp4", 40) for n in range(2)]

    def opener(spec: SourceSpec, options: SourceOptions) -> Reader:
        return CameraFake(100.0) if spec == LIVE else open_reader(spec, options)

    runner = make(ColourEngine(HEIGHT, WIDTH, slots=SLOTS), opener=opener)
    add(runner, str(clips[0]), gate)
    add(runner, str(clips[1]), free)
    add(runner, LIVE, live)

    def done() -> bool:
        others = len(free.indices) == 40 and len(live.indices) >= 40 and gate.indices
        if others and not gate.opened.is_set():
            assert len(gate.indices) == 1
            gate.opened.set()
        return len(gate.indices) == 40

    run_for(runner, done, 20)
    assert gate.numbers == free.numbers == list(range(40))
    assert runner.streams[0].stats.dropped == 0
    assert all(later > earlier for earlier, later in pairwise(live.indices))


@pytest.mark.parametrize("sizes", [1, 3], ids=["one size", "changing sizes"])
def test_a_file_runs_ahead_of_a_slow_sink_only_so_far(tmp_path: Path, sizes: int) -> None:
    """Also where every frame has buffers of its own, as the size changes each time."""
    for number in range(40):
        picture = numbered(number, HEIGHT + 2 * (number % sizes), WIDTH)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    gate = Gate()
    runner = make(ColourEngine(HEIGHT, WIDTH, slots=SLOTS))
    add(runner, str(tmp_path), gate)
    stats = runner.streams[0].stats
    settled: list[tuple[int, float]] = []

    def done() -> bool:
        now = perf_counter()
        if not settled or settled[0][0] != stats.captured:
            settled[:] = [(stats.captured, now)]
        if gate.indices and now - settled[0][1] > 1.0:
            assert stats.captured <= OUTSIDE_ENGINE + SLOTS
            gate.opened.set()
        return len(gate.indices) == 40

    run_for(runner, done, 20)
    assert gate.numbers == list(range(40))


def test_the_engine_does_not_work_for_a_live_sink_that_stands_still() -> None:
    """200 pictures come. Ten times a second the frame that waits is replaced, so that it is never
    old, by one frame: however busy the machine, nothing else begins while that is in the engine."""
    engine, gate = ColourEngine(HEIGHT, WIDTH, slots=SLOTS), Gate()
    runner = make(engine, opener=script(CameraFake(200.0)))
    add(runner, LIVE, gate)
    stats = runner.streams[0].stats
    still: list[tuple[float, int, int]] = []

    def done() -> bool:
        now, runs, captured = perf_counter(), engine.runs, stats.captured
        if gate.indices and not still:
            still.append((now, runs, captured))
        if still and captured - still[0][2] >= 200 and not gate.opened.is_set():
            # The time is read after the runs: more of it than they had.
            # Before anything waits, every slot may have begun one.
            assert runs - still[0][1] <= (perf_counter() - still[0][0]) / 0.1 + SLOTS + 1
            gate.opened.set()
        return gate.opened.is_set()

    run_for(runner, done, 20)
