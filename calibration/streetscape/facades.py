"""Fronts of buildings, walls and fences, as flat pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.materials import Colour, Light, clouds, dim, graded, noise, varied
from calibration.streetscape.planes import SCALE, Texture

Bytes = npt.NDArray[np.uint8]

_RENDER: tuple[Colour, ...] = (
    (150, 178, 196), (176, 196, 206), (120, 150, 176), (140, 168, 200), (186, 190, 190),
    (110, 134, 168), (160, 186, 216), (168, 172, 160), (130, 150, 140), (196, 206, 210),
)  # fmt: skip
_BRICK: tuple[Colour, ...] = ((70, 86, 136), (86, 100, 150), (64, 76, 112), (110, 130, 160))
_SHOP: tuple[Colour, ...] = (
    (40, 40, 160), (120, 70, 30), (50, 110, 40), (40, 130, 200), (60, 60, 60), (150, 60, 110),
)  # fmt: skip
_ROOF: tuple[Colour, ...] = ((56, 66, 110), (70, 70, 78), (60, 80, 130), (90, 92, 98), (48, 52, 60))


@dataclass(frozen=True)
class Front:
    """A building: its front, its gable end ``DEEP`` metres wide, and colours as lit."""

    texture: Texture
    gable: Texture
    roof: tuple[float, ...]
    trim: tuple[float, ...]
    pitched: bool


DEEP = 9.0


def _fill(image: Bytes, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    a, b = (round(x0 * SCALE), round(y0 * SCALE)), (round(x1 * SCALE) - 1, round(y1 * SCALE) - 1)
    if b[0] >= a[0] and b[1] >= a[1]:
        cv2.rectangle(image, a, b, colour, -1)


def front(rng: np.random.Generator, light: Light, facing: float) -> Front:
    """A building's front. ``facing`` is how much sun falls on it, 0 to 1."""
    modern = rng.random() < 0.25
    floors = int(rng.integers(3, 9 if modern else 7))
    storey = float(rng.uniform(2.9, 3.5))
    ground = float(rng.uniform(3.4, 4.3))
    length = float(rng.uniform(9, 20))
    height = ground + storey * (floors - 1) + 0.8
    rows, columns = round(height * SCALE), round(length * SCALE)
    brick = rng.random() < 0.35
    choice = _BRICK if brick else _RENDER
    wall = choice[int(rng.integers(len(choice)))]
    wall = dim(wall, float(rng.uniform(0.85, 1.1)))
    variation = 1 + 0.05 * clouds(rng, rows, columns, 60, 4)
    # Rain leaves walls darker towards the ground.
    variation *= np.linspace(0.98, 0.88, rows, dtype=np.float32)[:, None]
    if brick:
        variation[::4] *= 0.86
        variation += 0.07 * noise(rng, rows, columns, (4, 8))
    variation[:, :3] *= 0.8
    variation[:, -3:] *= 0.8
    image = varied(wall, variation)
    shine = np.zeros_like(image)
    _windows(rng, light, image, shine, floors, storey, length, wall, modern)
    _ground_floor(rng, light, image, shine, ground, height, length)
    trim = dim(wall, 1.2 if rng.random() < 0.6 else 0.7)
    _fill(image, 0, 0, length, 0.35, trim)
    _fill(image, 0, 0.35, length, 0.5, dim(wall, 0.6))
    if not modern:
        _fill(image, 0, height - ground - 0.25, length, height - ground, dim(trim, 0.95))
        _fill(image, 0, height - ground, length, height - ground + 0.12, dim(wall, 0.62))
    gain = light.gain(facing)
    roof = _ROOF[int(rng.integers(len(_ROOF)))]
    return Front(
        Texture(cv2.addWeighted(graded(image, gain), 1.0, shine, light.night, 0)),
        _gable(rng, light, wall, rows, storey, floors),
        tuple(float(v) for v in np.clip(np.array(roof) * light.gain(0.7), 0, 255)),
        tuple(float(v) for v in np.clip(np.array(trim) * gain, 0, 255)),
        bool(not modern and rng.random() < 0.7),
    )


def _gable(
    rng: np.random.Generator, light: Light, wall: Colour, rows: int, storey: float, floors: int
) -> Texture:
    """The end of a building: plain, weathered, with few windows or a painted advertisement."""
    columns = round(DEEP * SCALE)
    variation = 1 + 0.07 * clouds(rng, rows, columns, 90, 4)
    variation *= np.linspace(1.0, 0.85, rows, dtype=np.float32)[:, None]
    side = varied(dim(wall, 0.86), variation)
    glass: Colour = (62.0, 58.0, 52.0)
    kind = int(rng.integers(3))
    if kind == 0:
        for floor in range(floors):
            for x in (1.6, 5.2):
                top = 1.2 + floor * storey
                _fill(side, x - 0.08, top - 0.08, x + 1.08, top + 1.48, dim(wall, 1.2))
                _fill(side, x, top, x + 1.0, top + 1.4, glass)
    elif kind == 1 and floors > 2:
        paint = _SHOP[int(rng.integers(len(_SHOP)))]
        _fill(side, 1.5, 1.5, DEEP - 1.5, 1.5 + storey, paint)
        _fill(side, 2.1, 2.1, DEEP - 3.0, 2.6, (220, 224, 226))
        _fill(side, 2.1, 3.0, DEEP - 4.0, 3.3, (220, 224, 226))
    return Texture(graded(side, light.gain(0.25)))


