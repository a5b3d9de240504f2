"""People, and those who ride: walkers, cyclists, motorcyclists, parked bicycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.streetscape import ids
from calibration.streetscape.canvas import Sprite
from calibration.streetscape.materials import Colour, Light, dim
from calibration.streetscape.pen import Pen, Point

STEPS = 6
"""Pictures in one walking cycle."""

_SKIN = ((150, 178, 220), (120, 150, 200), (84, 116, 168), (52, 74, 110))
_CLOTH = (
    (48, 42, 40), (90, 60, 40), (60, 60, 150), (150, 140, 130), (50, 110, 60), (200, 200, 205),
    (40, 140, 200), (140, 80, 120), (110, 110, 110), (30, 30, 60), (60, 160, 200), (170, 120, 60),
)  # fmt: skip
_HAIR = ((20, 22, 26), (36, 52, 80), (60, 100, 140), (130, 135, 140))


@dataclass(frozen=True)
class Look:
    """What one person wears, BGR, and how tall they are in metres."""

    coat: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    tall: float
    bag: bool
    skirt: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> Look:
        """Someone."""
        coat, trousers = rng.integers(len(_CLOTH), size=2)
        return Look(
            _CLOTH[coat],
            tuple(v * 0.7 for v in _CLOTH[trousers]),  # type: ignore[arg-type]  # three in, three out
            _SKIN[int(rng.integers(len(_SKIN)))],
            _HAIR[int(rng.integers(len(_HAIR)))],
            float(rng.choice([1.2, 1.62, 1.68, 1.74, 1.8, 1.88])),
            bool(rng.random() < 0.4),
            bool(rng.random() < 0.25),
        )


def _finish(pen: Pen, light: Light) -> Sprite:
    columns = np.linspace(-1.0, 1.0, pen.cover.shape[1])
    pen.shade(1 + 0.16 * columns * light.sun_side)
    return pen.sprite().graded(light.gain(0.6))


def walker(look: Look, light: Light, step: int, *, sideways: bool) -> Sprite:
    """A walking person, seen from ahead or behind, or from the side, at one step of the cycle."""
    swing = float(np.sin(2 * np.pi * step / STEPS))
    k = look.tall / 1.75
    pen = Pen(1.15 * k, look.tall + 0.06, 110 / k, ids.PERSON)
    hip, shoulder, head = 0.88 * k, 1.45 * k, 1.6 * k
    for side in (-1, 1):
        far = 0.8 if side < 0 else 1.0
        trousers, shoe = dim(look.trousers, far), (28.0, 28.0, 30.0)
        if sideways:
            reach = side * swing * 0.36 * k
            bend = 0.1 * k * max(0.0, -side * swing)
            knee = (reach * 0.45 + 0.05 * k, 0.47 * k)
            foot = (reach - bend * 0.4, 0.06 * k + bend)
            pen.line([(0, hip), knee, foot], 0.14 * k, trousers)
            pen.line([foot, (foot[0] + 0.13 * k, foot[1] - 0.01)], 0.09 * k, shoe)
        else:
            lift = 0.1 * k * max(0.0, side * swing)
            x = side * 0.09 * k
            pen.line(
                [(x, hip), (x * 1.15, 0.47 * k + lift / 2), (x, 0.07 * k + lift)],
                0.15 * k,
                trousers,
            )
            pen.line([(x, 0.05 * k + lift), (x * 1.5, 0.04 * k + lift)], 0.1 * k, shoe)
    if look.skirt:
        pen.polygon(
            [
                (-0.17 * k, hip + 0.1),
                (0.17 * k, hip + 0.1),
                (0.24 * k, 0.5 * k),
                (-0.24 * k, 0.5 * k),
            ],
            look.trousers,
        )
    wide = (0.13 if sideways else 0.21) * k
    _arm(pen, look, k, -1, swing, sideways)
    pen.polygon(
        [
            (-wide, shoulder - 0.04), (-wide * 0.6, shoulder + 0.03), (wide * 0.6, shoulder + 0.03),
            (wide, shoulder - 0.04), (wide * 0.9, hip - 0.08), (-wide * 0.9, hip - 0.08),
        ],
        look.coat,
    )  # fmt: skip
    pen.line([(0, hip), (0, shoulder)], 0.03, dim(look.coat, 0.8))
    _arm(pen, look, k, 1, swing, sideways)
    if look.bag:
        pen.polygon(
            [
                (wide * 0.7, 1.05 * k),
                (wide * 1.6, 1.05 * k),
                (wide * 1.6, 0.75 * k),
                (wide * 0.7, 0.75 * k),
            ],
            (50, 60, 80),
        )
    pen.line([(0, shoulder), (0, head)], 0.11 * k, dim(look.skin, 0.85))
    pen.disc((0.02 * k if sideways else 0, head + 0.03 * k), (0.1 * k, 0.125 * k), look.skin)
    pen.disc((-0.02 * k if sideways else 0, head + 0.075 * k), (0.11 * k, 0.09 * k), look.hair)
    return _finish(pen, light)


def _arm(pen: Pen, look: Look, k: float, side: int, swing: float, sideways: bool) -> None:
    tone = dim(look.coat, 0.78 if side < 0 else 0.92)
    if sideways:
        hand: Point = (-side * swing * 0.3 * k, 0.85 * k)
        points: list[Point] = [(0, 1.4 * k), (hand[0] * 0.4 - 0.04 * k, 1.12 * k), hand]
    else:
        hand = (side * 0.29 * k, 0.82 * k + 0.06 * k * side * swing)
        points = [(side * 0.2 * k, 1.4 * k), (side * 0.27 * k, 1.12 * k), hand]
    pen.line(points, 0.1 * k, tone)
    pen.disc(hand, 0.05 * k, look.skin)


def _wheels(pen: Pen, hubs: tuple[Point, ...], radius: float, tyre: float) -> None:
    for hub in hubs:
        for turn in range(0, 180, 30):
            a = np.deg2rad(turn)
            dx, dy = radius * float(np.cos(a)), radius * float(np.sin(a))
            pen.line(
                [(hub[0] - dx, hub[1] - dy), (hub[0] + dx, hub[1] + dy)], 0.008, (140, 140, 140)
            )
        pen.disc(hub, radius, (32, 32, 34), ring=tyre)


def bicycle(rng: np.random.Generator, light: Light, look: Look | None, pedal: float) -> Sprite:
    """A bicycle from the side, ridden if ``look`` is given; ``pedal`` is the crank's angle."""
    pen = Pen(2.0, 1.95, 90, ids.BICYCLE)
    paint = tuple(float(v) for v in rng.choice(np.array(_CLOTH), 1)[0])
    frame: Colour = (paint[0], paint[1], paint[2])
    rear, front = (-0.52, 0.34), (0.53, 0.34)
    # Annotators outline wheels as discs: what shows between the spokes counts as bicycle.
    for hub in (rear, front):
        pen.disc(hub, 0.34, (112, 112, 110))
    _wheels(pen, (rear, front), 0.32, 0.045)
    crank, seat, bar = (-0.08, 0.3), (-0.22, 0.95), (0.4, 0.98)
    for path in ([rear, crank, (0.36, 0.78), (-0.18, 0.78), rear], [crank, seat], [front, bar]):
        pen.line(path, 0.045, frame)
    pen.line([(0.3, 1.02), bar], 0.04, (40, 40, 40))
    pen.line([(-0.34, 0.97), (-0.12, 0.97)], 0.06, (30, 30, 30))
    if look is not None:
        pen.label = ids.RIDER
        _rider_side(pen, look, crank, pedal, seat, bar)
    return _finish(pen, light)


