"""Trees, bushes and hedges."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape import ids
from calibration.streetscape.canvas import Sprite
from calibration.streetscape.materials import Light, clouds, graded, noise, to_bytes, varied
from calibration.streetscape.planes import SCALE, Texture

Bytes = npt.NDArray[np.uint8]

# Leaf colours, BGR, in daylight.
_LEAVES = (
    (56, 104, 84), (50, 90, 72), (70, 120, 104), (52, 112, 106), (60, 92, 78), (50, 104, 128),
)  # fmt: skip
_BARK = ((62, 74, 88), (78, 88, 98), (48, 60, 74))


def tree(rng: np.random.Generator, light: Light, kind: int) -> Sprite:
    """A tree as seen from the side: 0 round, 1 broad, 2 slender, 3 conifer, 4 bush."""
    height, spread, bare = (
        (7.8, 5.4, 0.34),
        (9.8, 7.2, 0.36),
        (10.0, 3.4, 0.14),
        (9.0, 4.2, 0.1),
        (1.5, 2.4, 0.0),
    )[kind]
    height *= float(0.85 + 0.3 * rng.random())
    scale = 46.0 if kind < 4 else 90.0
    rows, columns = round(height * scale), round(spread * scale)
    colour = np.zeros((rows, columns, 3), np.uint8)
    cover = np.zeros((rows, columns), np.uint8)
    _trunk(rng, colour, cover, bare, kind)
    _crown(rng, light, colour, cover, bare, kind)
    variation = 1 + 0.16 * noise(rng, rows, columns, (2.5, 2.5))
    variation += 0.13 * clouds(rng, rows, columns, columns / 7, 3)
    # Coverage joins the variation: the sprite's colours are premultiplied.
    shade = to_bytes(variation * (cover * (128 / 255)))
    lit = graded(colour, light.gain(0.55))
    tone = cv2.multiply(lit, cv2.cvtColor(shade, cv2.COLOR_GRAY2BGR), scale=1 / 128)
    return Sprite.build(tone, cover, np.full_like(cover, ids.VEGETATION), scale)


def _trunk(rng: np.random.Generator, colour: Bytes, cover: Bytes, bare: float, kind: int) -> None:
    rows, columns = cover.shape
    if kind == 4:
        return
    bark = _BARK[int(rng.integers(len(_BARK)))]
    foot, fork = (columns // 2, rows), (columns // 2, round(rows * (1 - bare - 0.12)))
    wide = max(3, round(columns * 0.05))
    for image, value in ((colour, bark), (cover, 255)):
        cv2.line(image, foot, fork, value, wide)
        for turn in (-0.5, -0.2, 0.25, 0.55):
            tip = (round(columns * (0.5 + 0.4 * turn)), round(rows * (0.62 - bare)))
            cv2.line(image, fork, tip, value, max(2, wide // 3))
    # Round: brightest along its middle.
    ramp = 1.25 - 0.5 * np.abs(np.linspace(-1.0, 1.0, wide + 2))
    left = columns // 2 - wide // 2 - 1
    part = colour[:, left : left + wide + 2]
    part[...] = (part * ramp[None, :, None]).astype(np.uint8)


def _crown(
    rng: np.random.Generator, light: Light, colour: Bytes, cover: Bytes, bare: float, kind: int
) -> None:
    rows, columns = cover.shape
    leaf = np.array(_LEAVES[int(rng.integers(len(_LEAVES)))], np.float32)
    leaf *= (0.92 + 0.16 * rng.random(3)).astype(np.float32) * float(0.85 + 0.3 * rng.random())
    top, bottom = rows * 0.05, rows * (1 - bare)
    middle, tall = (top + bottom) / 2, (bottom - top) / 2
    count = 150
    # From the back and the dark inside to the lit outside.
    order = np.sort(rng.random(count))
    around, out = rng.random(count) * 2 * np.pi, np.sqrt(rng.random(count))
    for depth, angle, reach in zip(order, around, out, strict=True):
        up, right = -np.sin(angle) * reach, np.cos(angle) * reach
        slim = 1.0 if kind != 3 else 0.12 + 0.88 * (1 - up) / 2
        x = columns * (0.5 + 0.43 * right * slim)
        y = middle - tall * 0.9 * up
        radius = columns * (0.06 + 0.08 * rng.random()) * (1.2 if reach < 0.6 else 0.8)
        lit = 0.55 + 0.22 * up + 0.14 * right * light.sun_side + 0.42 * depth
        tone = tuple(float(v) for v in leaf * lit)
        size = (max(1, round(radius * 1.2)), max(1, round(radius)))
        at = (round(x), round(y))
        cv2.ellipse(colour, at, size, 0, 0, 360, tone, -1)
        cv2.ellipse(cover, at, size, 0, 0, 360, 255, -1)
    # Leaves: the outline and the inside fray where noise says so, the trunk stays.
    fray = noise(rng, rows, columns, (4, 4)) + 0.8 * noise(rng, rows, columns, (9, 9))
    width = (round(columns * 0.06), round(columns * 0.06))
    core = cv2.blur(cover, width).astype(np.float32)
    gaps = (core * (3.1 / 255) + fray * 0.55 < 1.45) & (np.arange(rows)[:, None] < bottom)
    cover[gaps] = 0


def hedge(rng: np.random.Generator, light: Light, height: float) -> Texture:
    """A clipped hedge, 12 m of it."""
    rows, columns = round(height * SCALE), 12 * SCALE
    leaf = _LEAVES[int(rng.integers(len(_LEAVES)))]
    leaves = 1 + 0.22 * noise(rng, rows, columns, (3, 3)) + 0.14 * clouds(rng, rows, columns, 24, 2)
    leaves *= np.linspace(1.15, 0.6, rows, dtype=np.float32)[:, None]
    return Texture(graded(varied(leaf, leaves), light.gain(0.4)))
