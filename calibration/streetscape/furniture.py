"""What stands on a pavement: lamp posts, traffic lights, signs."""

from __future__ import annotations

import numpy as np

from calibration.streetscape import ids
from calibration.streetscape.canvas import Sprite
from calibration.streetscape.materials import Colour, Light
from calibration.streetscape.pen import Pen

_STEEL: tuple[Colour, ...] = ((120, 124, 122), (84, 88, 84), (60, 66, 58), (150, 152, 152))
_WHITE: Colour = (235, 238, 238)
_RED: Colour = (40, 36, 200)
_BLUE: Colour = (170, 80, 20)
_BLACK: Colour = (24, 24, 24)


def _steel(rng: np.random.Generator) -> Colour:
    return _STEEL[int(rng.integers(len(_STEEL)))]


def lamp_post(rng: np.random.Generator, light: Light) -> Sprite:
    """A street lamp whose arm reaches to the left."""
    tall, arm = float(rng.uniform(6.5, 9.0)), float(rng.uniform(1.0, 2.2))
    pen = Pen(2 * arm + 1.0, tall + 0.3, 34, ids.POLE)
    steel = _steel(rng)
    pen.line([(0, 0), (0, 1.2)], 0.26, steel)
    pen.line([(0, 0), (0, tall - 0.5), (-0.3, tall - 0.1), (-arm, tall)], 0.17, steel)
    _round(pen, light)
    pen.line([(-arm - 0.1, tall), (-arm + 0.5, tall)], 0.2, (90, 90, 90))
    bright: Colour = (170, 225, 250)
    sprite_gain = light.gain(0.5)
    if light.night > 0.3:
        bright = tuple(float(min(255 / g, 255)) for g in sprite_gain)  # type: ignore[assignment]  # three
    pen.line([(-arm, tall - 0.09), (-arm + 0.4, tall - 0.09)], 0.07, bright)
    return pen.sprite().graded(sprite_gain)


def _round(pen: Pen, light: Light) -> None:
    """Shade thin uprights: lit towards the sun."""
    x = np.linspace(-1.0, 1.0, pen.cover.shape[1]) * pen.cover.shape[1] / (0.3 * pen.scale)
    pen.shade(np.clip(1 + 0.35 * x * light.sun_side, 0.65, 1.3))


def traffic_light(rng: np.random.Generator, light: Light, state: int, *, overhead: bool) -> Sprite:
    """A traffic light; ``state`` 0 red, 1 amber, 2 green. ``overhead`` adds an arm to the left."""
    tall, arm = (6.0, 4.6) if overhead else (3.4, 0.0)
    pen = Pen(2 * arm + 1.4, tall + 0.8, 60 if not overhead else 40, ids.POLE)
    steel = _steel(rng)
    pen.line([(0, 0), (0, tall - 0.4)], 0.16, steel)
    if overhead:
        pen.line([(0, tall - 0.5), (-arm, tall - 0.2)], 0.13, steel)
    _round(pen, light)
    pen.label = ids.TRAFFIC_LIGHT
    heads = [(0.0, 2.75)] + ([(-arm, tall - 0.4)] if overhead else [])
    gain = light.gain(0.5)
    for x, y in heads:
        pen.polygon(
            [(x - 0.2, y - 0.5), (x + 0.2, y - 0.5), (x + 0.2, y + 0.5), (x - 0.2, y + 0.5)],
            (34, 36, 34),
        )
        for k, lens in enumerate(((40, 40, 250), (30, 180, 250), (120, 230, 60))):
            on = k == state
            colour = np.minimum(np.array(lens) / gain, 255) if on else np.array(lens) * 0.2
            at = (x, y + 0.31 - 0.31 * k)
            pen.disc(at, 0.125, (float(colour[0]), float(colour[1]), float(colour[2])))
            pen.line(
                [(at[0] - 0.14, at[1] + 0.14), (at[0] + 0.14, at[1] + 0.14)], 0.03, (20, 20, 20)
            )
    return pen.sprite().graded(gain)