def _rider_side(pen: Pen, look: Look, crank: Point, pedal: float, seat: Point, bar: Point) -> None:
    hip, shoulder = (seat[0], seat[1] + 0.08), (0.02, 1.48)
    for side in (-1, 1):
        angle = pedal + (np.pi if side > 0 else 0)
        foot = (crank[0] + 0.16 * float(np.cos(angle)), crank[1] + 0.16 * float(np.sin(angle)))
        knee = ((hip[0] + foot[0]) / 2 + 0.2, (hip[1] + foot[1]) / 2 + 0.1)
        pen.line([hip, knee, foot], 0.12, dim(look.trousers, 0.8 if side < 0 else 1))
        pen.line([foot, (foot[0] + 0.12, foot[1])], 0.07, (30, 30, 30))
    pen.line([hip, shoulder], 0.25, look.coat)
    pen.line([shoulder, (0.2, 1.2), bar], 0.09, dim(look.coat, 0.85))
    pen.disc((0.1, 1.7), (0.1, 0.12), look.skin)
    pen.disc((0.08, 1.76), (0.12, 0.08), look.hair)


def rider(rng: np.random.Generator, light: Light, look: Look, *, motor: bool, away: bool) -> Sprite:
    """A cyclist or motorcyclist seen from behind (``away``) or from ahead."""
    pen = Pen(1.0, 1.95, 100, ids.MOTORCYCLE if motor else ids.BICYCLE)
    paint = tuple(float(v) for v in rng.choice(np.array(_CLOTH), 1)[0])
    tyre = 0.16 if motor else 0.055
    pen.line([(0, 0.1), (0, 0.62)], tyre, (30, 30, 32))
    if motor:
        pen.polygon(
            [(-0.16, 0.5), (-0.24, 0.8), (-0.14, 1.05), (0.14, 1.05), (0.24, 0.8), (0.16, 0.5)],
            (paint[0], paint[1], paint[2]),
        )
        pen.polygon([(-0.3, 0.35), (-0.17, 0.35), (-0.17, 0.6), (-0.3, 0.55)], (90, 90, 92))
        pen.polygon([(0.3, 0.35), (0.17, 0.35), (0.17, 0.6), (0.3, 0.55)], (90, 90, 92))
    pen.line(
        [(-0.36 if motor else -0.29, 1.05), (0.36 if motor else 0.29, 1.05)], 0.05, (45, 45, 45)
    )
    pen.label = ids.RIDER
    for side in (-1, 1):
        low = 0.42 if motor else 0.3 + 0.14 * side
        pen.line([(side * 0.1, 0.92), (side * 0.2, 0.68), (side * 0.15, low)], 0.13, look.trousers)
        pen.line([(side * 0.15, low), (side * 0.19, low - 0.02)], 0.1, (30, 30, 30))
    pen.polygon(
        [(-0.16, 0.86), (-0.23, 1.3), (-0.14, 1.5), (0.14, 1.5), (0.23, 1.3), (0.16, 0.86)],
        look.coat,
    )
    for side in (-1, 1):
        pen.line(
            [(side * 0.21, 1.4), (side * 0.35, 1.2), (side * 0.28, 1.06)],
            0.1,
            dim(look.coat, 0.85),
        )
    pen.disc((0, 1.68), (0.11, 0.13), look.skin if not away else look.hair)
    if motor:
        pen.disc((0, 1.7), (0.14, 0.15), (50, 50, 55) if away else (60, 60, 160))
        if not away:
            pen.disc((0, 1.69), (0.1, 0.06), (90, 80, 70))
    else:
        pen.disc((0, 1.75), (0.125, 0.08), look.hair)
    pen.label = ids.MOTORCYCLE if motor else ids.BICYCLE
    lamp: Colour = (40, 40, 230) if away else (235, 250, 255)
    pen.disc((0, 0.72), 0.055 if motor else 0.035, lamp)
    if motor and away:
        pen.polygon([(-0.1, 0.56), (0.1, 0.56), (0.1, 0.44), (-0.1, 0.44)], (210, 215, 215))
    return _finish(pen, light)


