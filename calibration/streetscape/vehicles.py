"""Lorries, buses and trams: long vehicles in pieces, so that each piece sorts by its own depth."""

from __future__ import annotations

import numpy as np

from calibration.streetscape import ids
from calibration.streetscape.cars import PAINTS
from calibration.streetscape.materials import Colour, Light, dim
from calibration.streetscape.meshes import (
    LAMP,
    PLATE,
    RED,
    Mesh,
    MeshBuilder,
    glass_of,
    pick,
    upright,
)

_LIVERY: tuple[Colour, ...] = (
    (40, 40, 190), (200, 190, 60), (60, 170, 60), (230, 230, 230), (40, 170, 230), (170, 90, 40),
)  # fmt: skip


def _box(
    make: MeshBuilder,
    a0: float,
    a1: float,
    half: float,
    low: float,
    high: float,
    paint: Colour,
    *,
    ends: tuple[bool, bool] = (True, True),
) -> None:
    """A box: sides, roof, and its rear and front end where wanted."""
    make.mirrored(
        [(a1, -half, low), (a1, -half, high), (a0, -half, high), (a0, -half, low)],
        paint,
        outline=True,
    )
    make.face(
        [(a0, -half, high), (a1, -half, high), (a1, half, high), (a0, half, high)],
        dim(paint, 0.9),
        outline=True,
    )
    if ends[0]:
        make.face(
            [(a0, -half, low), (a0, -half, high), (a0, half, high), (a0, half, low)],
            paint,
            outline=True,
        )
    if ends[1]:
        make.face(
            [(a1, half, low), (a1, half, high), (a1, -half, high), (a1, -half, low)],
            paint,
            outline=True,
        )


def _side(
    make: MeshBuilder,
    a0: float,
    a1: float,
    half: float,
    low: float,
    high: float,
    colour: Colour,
    glow: float = 0.0,
) -> None:
    make.mirrored(
        [(a1, -half, low), (a1, -half, high), (a0, -half, high), (a0, -half, low)],
        colour,
        detail=True,
        glow=glow,
    )


def truck(rng: np.random.Generator, light: Light) -> tuple[Mesh, ...]:
    """A lorry as two pieces: the cargo box, then the cab in front of it."""
    cargo, cab = pick(rng, (*_LIVERY, (235, 235, 235))), pick(rng, PAINTS + _LIVERY)
    length, half, high = float(rng.uniform(4.2, 6.0)), 1.22, float(rng.uniform(2.9, 3.5))
    box = MeshBuilder(light)
    box.face(
        [(0.3, -1.0, 0.35), (0.3, -1.0, 0.95), (0.3, 1.0, 0.95), (0.3, 1.0, 0.35)],
        (28, 28, 30),
        outline=True,
    )
    for side in (-1, 1):  # the rear tyres, as seen from behind
        box.face(upright(0.29, 0.24, 0.0, 0.9, side * 0.9, rear=True), (30, 30, 32), outline=True)
    _side(box, 0.2, length, half * 0.9, 0.45, 0.95, (40, 40, 42))
    _box(box, 0.0, length, half, 0.92, high, cargo)
    _side(box, 0.4, length - 0.4, half + 0.005, 1.7, 2.3, pick(rng, _LIVERY))
    box.face(
        [(-0.005, -0.02, 0.95), (-0.005, -0.02, high), (-0.005, 0.02, high), (-0.005, 0.02, 0.95)],
        dim(cargo, 0.55),
        detail=True,
    )
    for side in (-1, 1):
        box.face(
            upright(-0.01, 0.14, 0.72, 0.88, side * 0.95, rear=True),
            RED,
            glow=0.5 + 0.5 * light.night,
        )
    box.face(upright(-0.01, 0.28, 0.72, 0.86, rear=True), PLATE, detail=True)
    for a in (0.9, 1.9):
        box.wheel(a, half, 0.46)
    front = MeshBuilder(light)
    depth, roof = 2.0, min(high - 0.1, 2.8)
    _box(front, 0.0, depth, half * 0.96, 0.45, roof, cab)
    glass = glass_of(light)
    front.face(upright(depth + 0.01, half * 0.88, 1.55, roof - 0.25, rear=False), glass)
    front.face(
        upright(depth + 0.01, half * 0.8, 0.85, 1.35, rear=False), dim(cab, 0.45), detail=True
    )
    for side in (-1, 1):
        front.face(upright(depth + 0.012, 0.2, 0.55, 0.75, side * 0.85, rear=False), LAMP, glow=0.8)
    _side(front, 0.8, depth - 0.15, half * 0.96 + 0.005, 1.6, roof - 0.3, glass)
    front.wheel(1.0, half * 0.97, 0.46)
    return box.build(ids.TRUCK, ((0.0, -0.95, 0.8, True), (0.0, 0.95, 0.8, True))), front.build(
        ids.TRUCK, ((depth, -0.85, 0.65, False), (depth, 0.85, 0.65, False))
    )


