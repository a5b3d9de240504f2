"""The clip that the frame's path and the runner are timed on: given, or rendered streets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from calibration.streets import StreetScene
from pipeline.errors import SourceError
from pipeline.video.frames import Pixels
from pipeline.video.readers.ffmpeg import FFmpegReader
from pipeline.video.source import SourceOptions, parse_source

SIZE: Final = (540, 960)
"""Not the engine's size, so that the resize is paid for, as with most cameras."""
_SEED: Final = 1


def write_streets(path: Path, frames: int, size: tuple[int, int] = SIZE) -> str:
    """Render a drive into an ``.mp4`` with B-frames, as files have them; what it is, in words."""
    import av  # not before it is needed: it takes a tenth of a second

    height, width = size
    scene = StreetScene(_SEED, height, width)
    coded = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(coded, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if coded == "libx264":
            stream.options = {"preset": "veryfast", "crf": "23"}
        for number in range(frames):
            yuv = cv2.cvtColor(scene.render(number).bgr, cv2.COLOR_BGR2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")))
        container.mux(stream.encode(None))
    kind = "H.264" if coded == "libx264" else "MPEG-4"
    return f"rendered streets, {width}x{height} {kind}, {frames} frames"


def read_frames(path: Path, most: int) -> list[Pixels]:
    """The first pictures of a clip, (H, W, 3) uint8 BGR each.

    Raises:
        SourceError: it does not open, or holds none.
    """
    found: list[Pixels] = []
    reader = open_clip(path)
    try:
        while len(found) < most and (head := reader.grab()) is not None:
            picture = np.empty((head.height, head.width, 3), np.uint8)
            reader.retrieve(picture)
            found.append(picture)
    finally:
        reader.close()
    if not found:
        raise SourceError(f"'{path}' ends before its first frame")
    return found


def open_clip(path: Path) -> FFmpegReader:
    """The runner's own reader of such a file. Raises ``SourceError``."""
    return FFmpegReader(parse_source(str(path)), SourceOptions())