def sign(rng: np.random.Generator, light: Light, kind: int) -> Sprite:
    """A sign on its post: 0 limit, 1 give way, 2 stop, 3 mandatory, 4 warning, 5 no entry,
    6 direction board, 7 parking, 8 no parking.
    """
    high = float(rng.uniform(2.3, 2.9))
    wide = 2.4 if kind == 6 else 1.2
    pen = Pen(wide, high + (1.3 if kind == 6 else 0.8), 80, ids.POLE)
    steel = _steel(rng)
    if kind == 6:
        for x in (-0.8, 0.8):
            pen.line([(x, 0), (x, high)], 0.1, steel)
    else:
        pen.line([(0, 0), (0, high)], 0.11, steel)
        _round(pen, light)
    pen.label = ids.TRAFFIC_SIGN
    y = high + 0.1
    if kind == 0:
        pen.disc((0, y), 0.42, _RED)
        pen.disc((0, y), 0.32, _WHITE)
        pen.text(str(rng.choice(["30", "50", "70", "20"])), (0, y), 0.3, _BLACK)
    elif kind == 1:
        _triangle(pen, y, 0.5, -1, _RED, _WHITE)
    elif kind == 2:
        turns = np.arange(8) * np.pi / 4 + np.pi / 8
        for radius, tone in ((0.44, _WHITE), (0.4, _RED)):
            pen.polygon(
                [(radius * float(np.cos(t)), y + radius * float(np.sin(t))) for t in turns], tone
            )
        pen.text("STOP", (0, y), 0.2, _WHITE)
    elif kind == 3:
        pen.disc((0, y), 0.42, _WHITE)
        pen.disc((0, y), 0.39, _BLUE)
        pen.line([(-0.2, y - 0.1), (0.15, y - 0.1), (0.05, y + 0.12)], 0.09, _WHITE)
    elif kind == 4:
        _triangle(pen, y, 0.5, 1, _RED, _WHITE)
        pen.line([(0, y - 0.12), (0, y + 0.12)], 0.08, _BLACK)
    elif kind == 5:
        pen.disc((0, y), 0.42, _RED)
        pen.line([(-0.24, y), (0.24, y)], 0.14, _WHITE)
    elif kind == 6:
        board = (60, 110, 30) if rng.random() < 0.4 else _BLUE
        pen.polygon(
            [(-1.1, high - 0.1), (1.1, high - 0.1), (1.1, high + 1.1), (-1.1, high + 1.1)], _WHITE
        )
        pen.polygon(
            [(-1.05, high - 0.05), (1.05, high - 0.05), (1.05, high + 1.05), (-1.05, high + 1.05)],
            board,
        )
        for k in range(3):
            pen.line(
                [
                    (-0.8, high + 0.2 + 0.32 * k),
                    (float(rng.uniform(-0.2, 0.6)), high + 0.2 + 0.32 * k),
                ],
                0.12,
                _WHITE,
            )
            pen.line([(0.75, high + 0.2 + 0.32 * k), (0.9, high + 0.2 + 0.32 * k)], 0.1, _WHITE)
    elif kind == 7:
        pen.polygon(
            [(-0.36, y - 0.36), (0.36, y - 0.36), (0.36, y + 0.36), (-0.36, y + 0.36)], _BLUE
        )
        pen.text("P", (0, y), 0.4, _WHITE)
    else:
        pen.disc((0, y), 0.42, _RED)
        pen.disc((0, y), 0.33, _BLUE)
        pen.line([(-0.25, y + 0.25), (0.25, y - 0.25)], 0.08, _RED)
    return pen.sprite().graded(light.gain(0.45))


def _triangle(pen: Pen, y: float, size: float, up: int, rim: Colour, inside: Colour) -> None:
    for k, tone in ((1.0, rim), (0.62, inside)):
        low, high = y - up * size * 0.5 * k, y + up * size * 0.87 * k - up * size * 0.12
        pen.polygon([(-size * k, low), (size * k, low), (0, high)], tone)


def bollard(rng: np.random.Generator, light: Light) -> Sprite:
    """A bollard."""
    pen = Pen(0.4, 1.1, 80, ids.POLE)
    pen.line([(0, 0), (0, 0.95)], 0.16, _steel(rng))
    pen.line([(0, 0.78), (0, 0.82)], 0.17, _WHITE)
    _round(pen, light)
    return pen.sprite().graded(light.gain(0.5))
