"""The runner: order, completeness, newest-frame, timeouts, failure, ends. The engine is a double
whose labels are known; the files, threads and timings are real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, sleep

import cv2
import numpy as np
import pytest

from calibration.cityscapes import TRAIN_IDS_TO_LABEL_IDS
from pipeline.errors import EngineError, SinkError, SourceError
from pipeline.inference import Segmenter
from pipeline.video.draw import Painter, Style
from pipeline.video.output import Controls
from pipeline.video.roi import parse_roi
from pipeline.video.runner import Runner, RunnerOptions
from pipeline.video.sinks.base import Sink
from pipeline.video.sinks.labels import LabelSink
from pipeline.video.sinks.videofile import VideoFileSink
from pipeline.video.source import Reader, SourceOptions, SourceSpec, open_reader, parse_source
from tests.pipeline.video.clips import (
    HEIGHT,
    WIDTH,
    number_of,
    numbered,
    read_clip,
    write_clip,
)
from tests.pipeline.video.fakes import CLASSES, CameraFake, ColourEngine, Recorder, wait_until

LIVE = SourceSpec("url", "rtsp://camera/stream", "rtsp://camera/stream")
QUICK = SourceOptions(open_timeout=0.3, read_timeout=0.2)


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_test() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    ours = ("read ", "feed ", "outlet ", "submit", "collect")
    assert wait_until(
        lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith(ours)],
        3.0,
    ), f"left over: {set(threading.enumerate()) - before}"


def make(
    engine: ColourEngine | None = None,
    *,
    options: RunnerOptions | None = None,
    source_options: SourceOptions | None = None,
    opener: Callable[[SourceSpec, SourceOptions], Reader] = open_reader,
    controls: Controls | None = None,
) -> Runner:
    engine = engine or ColourEngine(HEIGHT, WIDTH)
    return Runner(
        Segmenter(engine), engine.slots, options=options, source_options=source_options,
        opener=opener, controls=controls,
    )  # fmt: skip


def add(runner: Runner, source: str | SourceSpec, *sinks: Sink) -> None:
    spec = parse_source(source) if isinstance(source, str) else source
    runner.add(spec, sinks, Painter(Style(), spec.name))


def script(*readers: CameraFake | Exception | Callable[[], object]) -> Callable[..., Reader]:
    """An opener that gives these one after the other, the last one again and again."""
    left = list(readers)

    def opener(_spec: SourceSpec, _options: SourceOptions) -> Reader:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        if not isinstance(found, CameraFake):
            found()
            raise SourceError("never reached")
        return found

    return opener


def run_for(runner: Runner, condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Run until the condition holds, then stop properly."""
    deadline = perf_counter() + seconds

    def poll() -> None:
        if condition() or perf_counter() > deadline:
            runner.controls.stop.set()

    runner.run(poll)
    assert condition(), "it did not come true in time"


# -- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_file_drops_nothing_and_keeps_order(tmp_path: Path, slots: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 60)
    sink = Recorder()
    runner = make(ColourEngine(HEIGHT, WIDTH, slots=slots, delay=0.002))
    add(runner, str(clip), sink)
    runner.run()
    assert sink.indices == sink.numbers == list(range(60))
    np.testing.assert_allclose(sink.timestamps, np.arange(60) / 25, atol=1e-6)
    stats = runner.streams[0].stats
    assert (stats.captured, stats.shown, stats.dropped) == (60, 60, 0)
    assert stats.latency.count == 60
    assert {name for name, _ms in stats.milliseconds()} >= {"capture", "prepare", "infer", "sinks"}
    assert sink.ended == "closed"


def test_slow_sink_loses_nothing_of_a_file(tmp_path: Path) -> None:
    sink = Recorder(delay=0.01)
    runner = make()
    add(runner, str(write_clip(tmp_path / "clip.mp4", 40)), sink)
    runner.run()
    assert sink.numbers == list(range(40))