def motorcycle(rng: np.random.Generator, light: Light, look: Look | None) -> Sprite:
    """A motorcycle or scooter from the side, ridden if ``look`` is given."""
    pen = Pen(2.3, 1.95, 90, ids.MOTORCYCLE)
    paint = tuple(float(v) for v in rng.choice(np.array(_CLOTH), 1)[0])
    tank: Colour = (paint[0], paint[1], paint[2])
    for hub in ((-0.68, 0.32), (0.7, 0.32)):
        pen.disc(hub, 0.31, (30, 30, 32))
        pen.disc(hub, 0.19, (120, 120, 122))
        pen.disc(hub, 0.06, (60, 60, 60))
    pen.line([(0.7, 0.32), (0.42, 1.0)], 0.07, (130, 130, 130))
    pen.polygon([(-0.5, 0.3), (0.3, 0.28), (0.4, 0.62), (-0.35, 0.62)], (70, 70, 72))
    pen.polygon([(-0.1, 0.6), (0.42, 0.62), (0.36, 0.92), (0.0, 0.94)], tank)
    pen.polygon([(-0.95, 0.8), (-0.1, 0.66), (-0.05, 0.82), (-0.9, 0.92)], (38, 38, 40))
    pen.line([(-0.9, 0.36), (-0.2, 0.3)], 0.1, (150, 150, 150))
    pen.line([(0.42, 1.0), (0.26, 1.06)], 0.05, (40, 40, 40))
    pen.disc((0.56, 0.86), 0.1, (220, 225, 225))
    if look is not None:
        pen.label = ids.RIDER
        hip, shoulder = (-0.34, 0.92), (-0.12, 1.46)
        pen.line([hip, (0.12, 0.72), (-0.05, 0.34)], 0.15, look.trousers)
        pen.line([hip, shoulder], 0.28, look.coat)
        pen.line([shoulder, (0.08, 1.16), (0.3, 1.04)], 0.1, dim(look.coat, 0.85))
        pen.disc((-0.04, 1.68), (0.15, 0.15), (50, 50, 120))
        pen.disc((0.04, 1.68), (0.08, 0.06), (90, 80, 70))
    return _finish(pen, light)
