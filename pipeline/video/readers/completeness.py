"""Whether a file holds what its header states: to its end, and every picture up to there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pipeline.video.readers.regularity import HOLE, Regularity

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SLACK: Final = 0.5
"""Seconds, or three frames' time if that is longer, by which headers are out."""

_LEAST_PACKET: Final = 7
"""Bytes of the smallest block: Matroska's takes six, and a byte of data (RFC 9559, 10.1)."""

_BETWEEN: Final = 256
"""Bytes between two packets of video that are a container's own: a new cluster's head takes 30."""


class Completeness:
    """Takes note of all that comes of a file, and judges it at its end.

    Packets can vanish between demuxer and decoder without an error. They are counted where
    something else shows that the file is damaged (some formats leave frames out on purpose).
    Matroska states no number of frames, and its demuxer drops a whole cluster for one bad byte.
    There the clock tells, if it is a steady one: and as a recorder may have paused, only where
    bytes went unread that could have held the pictures.

    Args:
        container: the open file.
        stream: its video.
        rate: frames a second as the container states them; ``None`` when it does not.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, rate: float | None) -> None:
        self._container = container
        self._stream: Any = stream
        self._matroska = "matroska" in container.format.name
        self._alone = len(container.streams) == 1
        self._regular = Regularity(rate)
        self._slack = max(_SLACK, 3 / rate if rate else 0.0)
        self._packets_end: int | None = None
        self._unread = 0
        self._first = 0.0
        self._end = 0.0
        self._pictures = 0

    def see_packet(self, packet: Any) -> None:
        """One more packet of the video, in the file's order."""
        if not packet.size or packet.pos is None or packet.pos < 0:
            return
        if self._packets_end is not None and packet.pos - self._packets_end > _BETWEEN:
            self._unread += packet.pos - self._packets_end
        self._packets_end = packet.pos + packet.size

    def see_picture(self, frame: VideoFrame, time: float) -> None:
        """One more picture, ``time`` seconds after the first."""
        if not self._pictures:
            self._first = frame.time or 0.0
        self._pictures += 1
        self._regular.see(time)
        lasts = float(frame.duration * frame.time_base) if frame.time_base else 0.0
        self._end = max(self._end, self._first + time + lasts)

    def truncated(self) -> bool:
        """Whether the last picture ends before the video does, as far as the header tells."""
        stated = self._stated_end()
        return stated is not None and self._end < stated - self._slack

    def missing(self, accounted: int, *, damaged: bool) -> int:
        """Pictures that came neither whole nor damaged, and are no gap of the recorder's.

        Args:
            accounted: those that came, that did not decode, and that were left out.
            damaged: whether anything else shows that the file is.
        """
        if self._stream.frames:
            return max(0, self._stream.frames - accounted) if damaged else 0
        hole = self._matroska and self._alone and self._regular.longest >= HOLE
        missing = (self._regular.expected() or 0) - accounted
        # The bound is for clocks that leap as well: by years there are millions of frames' times.
        return max(0, min(missing, self._unread // _LEAST_PACKET)) if hole or damaged else 0

    def _stated_end(self) -> float | None:
        """When the video ends by its own clock, in seconds; ``None`` where the header has no word.

        The container's duration is that of its longest stream, and sound may go on for longer.
        """
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            tick = stream.time_base
            begin = self._first if stream.start_time is None else stream.start_time * tick
            return float(begin + stream.duration * tick)
        if self._matroska and (tag := _seconds(stream.metadata.get("DURATION", ""))) is not None:
            return tag
        if not container.duration or not self._alone:
            return None
        # Matroska's duration is counted from 0, those of others from what comes first.
        start = 0 if self._matroska else container.start_time or 0
        return (start + container.duration) / 1e6


def _seconds(text: str) -> float | None:
    """Of ``01:02:03.5``, as Matroska's tags have it; ``None`` where it is none."""
    try:
        hours, minutes, seconds = text.split("\0")[0].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
