"""In the steady state the runner allocates nothing the size of a frame, and nothing piles up."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from pipeline.inference import FrameSegmenter
from pipeline.video.draw import Painter, Style
from pipeline.video.runner import Runner, RunnerOptions
from pipeline.video.sinks.base import Shown
from pipeline.video.sinks.videofile import VideoFileSink
from pipeline.video.source import Head, Reader, SourceOptions, SourceSpec
from tests.pipeline.video.clips import HEIGHT as CLIP_HEIGHT
from tests.pipeline.video.clips import WIDTH as CLIP_WIDTH
from tests.pipeline.video.clips import Pixels, numbered
from tests.pipeline.video.fakes import CameraFake, ColourEngine

HEIGHT, WIDTH = 480, 640
FRAME_BYTES = HEIGHT * WIDTH * 3


class Still:
    """A source that costs nothing: the same picture again and again."""

    live = False
    rate: float | None = 25.0
    decode_errors = 0
    truncated = False

    def __init__(self) -> None:
        self._picture = numbered(3, HEIGHT, WIDTH)
        self._number = 0

    def grab(self) -> Head | None:
        self._number += 1
        return Head(HEIGHT, WIDTH, self._number / 25)

    def retrieve(self, out: Pixels) -> None:
        np.copyto(out, self._picture)

    def close(self) -> None:
        pass


class Meter:
    """A sink that looks at the memory between frames: peak of each, and what has piled up."""

    needs_canvas = False

    def __init__(self, warm: int) -> None:
        self._left = warm
        self.peaks: list[int] = []
        self.held: list[int] = []

    def write(self, shown: Shown) -> None:
        self._left -= 1
        if self._left > 0:
            return
        if self._left == 0:
            tracemalloc.start()
        else:
            held, peak = tracemalloc.get_traced_memory()
            self.peaks.append(peak - (self.held[-1] if self.held else held))
            self.held.append(held)
        tracemalloc.reset_peak()

    def stale(self, canvas: Pixels) -> None:
        pass

    def close(self) -> str | None:
        tracemalloc.stop()
        return None

    def discard(self) -> None:
        tracemalloc.stop()


@pytest.mark.parametrize("tiles", ["fit", "cover"])
def test_no_allocation_of_a_frames_size_per_frame(tmp_path: Path, tiles: str) -> None:
    engine = ColourEngine(192, 256, slots=3)
    assert tiles in ("fit", "cover")
    segmenter = FrameSegmenter(engine, tiles="cover" if tiles == "cover" else "fit")
    runner = Runner(
        segmenter, engine.slots, options=RunnerOptions(max_frames=130),
        opener=lambda _spec, _options: Still(),
    )  # fmt: skip
    meter = Meter(warm=50)
    # The legend changes once its classes have been away for a second; here it stays.
    painter = Painter(Style(), "still")
    spec = SourceSpec("file", "still", "still")
    runner.add(spec, [VideoFileSink(tmp_path / "out.mp4"), meter], painter)
    runner.run()
    peaks = np.array(meter.peaks)
    assert len(peaks) > 60
    # NumPy reports its arrays to tracemalloc. Now and then the figures are rendered anew, and the
    # double's threads come and go; but most frames need less than a twentieth of a frame.
    assert np.median(peaks) < FRAME_BYTES / 20
    assert (peaks > FRAME_BYTES / 2).mean() < 0.2
    assert meter.held[-1] - meter.held[5] < FRAME_BYTES, "nothing piles up"


def test_statistics_do_not_grow() -> None:
    from pipeline.video.metrics import StreamStats

    stats = StreamStats("x")
    for number in range(2000):
        stats.count_shown(0.0, number / 100)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20_000):
        stats.count_shown(0.0, number / 100)
        stats.stages["infer"].add(number / 1e5)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000


def test_lost_reader_is_let_go_at_once() -> None:
    """A lost source's decoder holds megabytes; an exception's traceback must not keep it alive."""
    first: CameraFake | None = CameraFake(200.0, error_at=5)
    gone = weakref.ref(first)
    left: list[CameraFake | None] = [first, CameraFake(200.0)]

    def opener(_spec: SourceSpec, _options: SourceOptions) -> Reader:
        found = left.pop(0) if len(left) > 1 else left[0]
        assert found is not None
        return found

    engine = ColourEngine(CLIP_HEIGHT, CLIP_WIDTH)
    runner = Runner(FrameSegmenter(engine), engine.slots, opener=opener)
    runner.add(SourceSpec("url", "rtsp://x", "rtsp://x"), [], Painter(Style(), "x"))
    stats = runner.streams[0].stats
    shown: list[int] = []

    def poll() -> None:
        if stats.reconnects:
            shown.append(stats.shown)
            if gone() is None or stats.shown > shown[0] + 100:
                runner.controls.stop.set()

    first = None
    gc.disable()  # what only the garbage collector could free stays
    try:
        runner.run(poll)
    finally:
        gc.enable()
    assert gone() is None
