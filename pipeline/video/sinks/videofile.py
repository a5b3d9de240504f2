"""A video file of what was drawn: H.264, each frame at its own time, playable while it grows.

The container carries the source's timestamps, so a variable frame rate and the gaps of a live
stream stay what they were (``timeline`` tells how far). Fragments are written as it goes, so even
what a killed run leaves behind plays; at the end they become an ordinary file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pipeline.errors import SinkError, UsageError
from pipeline.video.frames import Pixels
from pipeline.video.sinks.base import Shown, TemporaryFile
from pipeline.video.sinks.timeline import CLOCK, Timeline

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

ENDINGS: Final = (".mp4", ".mov", ".mkv")

_LONGEST_FRAME: Final = 6 * 3600 * CLOCK.denominator
"""Ticks that a frame may last in MP4. FFmpeg's muxer, whose limit is 2^31, gives what comes after a
longer one a time right behind it, and says so in its log alone. A coarser tick would allow for more
and make 30 frames a second an uneven rate."""

_FRAGMENT: Final = "1000000"
"""Microseconds of video that a killed run loses at most."""

_LONGEST_SIDE: Final = 16384
"""More pixels in a row or column libx264 does not take."""

_ONE_THREAD_PIXELS: Final = 1920 * 1088
"""Up to this size one encoder thread keeps up, and takes least from the engine."""

_BT601, _STUDIO_RANGE = 6, 1
"""ISO/IEC 23091-2 numbers of what OpenCV's BGR to YUV conversion gives: SMPTE 170M, 16 to 235."""


class VideoFileSink:
    """Writes the canvas to ``.mp4``, ``.mov`` or ``.mkv``.

    4:2:0 video has even sides, of a macroblock's 16 pixels at least; where a frame has not, its
    last row or column is repeated. Frames of another size than the first are fitted in, aspect
    kept. In MP4 a frame that lasts for more than six hours is there again every six.

    Args:
        output: the file.
        notify: takes lines for the person.

    Raises:
        UsageError: another ending.
        SinkError: the place cannot be written to.
    """

    needs_canvas = True

    def __init__(self, output: Path, notify: Callable[[str], None] = lambda _line: None) -> None:
        if output.suffix.lower() not in ENDINGS:
            raise UsageError(f"'{output}': a video file ends in {', '.join(ENDINGS)}")
        import av  # not before it is needed: it takes a tenth of a second

        self._av = av
        self._file = TemporaryFile(output)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._even: Pixels = np.empty((0, 0, 3), np.uint8)
        self._yuv: Pixels = np.empty((0, 0), np.uint8)
        self._timeline = Timeline(lambda line: notify(f"'{output}': {line}"))
        self._holds = output.suffix.lower() != ".mkv"
        self._done = False

    def write(self, shown: Shown) -> None:
        """Encode one frame at its timestamp."""
        canvas = shown.canvas
        if canvas is None:
            raise SinkError(f"'{self._file.output}': there is nothing drawn to write")
        try:
            if self._stream is None:
                self._stream = self._open(canvas.shape[0], canvas.shape[1])
            last, now = self._timeline.last, self._timeline.place(shown.frame.timestamp)
            if self._holds and last >= 0:
                for tick in range(last + _LONGEST_FRAME, now, _LONGEST_FRAME):
                    self._encode(tick)
            cv2.cvtColor(self._fitted(canvas), cv2.COLOR_BGR2YUV_I420, dst=self._yuv)
            self._encode(now)
        except (OSError, self._av.FFmpegError) as error:
            raise self._failed(error) from error

    def stale(self, canvas: Pixels) -> None:
        """A file holds no frame twice: the gap in its timestamps says it all."""

    def close(self) -> str | None:
        """Finish the file and give it its name."""
        if self._done or self._container is None:
            self._done = True
            return None
        try:
            self._mux(None)
            self._container.close()
        except (OSError, self._av.FFmpegError) as error:
            self.discard()
            raise self._failed(error) from error
        self._done = True
        self._file.commit()
        return str(self._file.output)

    def discard(self) -> None:
        """Delete what was written."""
        self._done = True
        if self._container is not None:
            with contextlib.suppress(OSError, self._av.FFmpegError):  # it is thrown away
                self._container.close()
        self._file.remove()

    def _open(self, height: int, width: int) -> VideoStream:
        height, width = _file_size(height, width)
        if max(height, width) > _LONGEST_SIDE:
            raise SinkError(
                f"'{self._file.output}': frames of {height}x{width} (height x width) are too large "
                f"for H.264, whose sides have at most {_LONGEST_SIDE} pixels; --labels takes them"
            )
        if "libx264" not in self._av.codecs_available:
            raise SinkError(
                f"'{self._file.output}': this FFmpeg cannot write H.264 (libx264)",
                hint="install PyAV's own wheel, which can; --labels and --http work without it",
            )
        settings = {"flush_packets": "1"}  # else a killed run leaves a buffer unwritten
        if self._holds:
            settings |= {"movflags": "hybrid_fragmented", "frag_duration": _FRAGMENT}
        # Behind 'file:' a name is never taken for a protocol, whatever colons it has.
        place = f"file:{self._file.path.absolute()}"
        self._container = self._av.open(place, "w", container_options=settings)
        stream: Any = self._container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = CLOCK
        context.gop_size = 50
        context.colorspace, context.color_range = _BT601, _STUDIO_RANGE
        context.color_primaries = context.color_trc = _BT601
        # The engine needs the processor more than the file needs to be small.
        context.options = {"preset": "ultrafast", "crf": "23"}
        context.thread_count = 1 if height * width <= _ONE_THREAD_PIXELS else 0
        self._even = np.empty((height, width, 3), np.uint8)
        self._yuv = np.empty((height * 3 // 2, width), np.uint8)
        opened: VideoStream = stream
        return opened

    def _encode(self, tick: int) -> None:
        """The picture in ``_yuv``, shown from this tick on."""
        frame = self._av.VideoFrame.from_numpy_buffer(self._yuv, format="yuv420p")
        frame.pts, frame.time_base = tick, CLOCK
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        if self._container is not None and self._stream is not None:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def _fitted(self, canvas: Pixels) -> Pixels:
        """The canvas at the file's size: itself, or padded by a pixel, or letterboxed."""
        even, (height, width) = self._even, canvas.shape[:2]
        if canvas.shape == even.shape:
            return canvas
        if _file_size(height, width) == even.shape[:2]:
            below, right = even.shape[0] - height, even.shape[1] - width
            cv2.copyMakeBorder(canvas, 0, below, 0, right, cv2.BORDER_REPLICATE, dst=even)
            return even
        factor = min(even.shape[0] / height, even.shape[1] / width)
        high, wide = max(1, int(height * factor)), max(1, int(width * factor))
        top, left = (even.shape[0] - high) // 2, (even.shape[1] - wide) // 2
        even[...] = 0
        part = even[top : top + high, left : left + wide]
        part[...] = cv2.resize(canvas, (wide, high), interpolation=cv2.INTER_AREA)
        return even

    def _failed(self, error: Exception) -> SinkError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return SinkError(f"'{self._file.output}': {reason}; nothing of it was kept")


def _file_size(height: int, width: int) -> tuple[int, int]:
    """The sides of a file for frames of this size."""
    return max(16, height + height % 2), max(16, width + width % 2)
