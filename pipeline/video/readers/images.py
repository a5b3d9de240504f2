"""A picture as a source, or a directory of them in natural order: 2.png before 10.png."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from calibration.errors import CalibrationDataError
from calibration.images import read_upright_bgr
from pipeline.errors import SourceError
from pipeline.video.frames import Pixels
from pipeline.video.source import Head, SourceSpec

_ENDINGS = frozenset({".png", ".jpg", ".jpeg"})


class ImagesReader:
    """PNG and JPEG pictures, 25 a second on their own clock; undecodable ones are counted.

    The orientation that EXIF states is applied, as FFmpeg does with a video's.
    """

    live = False
    rate: float | None = 25.0
    truncated = False

    def __init__(self, spec: SourceSpec) -> None:
        target = Path(spec.target)
        try:
            files = [target] if spec.kind == "file" else list(target.iterdir())
            found = [p for p in files if p.suffix.lower() in _ENDINGS]
        except OSError as error:
            raise SourceError(f"'{spec.name}': {error.strerror or error}") from error
        if not found:
            raise SourceError(f"'{spec.name}' holds no PNG or JPEG picture")
        self._paths = sorted(found, key=_natural)
        self._next = 0
        self._picture: Pixels | None = None
        self.decode_errors = 0

    def grab(self) -> Head | None:
        """The next picture that decodes."""
        while self._next < len(self._paths):
            number, self._next = self._next, self._next + 1
            try:
                self._picture = read_upright_bgr(self._paths[number])
            except CalibrationDataError:
                self.decode_errors += 1
                continue
            height, width = self._picture.shape[:2]
            return Head(height, width, number / 25.0)
        return None

    def retrieve(self, out: Pixels) -> None:
        """Copy it."""
        if self._picture is None:
            raise SourceError("no picture was grabbed")
        np.copyto(out, self._picture)

    def close(self) -> None:
        """Let the last picture go."""
        self._picture = None


def is_jpeg(path: Path) -> bool:
    """Whether it is a picture and called so: FFmpeg takes such a name for that of a series."""
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(3) == b"\xff\xd8\xff"
    except OSError:  # whoever opens it says why
        return False


def _natural(path: Path) -> list[tuple[int, str]]:
    # isdecimal is what \d is; isdigit holds for superscripts too, of which int() makes nothing.
    return [(int(part), "") if part.isdecimal() else (-1, part)
            for part in re.split(r"(\d+)", path.name)]  # fmt: skip