def _windows(
    rng: np.random.Generator,
    light: Light,
    image: Bytes,
    shine: Bytes,
    floors: int,
    storey: float,
    length: float,
    wall: Colour,
    modern: bool,
) -> None:
    pitch = float(rng.uniform(1.9, 3.0))
    bays = max(2, int(length / pitch))
    pitch = length / bays
    share = float(rng.uniform(0.6, 0.88) if modern else rng.uniform(0.4, 0.55))
    wide, tall = (
        pitch * share,
        storey * float(rng.uniform(0.6, 0.7) if modern else rng.uniform(0.5, 0.58)),
    )
    frame = dim(wall, 1.35) if rng.random() < 0.6 else (70.0, 70.0, 72.0)
    balcony = (not modern) and rng.random() < 0.35
    shutters = (not modern) and not balcony and rng.random() < 0.3
    shutter: Colour = _SHOP[int(rng.integers(len(_SHOP)))]
    sky = np.array(light.sky_low)
    for floor in range(floors - 1):
        top = 0.8 + floor * storey + (storey - tall) * 0.4
        for bay in range(bays):
            x = bay * pitch + (pitch - wide) / 2
            lit = rng.random() < 0.4
            mirror = float(rng.uniform(0.18, 0.5))
            _fill(image, x - 0.09, top - 0.09, x + wide + 0.09, top + tall + 0.06, frame)
            _fill(
                image,
                x - 0.12,
                top + tall + 0.04,
                x + wide + 0.12,
                top + tall + 0.16,
                dim(wall, 1.25),
            )
            upper, lower = sky * mirror * 0.9 + 22, sky * mirror * 0.45 + 18
            _fill(image, x, top, x + wide, top + tall * 0.5, tuple(upper))
            _fill(image, x, top + tall * 0.5, x + wide, top + tall, tuple(lower))
            if rng.random() < 0.35:
                drop = tall * float(rng.uniform(0.2, 0.9))
                _fill(image, x, top, x + wide, top + drop, (170, 178, 180))
            if lit:
                warm = float(rng.uniform(0.5, 1.0))
                _fill(shine, x, top, x + wide, top + tall, (110 * warm, 190 * warm, 230 * warm))
            _fill(image, x + wide / 2 - 0.03, top, x + wide / 2 + 0.03, top + tall, frame)
            _fill(image, x, top - 0.02, x + wide, top + 0.08, dim(wall, 0.45))
            if shutters:
                _fill(image, x - wide * 0.42, top, x - 0.1, top + tall, shutter)
                _fill(image, x + wide + 0.1, top, x + wide * 1.42, top + tall, shutter)
            if balcony and bay % 2 == 0:
                _fill(
                    image,
                    x - 0.3,
                    top + tall - 0.1,
                    x + wide + 0.3,
                    top + tall + 0.08,
                    dim(wall, 0.7),
                )
                for k in range(int((wide + 0.6) / 0.15)):
                    _fill(
                        image,
                        x - 0.3 + k * 0.15,
                        top + tall - 0.85,
                        x - 0.24 + k * 0.15,
                        top + tall,
                        (48, 48, 50),
                    )


