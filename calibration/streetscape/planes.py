"""Upright planes along the road: a texture with mip levels, laid out in metres."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.canvas import Canvas
from calibration.streetscape.geometry import View

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SCALE = 24
"""Texture pixels per metre."""
_LEVELS = 6
_THIN = 0.6
"""Planes narrower than this many pixels are drawn in one colour."""


class Texture:
    """A picture (h, w, 3) at ``SCALE`` pixels per metre, halved down and across on demand.

    Foreshortening squeezes a wall along the road far more than up and down, so the two
    directions are halved independently. ``mask`` (h, w) is 255 where a lattice has material.
    ``mean`` is the average colour.
    """

    def __init__(self, full: Bytes, mask: Bytes | None = None) -> None:
        self.full, self.mask = full, mask
        self.mean: tuple[float, ...] = tuple(cv2.mean(full)[:3])
        self._halved: dict[tuple[int, int], tuple[Bytes, Bytes | None]] = {}

    @property
    def length(self) -> float:
        """Metres along the road."""
        return float(self.full.shape[1]) / SCALE

    @property
    def height(self) -> float:
        """Metres from the bottom edge to the top."""
        return float(self.full.shape[0]) / SCALE

    def level(self, down: int, across: int) -> tuple[Bytes, Bytes | None]:
        """Picture and mask, halved so many times down and across."""
        found = self._halved.get((down, across))
        if found is None:
            if down == across == 0:
                found = (self.full, self.mask)
            else:
                image, mask = self.level(max(down - 1, 0), across if down else across - 1)
                height, width = image.shape[:2]
                size = (
                    width if down else max(1, width // 2),
                    max(1, height // 2) if down else height,
                )
                found = (_area(image, size), None if mask is None else _area(mask, size))
            self._halved[down, across] = found
        return found


def _area(image: Bytes, size: tuple[int, int]) -> Bytes:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _level(density: float) -> int:
    """How often to halve for so many screen pixels per metre."""
    return min(max(int(math.log2(SCALE / max(density, 1e-3))), 0), _LEVELS - 1)


def along(
    canvas: Canvas,
    view: View,
    texture: Texture,
    start: float,
    a: float,
    b: float,
    u: float,
    label: int,
) -> None:
    """Draw what of a plane at ``u`` lies between ``a`` and ``b`` (s, both ahead of the camera).

    The plane begins at ``start``, where the texture's first column stands, and repeats the
    texture every ``texture.length`` metres. On the right side of the road the texture is
    mirrored, so that its first column is the nearer one on either side.
    """
    while a < b - 1e-6:
        into = math.fmod(a - start, texture.length)
        if texture.length - into < 1e-3:
            into = 0.0
        upto = min(b, a + texture.length - into)
        _piece(canvas, view, texture, a, upto, into, u, label)
        a = max(upto, a + 1e-3)


def _piece(
    canvas: Canvas,
    view: View,
    texture: Texture,
    a: float,
    b: float,
    into: float,
    u: float,
    label: int,
) -> None:
    # Left in the picture is near on the left side of the road and far on its right side.
    near_left = u < view.u
    left, right = (a, b) if near_left else (b, a)
    outline = view.upright(left, right, u, 0.0, texture.height)
    wide = abs(outline[1, 0] - outline[0, 0])
    if wide < _THIN:
        canvas.convex(outline, texture.mean, label)
        return
    middle = max((a + b) / 2 - view.s, 1.0)
    image, mask = texture.level(_level(view.lens.focal / middle), _level(wide / (b - a)))
    # Whole columns of the texture, and where on the plane those begin and end.
    per_metre = image.shape[1] / texture.length
    x0 = min(int(into * per_metre), image.shape[1] - 1)
    x1 = max(min(math.ceil((into + b - a) * per_metre), image.shape[1]), x0 + 1)
    begin = a - into + x0 / per_metre
    end = a - into + x1 / per_metre
    if begin > view.s + 0.5:
        left, right = (begin, end) if near_left else (end, begin)
        outline_drawn = view.upright(left, right, u, 0.0, texture.height)
    else:
        outline_drawn = outline
    part = image[:, x0:x1]
    lattice = None if mask is None else mask[:, x0:x1]
    if not near_left:
        part = cv2.flip(part, 1)
        lattice = None if lattice is None else cv2.flip(lattice, 1)
    canvas.plane(part, outline_drawn, lattice)
    canvas.mark(outline, label)


def across(
    canvas: Canvas, view: View, texture: Texture, s: float, left: float, right: float, label: int
) -> None:
    """Draw a plane that faces the camera, the texture stretched from ``left`` to ``right`` (u)."""
    outline = view.facing(s, left, right, 0.0, texture.height)
    density = (outline[1, 0] - outline[0, 0]) / texture.length
    image, _ = texture.level(_level(view.lens.focal / (s - view.s)), _level(density))
    canvas.plane(image, outline)
    canvas.mark(outline, label)