def _coach(
    rng: np.random.Generator,
    light: Light,
    label: int,
    sections: int,
    section: float,
    half: float,
    high: float,
    rail: bool,
) -> tuple[Mesh, ...]:
    """A bus or tram as sections of side wall; the first has the rear, the last the front."""
    paint, trim = pick(rng, _LIVERY), pick(rng, _LIVERY)
    glass = glass_of(light)
    low, lit = (0.28 if rail else 0.32), 0.85 * light.night
    window: Colour = (120, 180, 200) if light.night > 0.4 else glass
    pieces = []
    for i in range(sections):
        first, last = i == 0, i == sections - 1
        make = MeshBuilder(light)
        make.face(
            [
                (0.1, -half * 0.85, 0.02),
                (0.1, -half * 0.85, low + 0.1),
                (0.1, half * 0.85, low + 0.1),
                (0.1, half * 0.85, 0.02),
            ],
            (20, 20, 22),
            outline=True,
        )
        _side(make, 0.0, section, half * 0.9, 0.04, low + 0.05, (28, 28, 30))
        _box(make, 0.0, section, half, low, high, paint, ends=(first, last))
        _side(make, 0.0, section, half + 0.003, low, low + 0.35, trim)
        step = section / 3
        for k in range(3):
            door = k == 1 and i % 2 == 0
            bottom = low + 0.1 if door else 1.15
            pane = dim(window, float(rng.uniform(0.8, 1.1)))
            _side(
                make,
                k * step + 0.07,
                (k + 1) * step - 0.07,
                half + 0.006,
                bottom,
                high - 0.55,
                pane,
                lit,
            )
            # The sky in the upper half of the pane.
            upper = (k * step + 0.07, (k + 1) * step - 0.07, half + 0.008, high - 1.1, high - 0.55)
            _side(make, *upper, dim(pane, 1.25), lit)
        for end in (True, False):
            if (end and not first) or (not end and not last):
                continue
            at = -0.01 if end else section + 0.01
            make.face(
                upright(at, half * 0.86, 1.2 if not end else 1.5, high - 0.45, rear=end), glass
            )
            make.face(
                upright(at, half * 0.6, high - 0.38, high - 0.12, rear=end),
                (30, 150, 240),
                detail=True,
                glow=0.8,
            )
            for side in (-1, 1):
                lamp = RED if end else LAMP
                make.face(
                    upright(at, 0.15, 0.6, 0.82, side * half * 0.78, rear=end), lamp, glow=0.7
                )
        if rail and i == sections // 2:
            make.face(
                [(1, -0.3, high), (1, -0.6, high + 0.9), (1, 0.6, high + 0.9), (1, 0.3, high)],
                (50, 50, 52),
                outline=True,
            )
        if rail:
            for a in (0.8, section - 0.8):
                make.wheel(a, half * 0.93, 0.3, hub=(60, 60, 60))
        elif first or last:
            make.wheel(1.2 if first else section - 1.3, half, 0.48)
        lamps = [(0.0, s * half * 0.78, 0.7, True) for s in (-1, 1)] if first else []
        lamps += [(section, s * half * 0.78, 0.7, False) for s in (-1, 1)] if last else []
        pieces.append(make.build(label, tuple(lamps)))
    return tuple(pieces)


def bus(rng: np.random.Generator, light: Light) -> tuple[Mesh, ...]:
    """A city bus in pieces, rear first."""
    return _coach(rng, light, ids.BUS, 3, 3.9, 1.26, 3.05, rail=False)


def tram(rng: np.random.Generator, light: Light) -> tuple[Mesh, ...]:
    """A tram in pieces, rear first."""
    return _coach(rng, light, ids.TRAIN, int(rng.integers(5, 8)), 4.6, 1.22, 3.45, rail=True)