def _ground_floor(
    rng: np.random.Generator,
    light: Light,
    image: Bytes,
    shine: Bytes,
    ground: float,
    height: float,
    length: float,
) -> None:
    top = height - ground
    shops = rng.random() < 0.6
    x = 0.4
    sky = np.array(light.sky_low)
    while x < length - 2.2:
        wide = float(min(rng.uniform(2.4, 5.0), length - x - 0.4))
        glass = tuple(float(v) for v in sky * rng.uniform(0.12, 0.3) + 24)
        if shops:
            sign = _SHOP[int(rng.integers(len(_SHOP)))]
            _fill(image, x, top + 0.35, x + wide, top + 0.95, sign)
            letters = x + 0.3
            while letters < x + wide * 0.75:
                step = float(rng.uniform(0.12, 0.3))
                _fill(image, letters, top + 0.52, letters + step, top + 0.8, (225, 230, 232))
                letters += step + 0.08
            _fill(image, x, top + 1.0, x + wide, height - 0.4, (56, 56, 58))
            _fill(
                image,
                x + 0.1,
                top + 1.1,
                x + wide - 0.1,
                height - 0.5,
                (glass[0], glass[1], glass[2]),
            )
            for _ in range(4):
                at = x + 0.2 + float(rng.random()) * (wide - 0.8)
                item = rng.uniform(40, 190, 3)
                _fill(
                    image,
                    at,
                    height - 0.5 - float(rng.uniform(0.4, 1.4)),
                    at + 0.4,
                    height - 0.55,
                    tuple(item),
                )
            _fill(shine, x + 0.1, top + 1.1, x + wide - 0.1, height - 0.5, (90, 150, 190))
            _fill(shine, x, top + 0.35, x + wide, top + 0.95, dim(sign, 0.6))
            if rng.random() < 0.4:
                awning = _SHOP[int(rng.integers(len(_SHOP)))]
                for k in range(int(wide / 0.4)):
                    tone = awning if k % 2 else (215.0, 220.0, 222.0)
                    _fill(image, x + k * 0.4, top + 1.0, x + k * 0.4 + 0.4, top + 1.6, tone)
        elif rng.random() < 0.35:
            door = _SHOP[int(rng.integers(len(_SHOP)))]
            _fill(image, x + 0.5, top + 0.9, x + 1.9, height, (190, 196, 198))
            _fill(image, x + 0.6, top + 1.0, x + 1.8, height, door)
            _fill(image, x + 0.75, top + 1.2, x + 1.65, top + 1.9, (glass[0], glass[1], glass[2]))
        else:
            _fill(image, x + 0.5, top + 0.8, x + wide - 0.5, height - 1.1, (190, 196, 198))
            _fill(
                image,
                x + 0.6,
                top + 0.9,
                x + wide - 0.6,
                height - 1.2,
                (glass[0], glass[1], glass[2]),
            )
        x += wide + 0.25


def wall(rng: np.random.Generator, light: Light, facing: float) -> Texture:
    """A free-standing wall, 12 m of it."""
    height = float(rng.uniform(1.7, 2.7))
    rows, columns = round(height * SCALE), 12 * SCALE
    kind = int(rng.integers(3))
    tone = ((126, 138, 146), (84, 98, 140), (150, 156, 158))[kind]
    variation = 1 + 0.08 * clouds(rng, rows, columns, 40, 4)
    if kind < 2:
        stone = (9, 16) if kind == 0 else (5, 12)
        for row, y in enumerate(range(0, rows, stone[0])):
            shift = (row % 2) * stone[1] // 2
            for x in range(-shift, columns, stone[1]):
                part = variation[y : y + stone[0], max(x, 0) : max(x + stone[1], 0)]
                part *= float(rng.uniform(0.8, 1.15))
                part[-1:] *= 0.75
                part[:, -1:] *= 0.75
    else:
        variation[:, :: 3 * SCALE] *= 0.6
    cap = round(0.14 * SCALE)
    variation[cap : cap + 2] *= 0.6
    variation[-4:] *= 0.8
    image = varied(tone, variation)
    if kind == 2 and rng.random() < 0.5:
        _graffiti(rng, image)
    image[:cap] = np.clip(dim(tone, 1.2), 0, 255)
    return Texture(graded(image, light.gain(facing)))


def _graffiti(rng: np.random.Generator, image: Bytes) -> None:
    rows, columns = image.shape[:2]
    for _ in range(5):
        at = rng.integers(10, columns - 60)
        points = np.cumsum(rng.integers(-8, 12, (9, 2)), 0) + np.array([at, rows // 2])
        colour = tuple(float(v) for v in rng.uniform(20, 240, 3))
        cv2.polylines(image, [points.astype(np.int32)], False, colour, int(rng.integers(2, 6)))


def fence(rng: np.random.Generator, light: Light, facing: float) -> Texture:
    """A see-through fence, 12 m of it."""
    height = float(rng.uniform(1.3, 2.2))
    rows, columns = round(height * SCALE), 12 * SCALE
    mask = np.zeros((rows, columns), np.uint8)
    variation = 1 + 0.1 * noise(rng, rows, columns, (6, 6))
    kind = int(rng.integers(3))
    step, bar = ((4, 1), (7, 5), (5, 1))[kind]
    for k in range(bar):
        mask[2:, k::step] = 255
    if kind == 2:
        mask[::5] = 255
    for y in (2, rows // 2, rows - 6):
        mask[y : y + 3] = 255
        variation[y : y + 3] *= 0.85
    for k in range(4):
        mask[:, k :: 2 * SCALE] = 255
    tone = ((60, 66, 60), (110, 140, 170), (130, 132, 134))[kind]
    return Texture(graded(varied(tone, variation), light.gain(facing)), mask)
