"""Live sources, and several at once: the newest frame, stalls, losses, hard timeouts, fairness."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.video.runner import RunnerOptions
from pipeline.video.source import Head, Reader, SourceOptions, SourceSpec, open_reader
from tests.pipeline.video.clips import (
    HEIGHT,
    WIDTH,
    Pixels,
    write_clip,
)
from tests.pipeline.video.fakes import CameraFake, ColourEngine, Recorder
from tests.pipeline.video.harness import (
    LIVE,
    QUICK,
    add,
    make,
    run_for,
    script,
)

pytestmark = pytest.mark.usefixtures("no_thread_outlives_its_test")


def test_live_source_keeps_the_newest_frame() -> None:
    """A 200 fps camera and an engine that manages 20: what is shown is never old."""
    period = 0.05
    sink = Recorder()
    runner = make(
        ColourEngine(HEIGHT, WIDTH, slots=1, delay=period), opener=script(CameraFake(200.0))
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: len(sink.indices) >= 20)
    stats = runner.streams[0].stats
    assert stats.dropped > 100
    assert sink.indices == sorted(sink.indices)
    assert sink.indices == sink.numbers, "labels belong to the frame that they are shown on"
    # One frame may wait for the engine while another is in it, and one at the outlet.
    assert np.median(sink.ages) < 4 * period
    late, early = np.median(sink.ages[-8:]), np.median(sink.ages[2:10])
    assert late < early + 2 * period, "and it does not get older"


def test_slow_sink_does_not_make_a_live_source_lag() -> None:
    sink = Recorder(delay=0.05)
    runner = make(opener=script(CameraFake(200.0)))
    add(runner, LIVE, sink)
    run_for(runner, lambda: len(sink.indices) >= 15)
    assert np.median(sink.ages[3:]) < 8 * 0.05
    assert runner.streams[0].stats.dropped > 50


def test_max_latency_leaves_out_what_is_too_old() -> None:
    """All of it is; what is shown all the same is told of, once."""
    sink = Recorder()
    runner = make(
        ColourEngine(HEIGHT, WIDTH, slots=3, delay=0.1),
        options=RunnerOptions(max_latency=0.001),
        opener=script(CameraFake(100.0)),
    )
    add(runner, LIVE, sink)
    begin = perf_counter()
    run_for(runner, lambda: len(sink.indices) >= 4)
    assert len(sink.indices) <= (perf_counter() - begin) / 0.5 + 1
    assert runner.streams[0].stats.late >= 5
    (told,) = runner.controls.notices
    assert "every frame is older than --max-latency allows" in told


def test_one_frame_that_is_too_old_is_not_told_of() -> None:
    class Late(CameraFake):
        def grab(self) -> Head | None:
            if self._number == 10:
                sleep(1.0)
            return super().grab()

    sink = Recorder()
    runner = make(
        options=RunnerOptions(max_latency=0.5),
        opener=script(Late(20.0)),
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: max(sink.numbers, default=0) >= 40)
    assert not runner.controls.notices
    assert runner.streams[0].stats.late >= 1


def test_realtime_plays_a_file_by_its_clock(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 15)
    sink = Recorder()
    runner = make(source_options=SourceOptions(realtime=True))
    add(runner, str(clip), sink)
    begin = perf_counter()
    runner.run()
    assert 14 / 25 <= perf_counter() - begin < 4
    assert len(sink.indices) + runner.streams[0].stats.dropped == 15


def test_realtime_changes_nothing_for_a_live_source(tmp_path: Path) -> None:
    """Lost, it is found again; only the file beside it is played by its clock."""
    file, live = Recorder(), Recorder()
    cameras = script(CameraFake(50.0, error_at=5), CameraFake(50.0, first=500))

    def opener(spec: SourceSpec, options: SourceOptions) -> Reader:
        return cameras(spec, options) if spec == LIVE else open_reader(spec, options)

    runner = make(opener=opener, source_options=replace(QUICK, realtime=True))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 15)), file)
    add(runner, LIVE, live)
    run_for(runner, lambda: max(live.numbers, default=0) >= 505)
    assert runner.streams[1].stats.reconnects == 1
    assert file.timestamps[-1] > 0.2


def test_realtime_does_not_pace_a_live_source_by_its_timestamps() -> None:
    class Ahead(CameraFake):
        def grab(self) -> Head | None:
            head = super().grab()
            return head and replace(head, timestamp=head.timestamp * 1000)

    sink = Recorder()
    runner = make(opener=script(Ahead(50.0)), source_options=replace(QUICK, realtime=True))
    add(runner, LIVE, sink)
    run_for(runner, lambda: len(sink.indices) >= 10)


def test_enough_frames_end_the_run_in_a_gap_of_the_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3, times=[0.0, 0.04, 60.0])
    runner = make(options=RunnerOptions(max_frames=2), source_options=SourceOptions(realtime=True))
    add(runner, str(clip), Recorder())
    begin = perf_counter()
    runner.run()
    assert perf_counter() - begin < 8, "the gap is a minute long"


def test_lost_source_is_found_again_and_shown_stale_meanwhile() -> None:
    sink = Recorder(needs_canvas=True)
    down = SourceError("connection refused")
    runner = make(
        opener=script(CameraFake(50.0, error_at=5), down, down, CameraFake(50.0, first=500)),
        source_options=QUICK,
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: max(sink.numbers, default=0) >= 505)
    assert runner.streams[0].stats.reconnects == 1
    assert sink.stale_shown >= 1
    assert sink.timestamps == sorted(sink.timestamps), "its clock goes on over the gap"
    gap = np.diff(sink.timestamps).max()
    assert 0.5 < gap < 5


def test_silent_source_is_shown_stale_long_before_it_is_lost() -> None:
    camera, sink = CameraFake(50.0, stall_at=10), Recorder(needs_canvas=True)
    runner = make(opener=script(camera), source_options=SourceOptions(read_timeout=60.0))
    add(runner, LIVE, sink)
    stats = runner.streams[0].stats
    away: list[float] = []

    def seen() -> bool:
        if sink.stale_shown >= 2 and not away:
            away.append(stats.away_for(perf_counter()))
            camera.close()  # lets the call that hangs go
        return bool(away)

    run_for(runner, seen)
    assert stats.reconnects == 0
    assert away[0] > 1.0, "counted from its last frame"


def test_slow_source_is_not_silent() -> None:
    """One picture in 1.25 seconds is what it states."""
    sink = Recorder(needs_canvas=True)
    runner = make(opener=script(CameraFake(0.8)))
    add(runner, LIVE, sink)
    run_for(runner, lambda: len(sink.indices) >= 3)
    assert sink.stale_shown == 0


def test_loss_and_return_are_told_but_not_every_time() -> None:
    sink = Recorder()
    torn = [CameraFake(100.0, error_at=3) for _ in range(3)]
    runner = make(
        opener=script(torn[0], SourceError("down"), *torn[1:], CameraFake(100.0, first=500)),
        source_options=QUICK,
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: max(sink.numbers, default=0) >= 500)
    assert runner.streams[0].stats.reconnects == 3
    lost, back = runner.controls.notices
    assert lost == "'rtsp://camera/stream' lost: the cable was pulled; trying again"
    told = re.fullmatch(r"'rtsp://camera/stream' is back after (\d+\.\d) s", back)
    assert told
    # A first pause of 0.25 s, the second attempt after the next one.
    assert 0.4 < float(told[1]) < 10


def test_ended_stream_is_opened_again() -> None:
    sink = Recorder()
    runner = make(
        opener=script(CameraFake(100.0, 3), CameraFake(100.0, 3), CameraFake(100.0)),
        source_options=QUICK,
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: runner.streams[0].stats.reconnects == 2 and len(sink.indices) > 8)


def test_stalled_read_is_left_behind() -> None:
    """The reader hangs in a call that no one can interrupt, for ever."""
    stalled = CameraFake(100.0, stall_at=4)
    sink = Recorder()
    runner = make(opener=script(stalled, CameraFake(100.0, first=100)), source_options=QUICK)
    add(runner, LIVE, sink)
    run_for(runner, lambda: max(sink.numbers, default=0) >= 102)
    assert runner.streams[0].stats.reconnects == 1
    stalled.close()  # lets the thread that was left behind go


def test_opening_that_hangs_is_an_error_in_time() -> None:
    gate = threading.Event()
    runner = make(opener=script(gate.wait), source_options=QUICK)
    add(runner, LIVE, Recorder())
    begin = perf_counter()
    with pytest.raises(SourceError, match=r"did not open within 0\.3 s"):
        runner.run()
    assert perf_counter() - begin < 5
    gate.set()


def test_reopening_that_hangs_is_tried_again() -> None:
    gate = threading.Event()
    sink = Recorder()
    runner = make(
        opener=script(CameraFake(100.0, 3), gate.wait, CameraFake(first=50)),
        source_options=QUICK,
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: max(sink.numbers, default=0) >= 52)
    gate.set()


def test_source_that_stays_away_is_given_up() -> None:
    runner = make(
        opener=script(CameraFake(100.0, 3), SourceError("no route")),
        source_options=SourceOptions(read_timeout=0.2, give_up=0.6),
    )
    add(runner, LIVE, Recorder())
    with pytest.raises(SourceError, match=r"has not come back within 0\.6 s"):
        runner.run()


def test_live_source_without_a_first_frame_is_an_error() -> None:
    camera = CameraFake(stall_at=0)
    runner = make(opener=script(camera), source_options=QUICK)
    add(runner, LIVE, Recorder())
    with pytest.raises(SourceError, match=r"nothing came for 0\.2 s"):
        runner.run()
    camera.close()


def test_stop_while_away_does_not_wait() -> None:
    runner = make(opener=script(CameraFake(100.0, 3), SourceError("down")), source_options=QUICK)
    add(runner, LIVE, Recorder())
    began: list[float] = []

    def poll() -> None:
        if runner.streams[0].stats.away_since is not None and not began:
            sleep(0.5)
            began.append(perf_counter())
            runner.controls.stop.set()

    runner.run(poll)
    assert perf_counter() - began[0] < 2


def test_streams_share_the_engine_fairly(tmp_path: Path) -> None:
    engine = ColourEngine(HEIGHT, WIDTH, slots=2, delay=0.003)
    sinks = [Recorder() for _ in range(3)]
    runner = make(engine)
    for number, sink in enumerate(sinks):
        size = (HEIGHT * (number + 1), WIDTH + 11 * number)
        clip = write_clip(tmp_path / f"{number}.mkv", 25, height=size[0], width=size[1] // 2 * 2)
        add(runner, str(clip), sink)
    spread = 0

    def poll() -> None:
        nonlocal spread
        shown = [len(sink.indices) for sink in sinks]
        if max(shown) < 25:
            spread = max(spread, max(shown) - min(shown))

    runner.run(poll)
    assert [sink.numbers for sink in sinks] == [list(range(25))] * 3
    assert engine.runs == 75
    assert spread <= 12


def test_one_live_stream_does_not_starve_another() -> None:
    sinks = [Recorder(), Recorder()]
    cameras = iter([CameraFake(400.0), CameraFake(400.0)])
    runner = make(ColourEngine(HEIGHT, WIDTH, slots=1, delay=0.01), opener=lambda *_: next(cameras))
    for sink in sinks:
        add(runner, LIVE, sink)
    run_for(runner, lambda: min(len(sink.indices) for sink in sinks) >= 20)
    counts = sorted(len(sink.indices) for sink in sinks)
    assert counts[1] < 2 * counts[0]


def test_source_that_fails_in_the_middle_of_pictures_costs_no_buffers() -> None:
    """More often than there are buffers: each must find its way back."""

    class Torn(CameraFake):
        def retrieve(self, out: Pixels) -> None:
            if self._number == 1:
                raise SourceError("torn")
            super().retrieve(out)

    count = iter(range(1000))

    def opener(_spec: SourceSpec, _options: SourceOptions) -> Reader:
        return Torn(500.0) if next(count) < 12 else CameraFake(200.0, first=500)

    sink = Recorder()
    runner = make(opener=opener, source_options=QUICK)
    add(runner, LIVE, sink)
    run_for(runner, lambda: max(sink.numbers, default=0) >= 530, 20)
    assert runner.streams[0].stats.reconnects == 12
    assert sink.numbers[-1] - sink.numbers[-10] <= 30, "it runs at full rate again"
