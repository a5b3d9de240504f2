"""The runner's ends: whatever fails, all stop, what was written plays."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, sleep

import cv2
import numpy as np
import pytest

from pipeline.errors import EngineError, SinkError, SourceError
from pipeline.video.output import Controls
from pipeline.video.runner import RunnerOptions
from pipeline.video.sinks.videofile import VideoFileSink
from pipeline.video.source import SourceOptions, SourceSpec
from tests.pipeline.video.clips import (
    HEIGHT,
    WIDTH,
    number_of,
    read_clip,
    write_clip,
)
from tests.pipeline.video.fakes import ColourEngine, Recorder
from tests.pipeline.video.harness import (
    add,
    make,
    run_for,
)

pytestmark = pytest.mark.usefixtures("no_thread_outlives_its_test")


def test_engine_failure_stops_all_and_keeps_the_video_so_far(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    runner = make(ColourEngine(HEIGHT, WIDTH, fail_at=10))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 40)), VideoFileSink(out))
    with pytest.raises(EngineError, match="the device is gone"):
        runner.run()
    assert 1 <= len(read_clip(out)) <= 10


def test_engine_that_hangs_is_an_error_in_time(tmp_path: Path) -> None:
    engine = ColourEngine(HEIGHT, WIDTH, hang_at=3)
    runner = make(engine, options=RunnerOptions(engine_timeout=0.3))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 20)), Recorder())
    begin = perf_counter()
    with pytest.raises(EngineError, match=r"did not answer within 0\.3 s"):
        runner.run()
    assert perf_counter() - begin < 5
    engine.close()


def test_sink_failure_stops_all_discards_it_and_closes_the_others(tmp_path: Path) -> None:
    bad, good = Recorder(fail_at=5), Recorder()
    runner = make()
    add(runner, str(write_clip(tmp_path / "clip.mp4", 40)), good, bad)
    with pytest.raises(SinkError, match="the disk is full"):
        runner.run()
    assert (bad.ended, good.ended) == ("discarded", "closed")


def test_first_of_several_errors_is_raised(tmp_path: Path) -> None:
    class Careless(Recorder):
        def close(self) -> str | None:
            raise SinkError("a later error")

    runner = make()
    add(runner, str(write_clip(tmp_path / "clip.mp4", 9)), Careless(), Recorder(fail_at=2))
    with pytest.raises(SinkError, match="the disk is full"):
        runner.run()


def test_error_of_one_stream_ends_the_others(tmp_path: Path) -> None:
    sink = Recorder()
    runner = make(source_options=SourceOptions(loop=True))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 9)), sink)
    add(runner, SourceSpec("file", str(tmp_path / "gone.mp4"), "gone.mp4"), Recorder())
    with pytest.raises(SourceError, match="gone"):
        runner.run()
    assert sink.ended == "closed"


def test_bug_in_a_sink_is_raised_as_it_is(tmp_path: Path) -> None:
    class Buggy(Recorder):
        def write(self, shown: object) -> None:
            raise ZeroDivisionError("a bug")

    runner = make()
    add(runner, str(write_clip(tmp_path / "clip.mp4", 9)), Buggy())
    with pytest.raises(ZeroDivisionError, match="a bug"):
        runner.run()


def test_interrupt_on_the_main_thread_finishes_the_output(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    runner = make(source_options=SourceOptions(loop=True))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 9)), VideoFileSink(out))

    def poll() -> None:
        if runner.streams[0].stats.shown > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(poll)
    assert len(read_clip(out)) > 3


def test_stop_finishes_what_is_under_way(tmp_path: Path) -> None:
    out, sink = tmp_path / "out.mp4", Recorder()
    engine = ColourEngine(HEIGHT, WIDTH, slots=3, delay=0.01)
    runner = make(engine, source_options=SourceOptions(loop=True))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 9)), sink, VideoFileSink(out))
    run_for(runner, lambda: len(sink.indices) > 10)
    assert len(sink.indices) == engine.runs, "every frame that was submitted is shown"
    assert len(read_clip(out)) == len(sink.indices)


def test_pause_holds_a_file_and_goes_on(tmp_path: Path) -> None:
    sink, controls = Recorder(), Controls()
    runner = make(controls=controls, options=RunnerOptions(max_frames=60))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 60)), sink)
    counts: list[int] = []

    def poll() -> None:
        if not counts and sink.indices:
            controls.pause_or_go_on()
            sleep(0.2)
            counts.append(len(sink.indices))
            sleep(0.2)
            counts.append(len(sink.indices))
            controls.pause_or_go_on()

    runner.run(poll)
    if counts:  # a fast machine may be through before the first poll
        assert counts[0] == counts[1]
    assert sink.numbers == list(range(60))


def test_snapshot_saves_pictures(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 5)
    controls = Controls(snapshots=tmp_path)
    runner = make(controls=controls)
    add(runner, str(clip))
    controls.save(str(clip))
    runner.run()
    saved = runner.streams[0].outlet.saved
    assert len(saved) == 2
    assert number_of(np.asarray(cv2.imread(saved[0]), np.uint8)) == 0
