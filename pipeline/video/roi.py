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
        """The rectangle on a frame of this size, cut off at its borders: see ``notice``.

        Raises:
            UsageError: nothing of it lies within the frame.
        """
        x, y, w, h = (round(value) for value in self._pixels(height, width))
        right, bottom = min(width, x + w), min(height, y + h)
        if right <= x or bottom <= y:
            raise UsageError(f"--roi {self.text} holds no pixel of a frame of {width}x{height}")
        return Region(x, y, right - x, bottom - y)

    def notice(self, height: int, width: int) -> str | None:
        """What to tell of a rectangle that is cut off: asked for is more than is segmented."""
        x, y, w, h = self._pixels(height, width)
        # Half a pixel more is what rounding makes of per cent.
        if x + w <= width + 0.5 and y + h <= height + 0.5:
            return None
        used = self.resolve(height, width)
        return (
            f"--roi {self.text} reaches past a frame of {width}x{height}: "
            f"{used.x},{used.y},{used.width},{used.height} is segmented"
        )

    def _pixels(self, height: int, width: int) -> list[float]:
        """x, y, width, height in pixels, not rounded."""
        spans = (width, height, width, height)
        return [
            value * span / 100 if relative else value
            for (value, relative), span in zip(self.parts, spans, strict=True)
        ]


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
