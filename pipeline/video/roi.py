"""``--roi``: the part of a frame that is segmented, in pixels or in per cent of the frame."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.video.frames import Region

_PART = r"(\d{1,9}(?:\.\d+)?)(%?)"  # of some hundred digits float() would make infinity
_PATTERN = re.compile(rf"\s*{_PART}\s*,\s*{_PART}\s*,\s*{_PART}\s*,\s*{_PART}\s*")


@dataclass(frozen=True)
class RegionSpec:
    """A rectangle as it was asked for: x, y, width, height, each in pixels or per cent."""

    text: str
    parts: tuple[tuple[float, bool], ...]

    def resolve(self, height: int, width: int) -> Region:
        """The rectangle on a frame of this size, cut off at its borders.

        Raises:
            UsageError: nothing of it lies within the frame.
        """
        spans = (width, height, width, height)
        x, y, w, h = (
            round(value * span / 100) if relative else round(value)
            for (value, relative), span in zip(self.parts, spans, strict=True)
        )
        right, bottom = min(width, x + w), min(height, y + h)
        if right <= x or bottom <= y:
            raise UsageError(f"--roi {self.text} holds no pixel of a frame of {width}x{height}")
        return Region(x, y, right - x, bottom - y)


def parse_roi(text: str) -> RegionSpec:
    """``X,Y,WIDTH,HEIGHT``, such as ``0,40%,100%,60%`` or ``320,200,640,400``.

    Raises:
        UsageError: anything else.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--roi '{text}' is not X,Y,WIDTH,HEIGHT, in pixels or per cent, such as 0,40%,100%,60%"
        )
    groups = match.groups()
    parts = tuple((float(groups[i]), groups[i + 1] == "%") for i in range(0, 8, 2))
    return RegionSpec(text, parts)
