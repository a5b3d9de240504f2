"""What is drawn on: a picture and its labels, always touched together.

Every surface is drawn far to near, picture and labels from the same corners. Labels are never
smoothed: a pixel carries the id of the front-most surface that covers it, and where an outline
runs through a pixel the nearer surface gets it (OpenCV's fill includes the outline). A surface
that is partly transparent (leaves, spokes) claims the pixels it covers by half or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.materials import gain_lut

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Colour = Sequence[float]

SHIFT = 4
"""Fractional bits of polygon corners."""
_FIXED = 1 << SHIFT
_LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_NEAREST = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP


def fixed(points: Floats) -> npt.NDArray[np.int32]:
    """Corners in OpenCV's fixed-point form."""
    return np.rint(points * _FIXED).astype(np.int32)


@dataclass(frozen=True)
class Sprite:
    """A cut-out picture standing upright, with its mip levels.

    ``levels[i]`` holds, at 1/2**i of full size, uint8: colour premultiplied by coverage and, as
    fourth channel, 255 minus coverage (h, w, 4); and label ids (h, w), which matter only where
    coverage is at least half. ``label`` is that id where there is only one, else 0. ``scale``
    is pixels per metre at full size; the middle of the bottom edge stands on the ground.
    """

    levels: tuple[tuple[Bytes, Bytes], ...]
    scale: float
    label: int

    @staticmethod
    def build(premultiplied: Bytes, cover: Bytes, labels: Bytes, scale: float) -> Sprite:
        """From colour times coverage (h, w, 3), coverage (h, w) and label ids (h, w)."""
        present = np.unique(labels[cover >= 128])
        if len(present) > 1:
            labels = _spread(labels)
        tone = cv2.merge([premultiplied, 255 - cover])
        levels = [(tone, labels)]
        while min(labels.shape) >= 16:
            size = (labels.shape[1] // 2, labels.shape[0] // 2)
            tone = cv2.resize(tone, size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            levels.append((tone, labels))
        return Sprite(tuple(levels), scale, int(present[0]) if len(present) == 1 else 0)

    def graded(self, gain: Floats) -> Sprite:
        """The same under another light: colours times ``gain`` (3,), BGR."""
        lut = gain_lut(np.append(gain, 1.0))
        levels = tuple((cv2.LUT(tone, lut), ids) for tone, ids in self.levels)
        return Sprite(levels, self.scale, self.label)


def _spread(labels: Bytes) -> Bytes:
    """Label ids with every 0 replaced by the nearest id, so that no sampling finds a hole."""
    empty = np.asarray(labels == 0, np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(int(nearest.max()) + 1, np.uint8)
    table[nearest[empty == 0]] = labels[empty == 0]
    return np.asarray(table[nearest], np.uint8)


class Canvas:
    """A picture (H, W, 3) BGR and its labels (H, W), uint8. Sky and ground fill it."""

    def __init__(self, height: int, width: int) -> None:
        self.bgr = np.empty((height, width, 3), np.uint8)
        self.labels = np.empty((height, width), np.uint8)

    def convex(self, corners: Floats, colour: Colour, label: int | None) -> None:
        """Fill a convex polygon (n, 2). ``label`` None leaves the labels alone."""
        points = fixed(corners)
        cv2.fillConvexPoly(self.bgr, points, colour, cv2.LINE_AA, SHIFT)
        if label is not None:
            cv2.fillConvexPoly(self.labels, points, label, cv2.LINE_8, SHIFT)

    def polygon(self, corners: Floats, colour: Colour, label: int | None) -> None:
        """Fill any polygon (n, 2). ``label`` None leaves the labels alone."""
        points = fixed(corners)
        cv2.fillPoly(self.bgr, [points], colour, cv2.LINE_AA, SHIFT)
        if label is not None:
            cv2.fillPoly(self.labels, [points], label, cv2.LINE_8, SHIFT)

    def sprite(self, sprite: Sprite, x: float, y: float, scale: float, mirror: bool) -> None:
        """Stand a sprite on the pixel (x, y) at ``scale`` pixels per metre."""
        ratio = scale / sprite.scale
        level = min(max(int(-math.log2(ratio)), 0), len(sprite.levels) - 1)
        tone, ids = sprite.levels[level]
        rows, columns = ids.shape
        full = sprite.levels[0][1].shape
        step_x, step_y = columns / full[1] / ratio, rows / full[0] / ratio
        box = self._window(x, y, columns / step_x, rows / step_y)
        if box is None:
            return
        x0, y0, x1, y1 = box
        sign = -1.0 if mirror else 1.0
        left = (columns - 1) / 2 + sign * (x0 - x) * step_x
        matrix = np.array([[sign * step_x, 0, left], [0, step_y, rows - 0.5 + (y0 - y) * step_y]])
        size = (x1 - x0, y1 - y0)
        cut = cv2.warpAffine(tone, matrix, size, flags=_LINEAR, borderValue=(0, 0, 0, 255))
        clear = cv2.extractChannel(cut, 3)
        into, onto = self.bgr[y0:y1, x0:x1], self.labels[y0:y1, x0:x1]
        cv2.multiply(into, cv2.cvtColor(clear, cv2.COLOR_GRAY2BGR), dst=into, scale=1 / 255)
        cv2.add(into, cv2.cvtColor(cut, cv2.COLOR_BGRA2BGR), dst=into)
        if sprite.label:
            np.copyto(onto, np.uint8(sprite.label), where=clear < 128)
        else:
            ids = cv2.warpAffine(ids, matrix, size, flags=_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            np.copyto(onto, ids, where=clear < 128)

    def _window(
        self, x: float, y: float, width: float, height: float
    ) -> tuple[int, int, int, int] | None:
        half = width / 2 + 1
        x0, x1 = max(int(x - half), 0), min(int(x + half) + 1, self.labels.shape[1])
        y0, y1 = max(int(y - height) - 1, 0), min(int(y) + 2, self.labels.shape[0])
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def glow(self, light: Bytes, x: float, y: float, radius: float) -> None:
        """Add a round light (a square uint8 BGR picture), ``radius`` pixels, centred on (x, y)."""
        x0, x1 = max(int(x - radius), 0), min(int(x + radius) + 1, self.labels.shape[1])
        y0, y1 = max(int(y - radius), 0), min(int(y + radius) + 1, self.labels.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        step = light.shape[0] / (2 * radius)
        middle = (light.shape[0] - 1) / 2
        matrix = np.array(
            [[step, 0, middle + (x0 - x) * step], [0, step, middle + (y0 - y) * step]]
        )
        into = self.bgr[y0:y1, x0:x1]
        cv2.add(into, cv2.warpAffine(light, matrix, (x1 - x0, y1 - y0), flags=_LINEAR), dst=into)

    def plane(self, texture: Bytes, corners: Floats, mask: Bytes | None = None) -> None:
        """Stretch ``texture`` over a quad; where ``mask`` is given, as far as that covers.

        ``corners`` (4, 2): top left, top right, bottom right, bottom left of the texture.
        """
        (left, top), (right, low) = corners.min(0).tolist(), corners.max(0).tolist()
        x0, x1 = max(math.floor(left), 0), min(math.ceil(right) + 1, self.labels.shape[1])
        y0, y1 = max(math.floor(top), 0), min(math.ceil(low) + 1, self.labels.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        right, low = texture.shape[1] - 0.5, texture.shape[0] - 0.5
        edges = np.array([[-0.5, -0.5], [right, -0.5], [right, low], [-0.5, low]], np.float32)
        matrix = cv2.getPerspectiveTransform(edges, (corners - [x0, y0]).astype(np.float32))
        into, size = self.bgr[y0:y1, x0:x1], (x1 - x0, y1 - y0)
        if mask is None:
            clear = cv2.BORDER_TRANSPARENT
            cv2.warpPerspective(texture, matrix, size, into, cv2.INTER_LINEAR, clear)
            return
        cover = cv2.cvtColor(cv2.warpPerspective(mask, matrix, size), cv2.COLOR_GRAY2BGR)
        tone = cv2.warpPerspective(texture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        cv2.multiply(tone, cover, dst=tone, scale=1 / 255)
        cv2.multiply(into, cv2.bitwise_not(cover), dst=into, scale=1 / 255)
        cv2.add(into, tone, dst=into)

    def mark(self, corners: Floats, label: int) -> None:
        """Label a convex polygon (n, 2) without painting it."""
        cv2.fillConvexPoly(self.labels, fixed(corners), label, cv2.LINE_8, SHIFT)

    def haze(self, row: int, lut: Bytes) -> None:
        """Veil everything drawn so far above ``row`` through a (1, 256, 3) table."""
        if row > 0:
            part = self.bgr[:row]
            cv2.LUT(part, lut, dst=part)
