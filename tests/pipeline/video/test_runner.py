"""Files through the runner: order, completeness, timestamps, labels, sizes. The engine is a double
whose labels are known; the files, threads and timings are real."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import av
import cv2
import numpy as np
import pytest

from calibration.cityscapes import TRAIN_IDS_TO_LABEL_IDS
from pipeline.errors import SourceError, UsageError
from pipeline.video.draw import Painter, Style, colour_of
from pipeline.video.roi import parse_roi
from pipeline.video.runner import RunnerOptions
from pipeline.video.sinks.labels import LabelSink
from pipeline.video.sinks.videofile import VideoFileSink
from pipeline.video.source import Head, SourceOptions, parse_source
from tests.pipeline.video.clips import (
    HEIGHT,
    WIDTH,
    numbered,
    read_clip,
    write_clip,
)
from tests.pipeline.video.fakes import CLASSES, CameraFake, ColourEngine, Recorder
from tests.pipeline.video.harness import LIVE, add, make, script

pytestmark = pytest.mark.usefixtures("no_thread_outlives_its_test")


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
    assert {name for name, found in stats.stages.items() if found.count} >= {
        "capture",
        "prepare",
        "infer",
        "sinks",
    }
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
    np.testing.assert_allclose(picture[HEIGHT // 2, WIDTH // 2], colour_of(13), atol=6)


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
    assert len(sink.labels) == 3
    for labels in sink.labels:
        inside = labels[16:56, x : x + w]
        assert (inside < CLASSES).all()
        outside = np.ones(labels.shape, bool)
        outside[16:56, x : x + w] = False
        assert (labels[outside] == 255).all()


def test_a_region_that_reaches_past_the_frame_is_told_once(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(HEIGHT, WIDTH), (33, 57), (HEIGHT, WIDTH)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number, height, width))
    runner = make(options=RunnerOptions(region=parse_roi("8,8,9999,9999")))
    add(runner, str(tmp_path), Recorder())
    runner.run()
    assert list(runner.controls.notices) == [
        f"--roi 8,8,9999,9999 reaches past a frame of {w}x{h}: 8,8,{w - 8},{h - 8} is segmented"
        for h, w in ((HEIGHT, WIDTH), (33, 57))
    ]


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


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_file_of_no_frames_is_one_line(tmp_path: Path, ending: str) -> None:
    empty, out = tmp_path / f"empty.{ending}", tmp_path / "out.mp4"
    with av.open(str(empty), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    runner = make()
    add(runner, str(empty), VideoFileSink(out))
    with pytest.raises(SourceError, match=r"no frame|no video stream|before its first frame"):
        runner.run()
    assert not out.exists()


def test_no_frame_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out.mp4"
    runner = make()
    add(runner, str(tmp_path), VideoFileSink(out))
    with pytest.raises(SourceError, match="no frame that decodes"):
        runner.run()
    assert not out.exists()


def test_numbers_go_on_after_pictures_that_do_not_decode(tmp_path: Path) -> None:
    """Labels are named by them: those of a picture after a damaged one were the next one's."""
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    for number in (2, 3):
        whole = (tmp_path / f"{number}.png").read_bytes()
        (tmp_path / f"{number}.png").write_bytes(whole[: len(whole) // 2])
    sink = Recorder()
    runner = make()
    add(runner, str(tmp_path), sink)
    runner.run()
    assert sink.indices == sink.numbers == [0, 1, 4, 5]
    assert runner.streams[0].stats.decode_errors == 2


def test_realtime_goes_on_at_its_pace_where_the_clock_is_set_back() -> None:
    """Two files joined: the second one is overdue by the first one's length."""

    class Joined(CameraFake):
        live = False

        def grab(self) -> Head | None:
            self._number += 1
            return Head(HEIGHT, WIDTH, self._number % 20 / 25) if self._number < 40 else None

    sink = Recorder()
    runner = make(opener=script(Joined()), source_options=SourceOptions(realtime=True))
    add(runner, LIVE, sink)
    begin = perf_counter()
    runner.run()
    assert perf_counter() - begin > 38 / 25 - 0.1
    assert len(sink.indices) > 25


def test_a_run_cannot_be_repeated(tmp_path: Path) -> None:
    """It used to wait for ever."""
    runner = make()
    add(runner, str(write_clip(tmp_path / "clip.mp4", 3)), Recorder())
    runner.run()
    with pytest.raises(UsageError, match="a run cannot be repeated"):
        runner.run()
