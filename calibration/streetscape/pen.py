"""Drawing a sprite: colour, coverage and label by one stroke, at twice the size, then halved."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.canvas import Sprite

Bytes = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]
Point = tuple[float, float]

_OVER = 2


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
        turn: float = 0,
    ) -> None:
        """An ellipse, filled, or a ring of ``ring`` metres, turned by ``turn`` degrees."""
        rx, ry = radii if isinstance(radii, tuple) else (radii, radii)
        axes = (max(1, round(rx * self.scale)), max(1, round(ry * self.scale)))
        thick = max(1, round(ring * self.scale)) if ring else -1
        at = self.pixel(*centre)
        cv2.ellipse(self.colour, at, axes, turn, 0, 360, colour, thick)
        cv2.ellipse(self.cover, at, axes, turn, 0, 360, 255, thick)
        cv2.ellipse(self.labels, at, axes, turn, 0, 360, self.label, thick)

    def text(self, text: str, centre: Point, size: float, colour: Colour) -> None:
        """Letters ``size`` metres high. They colour what is there and cover nothing new."""
        font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(size * self.scale / 7))
        scale = size * self.scale / 22
        (width, height), _ = cv2.getTextSize(text, font, scale, weight)
        x, y = self.pixel(*centre)
        at = (x - width // 2, y + height // 2)
        cv2.putText(self.colour, text, at, font, scale, colour, weight, cv2.LINE_AA)

    def shade(self, gain: npt.NDArray[np.floating]) -> None:
        """Multiply the colours, column by column, by ``gain`` (columns,), 0 to 2."""
        row = np.clip(np.rint(gain * 128), 0, 255).astype(np.uint8)
        sheet = np.broadcast_to(row[None, :, None], self.colour.shape)
        cv2.multiply(self.colour, np.ascontiguousarray(sheet), dst=self.colour, scale=1 / 128)

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
