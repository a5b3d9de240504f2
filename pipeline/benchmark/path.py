"""The frame's path, stage by stage: what each takes of one frame.

The runner overlaps these stages. Here they follow each other on one frame at a time, in the same
code, with caches as warm as the stage before leaves them. Decoding alone is timed for itself: its
threads work ahead, and would take the engine's time while the engine is timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from pipeline.benchmark.clip import open_clip, read_frames
from pipeline.benchmark.contenders import Entries, Entry, Facts, facts_of
from pipeline.benchmark.turns import LEAST_SAMPLES, Contender, Samples
from pipeline.engines.base import Engine
from pipeline.errors import SourceError
from pipeline.inference import FrameSegmenter
from pipeline.video.draw import Painter, Style
from pipeline.video.frames import Frame, Pixels, Segmentation
from pipeline.video.metrics import StreamStats
from pipeline.video.readers.ffmpeg import FFmpegReader
from pipeline.video.sinks.base import Shown
from pipeline.video.sinks.videofile import VideoFileSink

DECODE, TILE, ENGINE, BLEND, DRAW, ENCODE = STAGES = (
    "decode", "tile", "engine", "blend + argmax", "draw", "encode",
)  # fmt: skip

WHAT: Final[Mapping[str, str]] = {
    DECODE: "the file to BGR, by FFmpeg, mean of ten frames",
    TILE: "resize, cut into the engine's buffer",
    ENGINE: "one inference, waited for",
    BLEND: "logits to labels of the frame's own size",
    DRAW: "class colours, legend and figures over the frame",
    ENCODE: "H.264 into an .mp4",
}

_HELD: Final = 16  # frames in memory, taken round and round
_CHUNK: Final = 10
_RATE: Final = 25


def path_entries(
    engine: Engine, clip: Path, folder: Path, stack: ExitStack, seconds: float
) -> Entries:
    """A contender for decoding, and one that fills the rows of all other stages.

    Args:
        engine: open; nobody else may use it during a turn.
        clip: what is segmented.
        folder: where the encoder writes.
        stack: closes what is opened here.
        seconds: of one turn.

    Raises:
        SourceError: the clip cannot be read.
    """
    path = FramePath(engine, read_frames(clip, _HELD), folder / "path.mp4")
    stack.callback(path.close)
    decoder = Contender((DECODE,), lambda: {DECODE: _decode(clip)})
    walker = Contender(STAGES[1:], lambda: path.turn(seconds))
    entries = {stage: Entry(walker, Facts()) for stage in STAGES[1:]}
    return {DECODE: Entry(decoder, Facts()), **entries, ENGINE: Entry(walker, facts_of(engine))}


class FramePath:
    """One frame after another through tile, engine, blend, draw and encode.

    Args:
        engine: open.
        frames: (H, W, 3) uint8 BGR, all of one size.
        output: the video that is written, and thrown away.
    """

    def __init__(self, engine: Engine, frames: list[Pixels], output: Path) -> None:
        self._segmenter = FrameSegmenter(engine, tiles="fit")
        self._frames = frames
        self._labels: Pixels = np.empty(frames[0].shape[:2], np.uint8)
        self._painter = Painter(Style(), "benchmark")
        self._stats = StreamStats("benchmark")
        self._sink = VideoFileSink(output)
        self._numbers = count()

    def turn(self, seconds: float) -> Samples:
        """Milliseconds of every stage, frame by frame; one frame before is not counted."""
        samples: Samples = {stage: [] for stage in STAGES[1:]}
        self._step()
        end = perf_counter() + seconds
        while len(samples[ENGINE]) < LEAST_SAMPLES or perf_counter() < end:
            for stage, spent in self._step().items():
                samples[stage].append(spent * 1e3)
        return samples

    def close(self) -> None:
        """Throw the video away."""
        self._sink.discard()

    def _step(self) -> dict[str, float]:
        """Seconds of every stage for the next frame."""
        number = next(self._numbers)
        bgr = self._frames[number % len(self._frames)]
        captured = perf_counter()
        ticket = self._segmenter.submit(bgr)
        labels = self._segmenter.finish(ticket, self._labels)
        labelled = perf_counter()
        frame = Frame(number, captured, number / _RATE, bgr)
        segmentation = Segmentation(number, labels, {})
        canvas = self._painter.paint(frame, segmentation, self._stats, None)
        drawn = perf_counter()
        self._sink.write(Shown(frame, segmentation, canvas, self._stats))
        written = perf_counter()
        self._stats.count_shown(captured, written)
        return {
            TILE: ticket.prepare, ENGINE: ticket.infer, BLEND: ticket.decode,
            DRAW: drawn - labelled, ENCODE: written - drawn,
        }  # fmt: skip


def _decode(clip: Path) -> list[float]:
    """Milliseconds a frame, of ten frames each, over the whole clip; opening it is left out."""
    reader = open_clip(clip)
    try:
        samples: list[float] = []
        begin = perf_counter()
        while decoded := _decode_chunk(reader):
            now = perf_counter()
            # The rest of a clip is no chunk of its own, unless the clip is as short as that.
            if decoded == _CHUNK or not samples:
                samples.append((now - begin) * 1e3 / decoded)
            begin = now
    finally:
        reader.close()
    if not samples:
        raise SourceError(f"'{clip}' ends before its first frame")
    # The first chunk pays for starting the decoder's threads.
    return samples[1:] or samples


def _decode_chunk(reader: FFmpegReader) -> int:
    """Decode up to ten frames; how many there were."""
    picture: Pixels = np.empty((0, 0, 3), np.uint8)
    for number in range(_CHUNK):
        head = reader.grab()
        if head is None:
            return number
        if picture.shape[:2] != (head.height, head.width):
            picture = np.empty((head.height, head.width, 3), np.uint8)
        reader.retrieve(picture)
    return _CHUNK