def test_labels_are_the_engines(tmp_path: Path) -> None:
    """At the tile's own size the labels are the engine's answer to the very frame."""
    clip = write_clip(tmp_path / "clip.mp4", 5)
    sink, folder = Recorder(), tmp_path / "labels"
    runner = make()
    add(runner, str(clip), sink, LabelSink(folder))
    runner.run()
    pictures = [picture for _time, picture in read_clip(clip)]
    for number, picture in enumerate(pictures):
        # PyAV's own conversion here and the reader's may round a colour differently.
        np.testing.assert_array_equal(sink.labels[number] < CLASSES, True)
        ids = cv2.imread(str(folder / f"frame_{number:06d}_labelIds.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(ids, TRAIN_IDS_TO_LABEL_IDS[sink.labels[number]])
        assert (sink.labels[number] == picture[..., 0] % CLASSES).mean() > 0.99
    assert len(list(folder.iterdir())) == 5


def test_written_video_plays_and_keeps_a_variable_rate(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.51, 1.7, 3.0]
    out = tmp_path / "out.mp4"
    runner = make()
    add(runner, str(write_clip(tmp_path / "vfr.mp4", 6, times=times)), VideoFileSink(out))
    runner.run()
    written = read_clip(out)
    np.testing.assert_allclose([time for time, _ in written], times, atol=1e-4)
    assert runner.streams[0].outlet.outputs == [str(out)]
    oracle = cv2.VideoCapture(str(out))
    assert oracle.read()[0], "OpenCV plays it as well"
    oracle.release()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_drawn_colours_survive_the_file(tmp_path: Path) -> None:
    """What is written is what was drawn, in the right colours: opacity 1 shows the palette."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH, 3), 13, np.uint8))  # 13 is car
    out = tmp_path / "out.mp4"
    runner = make()
    spec = parse_source(str(tmp_path))
    style = Style(opacity=1.0, legend=False, figures=False)
    runner.add(spec, [VideoFileSink(out)], Painter(style, "x"))
    runner.run()
    ((_time, picture),) = read_clip(out)
    np.testing.assert_allclose(picture[HEIGHT // 2, WIDTH // 2], style.colour(13), atol=6)


@pytest.mark.parametrize("frames", [1, 3])
def test_max_frames(tmp_path: Path, frames: int) -> None:
    sink = Recorder()
    runner = make(options=RunnerOptions(max_frames=frames))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 30)), sink)
    runner.run()
    assert sink.numbers == list(range(frames))


def test_one_frame_file(tmp_path: Path) -> None:
    sink = Recorder()
    runner = make()
    add(runner, str(write_clip(tmp_path / "one.mp4", 1)), sink)
    runner.run()
    assert sink.numbers == [0]


def test_skip_leaves_out_frames_between(tmp_path: Path) -> None:
    sink = Recorder()
    runner = make(options=RunnerOptions(skip=2))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 10)), sink)
    runner.run()
    assert sink.numbers == sink.indices == [0, 3, 6, 9]
    assert runner.streams[0].stats.skipped == 6
    assert runner.streams[0].stats.dropped == 0


def test_loop_begins_anew_and_time_goes_on(tmp_path: Path) -> None:
    sink = Recorder()
    runner = make(options=RunnerOptions(max_frames=12), source_options=SourceOptions(loop=True))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 5)), sink)
    runner.run()
    assert sink.numbers == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert sink.indices == list(range(12))
    np.testing.assert_allclose(sink.timestamps, np.arange(12) / 25, atol=1e-3)


def test_region_of_interest(tmp_path: Path) -> None:
    sink = Recorder()
    runner = make(options=RunnerOptions(region=parse_roi("25%,16,50%,40")))
    add(runner, str(write_clip(tmp_path / "clip.mp4", 3)), sink)
    runner.run()
    x, w = WIDTH // 4, WIDTH // 2
    for labels in sink.labels:
        inside = labels[16:56, x : x + w]
        assert (inside < CLASSES).all()
        outside = np.ones(labels.shape, bool)
        outside[16:56, x : x + w] = False
        assert (labels[outside] == 255).all()


def test_frame_size_may_change(tmp_path: Path) -> None:
    sizes = [(HEIGHT, WIDTH), (33, 57), (1, 1), (HEIGHT, WIDTH)]
    for number, (height, width) in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number, height, width))
    sink, out = Recorder(needs_canvas=True), tmp_path / "out.mp4"
    runner = make()
    add(runner, str(tmp_path), sink, VideoFileSink(out))
    runner.run()
    assert [canvas.shape[:2] for canvas in sink.canvases] == sizes
    assert [picture.shape[:2] for _t, picture in read_clip(out)] == [(HEIGHT, WIDTH)] * 4


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (2, 1), (3, 5), (17, 16), (96, 161), (479, 641), (2160, 3840)]
)
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), numbered(0, *size))
    cv2.imwrite(str(tmp_path / "1.png"), numbered(1, *size))
    out = tmp_path / "out.mp4"
    runner = make()
    add(runner, str(tmp_path), VideoFileSink(out), LabelSink(tmp_path / "labels"))
    runner.run()
    even = [max(16, side + side % 2) for side in size]
    assert [list(picture.shape[:2]) for _t, picture in read_clip(out)] == [even] * 2
    ids = cv2.imread(str(tmp_path / "labels/frame_000001_labelIds.png"), cv2.IMREAD_UNCHANGED)
    assert ids is not None
    assert ids.shape == size


def test_no_frame_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out.mp4"
    runner = make()
    add(runner, str(tmp_path), VideoFileSink(out))
    with pytest.raises(SourceError, match="no frame that decodes"):
        runner.run()
    assert not out.exists()


# -- live sources ----------------------------------------------------------------------------


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
    sink = Recorder()
    runner = make(
        ColourEngine(HEIGHT, WIDTH, slots=3, delay=0.1),
        options=RunnerOptions(max_latency=0.001),
        opener=script(CameraFake(100.0)),
    )
    add(runner, LIVE, sink)
    run_for(runner, lambda: runner.streams[0].stats.late >= 5)
    assert sink.indices == []
    assert runner.streams[0].stats.dropped >= 5


def test_realtime_plays_a_file_by_its_clock(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 15)
    sink = Recorder()
    runner = make(source_options=SourceOptions(realtime=True))
    add(runner, str(clip), sink)
    begin = perf_counter()
    runner.run()
    assert 14 / 25 <= perf_counter() - begin < 4
    assert len(sink.indices) + runner.streams[0].stats.dropped == 15


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


# -- several streams -------------------------------------------------------------------------


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


# -- failure and end -------------------------------------------------------------------------


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
