"""What a source is: how its name is read, what a reader of one must do, and who reads which.

    cam0, cam1 ...     the camera /dev/video0 ...; a device path does as well
    clip.mp4           a file
    frames/            a directory of PNG or JPEG pictures, in the natural order of their names
    rtsp://, http://   a network stream; https, rtsps, rtmp, srt, udp, tcp too
    streets[:SEED]     procedural street scenes, without end

A source is *live* when its frames come whether or not anyone takes them: then the newest frame is
the one that counts. Files, pictures and streets wait, and none of their frames is left out.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from pipeline.errors import SourceError, UsageError
from pipeline.tiles import MAX_SIDE
from pipeline.video.frames import Pixels
from pipeline.video.names import printable
from pipeline.video.urls import is_url, read_url, redact

SourceKind: TypeAlias = Literal["camera", "file", "images", "url", "streets"]

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: no camera makes them, hostile files do."""

STREETS_SIDES = (16, 16384)
"""Least and greatest side of streets: less has no room for what is drawn, more OpenCV refuses."""

STREETS_SIZE = (512, 1024)
"""Height and width of streets where none is asked for."""

STREETS_RATE = 25.0
"""Frames a second on the streets' own clock."""


@dataclass(frozen=True)
class SourceSpec:
    """A source as it was named.

    Attributes:
        kind: what reads it.
        target: what is opened: a path, a URL with its credentials, a device, a seed.
        name: for people and files: without credentials, and always text that can be encoded.
    """

    kind: SourceKind
    target: str
    name: str

    @property
    def may_be_live(self) -> bool:
        """Whether it is live, as far as can be told before it is opened."""
        return self.kind in ("camera", "url")


@dataclass(frozen=True)
class SourceOptions:
    """How sources are read.

    Attributes:
        open_timeout: seconds until a source that does not open counts as failed.
        read_timeout: seconds until one that gives nothing counts as stalled.
        size: (height, width) asked of a camera, or rendered by streets.
        rate: frames a second asked of a camera.
        loop: begin anew where a file ends.
        realtime: play files by their own clock and treat them as live; live sources are so anyway.
        give_up: seconds a live source may be away before the run fails; ``None``: for ever.
    """

    open_timeout: float = 10.0
    read_timeout: float = 5.0
    size: tuple[int, int] | None = None
    rate: float | None = None
    loop: bool = False
    realtime: bool = False
    give_up: float | None = None


@dataclass(frozen=True)
class Head:
    """What is known of a decoded picture before its pixels are asked for.

    Attributes:
        height, width: as shown, after any rotation its metadata asks for.
        timestamp: seconds on the source's clock since its first picture.
        waited: the longest the reader had to wait for the source to send something, in seconds; 0
            where the picture, and all since the one before, had already come.
    """

    height: int
    width: int
    timestamp: float
    waited: float = 0.0


class Reader(Protocol):
    """An open source. Used by one thread at a time; any call may block, none may outlast a timeout
    of the library's if it has one.
    """

    live: bool
    """Whether frames come by themselves."""
    rate: float | None
    """Nominal frames a second, where the source states any."""
    decode_errors: int
    """Packets or pictures that did not decode, so far."""
    truncated: bool
    """Whether it ended before the length it states; known at its end."""

    def grab(self) -> Head | None:
        """Decode the next picture; ``None`` at the end.

        Raises ``SourceError`` where the source is lost.
        """

    def retrieve(self, out: Pixels) -> None:
        """Write the grabbed picture, BGR, into ``out`` (H, W, 3) uint8 as the head said."""

    def close(self) -> None:
        """Let the source go. Safe to call twice."""


def parse_source(text: str) -> SourceSpec:
    """Read a source's name. Looks at the disk to tell files, directories and devices apart.

    Raises:
        UsageError: a name that is none, a URL that is none, or a scheme that is not read.
        SourceError: a file or device that is not there.
    """
    if not text or "\0" in text:
        raise UsageError("a source needs a name, such as cam0, clip.mp4 or rtsp://host/stream")
    if re.fullmatch(r"streets(:\d{1,9})?", text):
        return SourceSpec("streets", text.partition(":")[2] or "0", text)
    if match := re.fullmatch(r"cam(\d{1,3})", text):
        return SourceSpec("camera", f"/dev/video{match[1]}", text)
    if is_url(text):
        return SourceSpec("url", read_url(text), printable(redact(text)))
    path, name = Path(text), printable(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if text.startswith("streets:"):  # and no file, which might be called that
            raise UsageError(
                f"'{name}': give streets, or streets:SEED with a whole number of nine digits at "
                "most, such as streets:7"
            ) from error
        raise SourceError(f"'{name}': {error.strerror or error}") from error
    if stat.S_ISCHR(mode):
        return SourceSpec("camera", text, name)
    if stat.S_ISDIR(mode):
        return SourceSpec("images", text, name)
    if stat.S_ISREG(mode):
        return SourceSpec("file", text, name)
    raise SourceError(f"'{name}' is neither a file, a directory of pictures nor a camera")


def check_frame_size(name: str, height: int, width: int) -> None:
    """Refuse frames of a source that are too long to be tiled.

    Raises:
        SourceError: naming the source.
    """
    if max(height, width) > MAX_SIDE:
        raise SourceError(
            f"'{name}' has frames of {height}x{width} (height x width); the longest side may have "
            f"{MAX_SIDE} pixels"
        )


def open_reader(spec: SourceSpec, options: SourceOptions) -> Reader:
    """Open a source. Blocks up to ``open_timeout``, or longer where the system gives no say.

    Raises:
        SourceError: it does not open, or is no video. One line, without credentials.
    """
    # Each back end is imported only where it is used: PyAV alone takes a tenth of a second.
    if spec.kind == "camera":
        from pipeline.video.readers.camera import CameraReader

        return CameraReader(spec, options)
    if spec.kind == "images":
        from pipeline.video.readers.images import ImagesReader

        return ImagesReader(spec)
    if spec.kind == "streets":
        from pipeline.video.readers.streets import StreetsReader

        return StreetsReader(spec, options)
    if spec.kind == "file":
        from pipeline.video.readers.images import ImagesReader, is_jpeg

        if is_jpeg(Path(spec.target)):
            return ImagesReader(spec)
    from pipeline.video.readers.ffmpeg import FFmpegReader

    return FFmpegReader(spec, options)
