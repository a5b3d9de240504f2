"""What is drawn on: a picture and its labels, always touched together.

Every surface is drawn far to near, picture and labels from the same corners. Labels are never
smoothed: a pixel carries the id of the front-most surface that covers it, and where an outline
runs through a pixel the nearer surface gets it (OpenCV's fill includes the outline). A surface
that is partly transparent (leaves, spokes) claims the pixels it covers by half or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Colour = Sequence[float]

SHIFT = 4
"""Fractional bits of polygon corners."""
_FIXED = 1 << SHIFT
# Corners this far outside (in pixels) are clamped: it keeps fixed-point arithmetic in range.
_FAR_OUT = 60_000.0


def fixed(points: Floats) -> npt.NDArray[np.int32]:
    """Corners in OpenCV's fixed-point form."""
    return np.rint(np.clip(points, -_FAR_OUT, _FAR_OUT) * _FIXED).astype(np.int32)


@dataclass(frozen=True)
class Sprite:
    """A cut-out picture standing upright, with its mip levels.

    ``levels[i]`` holds, at 1/2**i of full size: colour premultiplied by coverage (h, w, 3),
    255 minus coverage repeated for three channels (h, w, 3), and label ids with 0 where it is
    see-through (h, w); all uint8. ``scale`` is pixels per metre at full size; ``foot`` is the
    pixel that stands on the ground.
    """

    levels: tuple[tuple[Bytes, Bytes, Bytes], ...]
    scale: float
    foot: tuple[float, float]

    @property
    def height(self) -> float:
        """Metres from the foot to the top."""
        return self.foot[1] / self.scale

    @staticmethod
    def build(colour: Bytes, cover: Bytes, labels: Bytes, scale: float) -> Sprite:
        """From straight colour (h, w, 3), coverage (h, w) and label ids (h, w), all uint8.

        The foot is the middle of the bottom edge.
        """
        height, width = cover.shape
        premultiplied = cv2.multiply(colour, cv2.merge([cover] * 3), scale=1 / 255)
        levels = []
        size = (width, height)
        while True:
            small = cv2.resize(cover, size, interpolation=cv2.INTER_AREA)
            ids = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            ids = np.where(small >= 128, ids, 0).astype(np.uint8)
            tone = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA)
            levels.append((tone, cv2.merge([255 - small] * 3), ids))
            if min(size) < 12:
                break
            size = (size[0] // 2, size[1] // 2)
        return Sprite(tuple(levels), scale, (width / 2 - 0.5, height - 0.5))

    def graded(self, gain: Floats) -> Sprite:
        """The same under another light: colours times ``gain`` (3,), BGR."""
        lut = gain_lut(gain)
        levels = tuple((cv2.LUT(tone, lut), clear, ids) for tone, clear, ids in self.levels)
        return Sprite(levels, self.scale, self.foot)


def gain_lut(gain: Floats, offset: float | Floats = 0.0) -> Bytes:
    """A (1, 256, 3) table multiplying each BGR channel by its gain and adding ``offset``."""
    ramp = np.arange(256.0)[:, None] * np.asarray(gain)[None, :] + offset
    return np.clip(np.rint(ramp), 0, 255).astype(np.uint8)[None]


class Canvas:
    """A picture (H, W, 3) BGR and its labels (H, W), uint8."""

    def __init__(self, height: int, width: int) -> None:
        self.bgr = np.zeros((height, width, 3), np.uint8)
        self.labels = np.zeros((height, width), np.uint8)

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
        level = min(max(int(np.floor(-np.log2(ratio))), 0), len(sprite.levels) - 1)
        tone, clear, ids = sprite.levels[level]
        step_x = ids.shape[1] / sprite.levels[0][2].shape[1] / ratio
        step_y = ids.shape[0] / sprite.levels[0][2].shape[0] / ratio
        box = self._window(x, y, ids.shape, step_x, step_y)
        if box is None:
            return
        x0, y0, x1, y1 = box
        foot = (ids.shape[1] - 1) / 2
        sign = -1.0 if mirror else 1.0
        matrix = np.array(
            [
                [sign * step_x, 0, foot + sign * (x0 - x) * step_x],
                [0, step_y, ids.shape[0] - 0.5 + (y0 - y) * step_y],
            ]
        )
        size = (x1 - x0, y1 - y0)
        linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        into = self.bgr[y0:y1, x0:x1]
        clear = cv2.warpAffine(clear, matrix, size, flags=linear, borderValue=(255, 255, 255))
        cv2.multiply(into, clear, dst=into, scale=1 / 255)
        cv2.add(into, cv2.warpAffine(tone, matrix, size, flags=linear), dst=into)
        ids = cv2.warpAffine(ids, matrix, size, flags=nearest)
        cv2.copyTo(ids, ids, self.labels[y0:y1, x0:x1])

    def _window(
        self, x: float, y: float, shape: tuple[int, ...], step_x: float, step_y: float
    ) -> tuple[int, int, int, int] | None:
        half = shape[1] / step_x / 2 + 1
        x0, x1 = max(int(x - half), 0), min(int(x + half) + 1, self.labels.shape[1])
        y0 = max(int(y - shape[0] / step_y) - 1, 0)
        y1 = min(int(y) + 2, self.labels.shape[0])
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
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        into = self.bgr[y0:y1, x0:x1]
        cv2.add(into, cv2.warpAffine(light, matrix, (x1 - x0, y1 - y0), flags=flags), dst=into)

    def plane(self, texture: Bytes, corners: Floats, label: int | None) -> None:
        """Stretch ``texture`` over a quad.

        ``corners`` (4, 2): top left, top right, bottom right, bottom left of the texture.
        """
        low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(0)) + 1, self.labels.shape[::-1]).astype(int)
        if (low >= high).any():
            return
        height, width = texture.shape[:2]
        edges = np.array(
            [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]],
            np.float32,
        )
        matrix = cv2.getPerspectiveTransform(edges, (corners - low).astype(np.float32))
        into = self.bgr[low[1] : high[1], low[0] : high[0]]
        cv2.warpPerspective(
            texture,
            matrix,
            (int(high[0] - low[0]), int(high[1] - low[1])),
            dst=into,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
        if label is not None:
            cv2.fillConvexPoly(self.labels, fixed(corners), label, cv2.LINE_8, SHIFT)

    def lattice(self, texture: Bytes, mask: Bytes, corners: Floats) -> None:
        """Stretch a see-through texture over a quad: as far as ``mask`` covers."""
        low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(0)) + 1, self.labels.shape[::-1]).astype(int)
        if (low >= high).any():
            return
        height, width = mask.shape
        edges = np.array(
            [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]],
            np.float32,
        )
        matrix = cv2.getPerspectiveTransform(edges, (corners - low).astype(np.float32))
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        into = self.bgr[low[1] : high[1], low[0] : high[0]]
        cover = cv2.warpPerspective(mask, matrix, size, flags=cv2.INTER_LINEAR)
        tone = cv2.warpPerspective(texture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        cover = cv2.cvtColor(cover, cv2.COLOR_GRAY2BGR)
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
