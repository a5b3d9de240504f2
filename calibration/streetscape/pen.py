"""Drawing a sprite: colour, coverage and label by one stroke, at twice the size, then halved."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.canvas import Sprite
from calibration.streetscape.materials import Colour

Bytes = npt.NDArray[np.uint8]
Point = tuple[float, float]

_OVER = 2
# Polylines on a grid one wide and two high, from the bottom left.
_STROKES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "0": (((0, 0), (0, 2), (1, 2), (1, 0), (0, 0)),),
    "2": (((0, 2), (1, 2), (1, 1), (0, 1), (0, 0), (1, 0)),),
    "3": (((0, 2), (1, 2), (1, 0), (0, 0)), ((0.2, 1), (1, 1))),
    "5": (((1, 2), (0, 2), (0, 1), (1, 1), (1, 0), (0, 0)),),
    "7": (((0, 2), (1, 2), (0.4, 0)),),
    "O": (((0, 0), (0, 2), (1, 2), (1, 0), (0, 0)),),
    "P": (((0, 0), (0, 2), (1, 2), (1, 1), (0, 1)),),
    "S": (((1, 2), (0, 2), (0, 1), (1, 1), (1, 0), (0, 0)),),
    "T": (((0, 2), (1, 2)), ((0.5, 2), (0.5, 0))),
}


class Pen:
    """A sheet ``width`` by ``height`` metres, drawn in metres: x to the right from its middle,
    y up from the ground. ``label`` is what strokes are, until changed.
    """

    def __init__(self, width: float, height: float, scale: float, label: int) -> None:
        self.scale = scale * _OVER
        rows, columns = round(height * self.scale), round(width * self.scale)
        rows, columns = rows + rows % _OVER, columns + columns % _OVER
        self.colour = np.zeros((rows, columns, 3), np.uint8)
        self.cover = np.zeros((rows, columns), np.uint8)
        self.labels = np.zeros((rows, columns), np.uint8)
        self.label = label

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """Where a point in metres lies on the sheet."""
        return (
            round(self.cover.shape[1] / 2 + x * self.scale),
            round(self.cover.shape[0] - y * self.scale),
        )

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A stroke with round ends, ``width`` metres."""
        corners = [np.array([self.pixel(*p) for p in points], np.int32)]
        thick = max(1, round(width * self.scale))
        cv2.polylines(self.colour, corners, False, colour, thick)
        cv2.polylines(self.cover, corners, False, (255,), thick)
        cv2.polylines(self.labels, corners, False, (self.label,), thick)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        corners = [np.array([self.pixel(*p) for p in points], np.int32)]
        cv2.fillPoly(self.colour, corners, colour)
        cv2.fillPoly(self.cover, corners, (255,))
        cv2.fillPoly(self.labels, corners, (self.label,))

    def disc(
        self,
        centre: Point,
        radii: float | Point,
        colour: Colour,
        *,
        ring: float = 0,
    ) -> None:
        """An ellipse, filled, or a ring of ``ring`` metres."""
        rx, ry = radii if isinstance(radii, tuple) else (radii, radii)
        axes = (max(1, round(rx * self.scale)), max(1, round(ry * self.scale)))
        thick = max(1, round(ring * self.scale)) if ring else -1
        at = self.pixel(*centre)
        cv2.ellipse(self.colour, at, axes, 0, 0, 360, colour, thick)
        cv2.ellipse(self.cover, at, axes, 0, 0, 360, 255, thick)
        cv2.ellipse(self.labels, at, axes, 0, 0, 360, self.label, thick)

    def text(self, text: str, centre: Point, size: float, colour: Colour) -> None:
        """Letters and digits of ``_STROKES``, ``size`` metres high.

        Drawn as strokes: what OpenCV's fonts look like depends on its version.
        """
        wide, step = size * 0.55, size * 0.75
        left = centre[0] - step * (len(text) - 1) / 2
        for k, letter in enumerate(text):
            for path in _STROKES[letter]:
                points = [
                    (left + k * step + (x - 0.5) * wide, centre[1] + (y / 2 - 0.5) * size)
                    for x, y in path
                ]
                self.line(points, size / 7, colour)

    def shade(self, gain: npt.NDArray[np.floating]) -> None:
        """Multiply the colours, column by column, by ``gain`` (columns,), 0 to 2."""
        row = np.clip(np.rint(gain * 128), 0, 255).astype(np.uint8)
        row = np.repeat(row, 3).reshape(1, -1, 3)
        sheet = cv2.resize(row, self.cover.shape[::-1], interpolation=cv2.INTER_NEAREST)
        cv2.multiply(self.colour, sheet, dst=self.colour, scale=1 / 128)

    def sprite(self) -> Sprite:
        """What was drawn. Where nothing was, the colour is 0, so halving premultiplies it."""
        size = (self.cover.shape[1] // _OVER, self.cover.shape[0] // _OVER)
        # Coverage of a half or more may come from strokes beside the sampled pixel.
        labels = cv2.dilate(self.labels, np.ones((3, 3), np.uint8))
        return Sprite.build(
            cv2.resize(self.colour, size, interpolation=cv2.INTER_AREA),
            cv2.resize(self.cover, size, interpolation=cv2.INTER_AREA),
            cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST),
            self.scale / _OVER,
        )
