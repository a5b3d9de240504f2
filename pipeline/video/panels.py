"""Small translucent panels with text, rendered once and laid onto frame after frame.

A panel is a premultiplied colour and a coverage: ``out = frame * (1 - coverage) + colour``. Laying
it on costs two passes over its own pixels and allocates nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np

from pipeline.video.frames import Pixels

Bgr: TypeAlias = tuple[int, int, int]

INK: Bgr = (245, 245, 245)
FAINT: Bgr = (190, 186, 182)
GROUND: Bgr = (26, 22, 20)
ALARM: Bgr = (60, 60, 225)

_FACE = cv2.FONT_HERSHEY_SIMPLEX
_CAP = 21.0
"""Height of a capital letter of that face at scale 1, in pixels."""

_FINER = 4
"""Rounded corners are drawn this much larger and averaged down."""


@dataclass(frozen=True)
class Text:
    """A line of text: its letters, the height of its capitals in pixels, its colour, its weight."""

    letters: str
    height: float
    colour: Bgr = INK
    bold: bool = False

    @property
    def width(self) -> int:
        """Pixels it takes from left to right."""
        return _text_width(self.letters, self.height, self.bold)


@lru_cache(maxsize=512)
def _text_width(letters: str, height: float, bold: bool) -> int:
    size, _base = cv2.getTextSize(letters, _FACE, height / _CAP, _thickness(height, bold))
    return int(size[0])


def _thickness(height: float, bold: bool) -> int:
    return max(1, round(height / (8 if bold else 16)))


class Panel:
    """A rounded, translucent ground to put text and colour swatches on.

    Args:
        height: in pixels.
        width: in pixels.
        opacity: of the ground, 0 to 1.
        ground: its colour.
    """

    def __init__(
        self, height: int, width: int, *, opacity: float = 0.72, ground: Bgr = GROUND
    ) -> None:
        self.height, self.width = height, width
        mask = _rounded(height, width, max(2, min(height, width, 60) // 6))
        coverage = mask.astype(np.float32) * (opacity / 255)
        self._colour = coverage[..., None] * np.array(ground, np.float32)
        self._coverage = coverage
        self._scratch: Pixels = np.empty((height, width, 3), np.uint8)
        self._ready: tuple[Pixels, Pixels] | None = None

    def text(self, text: Text, left: int, baseline: int) -> None:
        """Write a line; ``baseline`` is the row its letters stand on."""
        above, below = math.ceil(1.4 * text.height), math.ceil(0.6 * text.height)
        mask = np.zeros((above + below, text.width + math.ceil(text.height)), np.uint8)
        cv2.putText(
            mask, text.letters, (0, above), _FACE, text.height / _CAP, 255,
            _thickness(text.height, text.bold), cv2.LINE_AA,
        )  # fmt: skip
        self._paint(mask, left, baseline - above, text.colour)

    def swatch(self, colour: Bgr, left: int, top: int, side: int) -> None:
        """A small rounded square of a class's colour."""
        self._paint(_rounded(side, side, max(1, side // 4)), left, top, colour)

    def lay(self, canvas: Pixels, left: int, top: int) -> None:
        """Blend the panel onto (H, W, 3) uint8 pixels, cut off at their borders."""
        height = min(self.height, canvas.shape[0] - top)
        width = min(self.width, canvas.shape[1] - left)
        if height < 1 or width < 1:
            return
        colour, rest = self._finished()
        part = canvas[top : top + height, left : left + width]
        scratch = self._scratch[:height, :width]
        cv2.multiply(part, rest[:height, :width], dst=scratch, scale=1 / 255)
        cv2.add(scratch, colour[:height, :width], dst=part)

    def _paint(self, mask: Pixels, left: int, top: int, colour: Bgr) -> None:
        """Lay a colour on through a mask (0 to 255), cut off at the panel's borders."""
        mask = mask[max(0, -top) : self.height - top, max(0, -left) : self.width - left]
        if not mask.size:
            return
        rows = slice(max(0, top), max(0, top) + mask.shape[0])
        cols = slice(max(0, left), max(0, left) + mask.shape[1])
        cover = mask.astype(np.float32) / 255
        beneath = self._colour[rows, cols]
        beneath += cover[..., None] * (np.array(colour, np.float32) - beneath)
        below = self._coverage[rows, cols]
        below += cover * (1 - below)
        self._ready = None

    def _finished(self) -> tuple[Pixels, Pixels]:
        """(premultiplied colour, 255 - coverage), both (H, W, 3) uint8."""
        if self._ready is None:
            rest = np.rint(255 - 255 * self._coverage).astype(np.uint8)
            self._ready = (
                np.rint(self._colour).astype(np.uint8),
                np.ascontiguousarray(np.repeat(rest[..., None], 3, axis=2)),
            )
        return self._ready


def _rounded(height: int, width: int, radius: int) -> Pixels:
    """Coverage 0 to 255 of a rectangle with round corners."""
    h, w = height * _FINER, width * _FINER
    r = max(1, min(radius * _FINER, h // 2, w // 2))
    large = np.zeros((h, w), np.uint8)
    large[r : h - r, :] = 255
    large[:, r : w - r] = 255
    for y in (r, h - r - 1):
        for x in (r, w - r - 1):
            cv2.circle(large, (x, y), r, 255, cv2.FILLED)
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
