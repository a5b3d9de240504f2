"""Cars, vans, trucks, buses and trams."""

from __future__ import annotations

import numpy as np

from calibration.streetscape import ids
from calibration.streetscape.materials import Light
from calibration.streetscape.meshes import Colour, Mesh, MeshBuilder

# Car paints, BGR.
_PAINT: tuple[Colour, ...] = (
    (205, 205, 205), (60, 60, 62), (150, 150, 152), (32, 32, 36), (42, 36, 150), (140, 80, 36),
    (235, 235, 235), (90, 96, 100), (60, 100, 60), (40, 120, 190), (110, 60, 40), (180, 170, 150),
)  # fmt: skip
_LIVERY: tuple[Colour, ...] = (
    (40, 40, 190), (200, 190, 60), (60, 170, 60), (230, 230, 230), (40, 170, 230), (170, 90, 40),
)  # fmt: skip
_TYRE: Colour = (34, 34, 36)
_RED: Colour = (40, 36, 210)
_LAMP: Colour = (225, 235, 240)
_PLATE: Colour = (225, 228, 228)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _dim(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _glass(light: Light) -> Colour:
    sky = np.array(light.sky_low) * 0.22 + 30
    return (float(sky[0]), float(sky[1]), float(sky[2]))


# Side profiles as (a, h) shares of length and height: rear bumper, tail, rear window, roof,
# windscreen, bonnet, front bumper.
_SHAPES = {
    "hatch": (4.0, 1.74, 1.48, (0.0, 0.02, 0.035, 0.12, 0.6, 0.76, 0.985, 1.0), 0.62),
    "estate": (4.6, 1.8, 1.48, (0.0, 0.015, 0.025, 0.07, 0.6, 0.74, 0.985, 1.0), 0.62),
    "sedan": (4.6, 1.8, 1.44, (0.0, 0.015, 0.16, 0.29, 0.6, 0.75, 0.985, 1.0), 0.64),
    "suv": (4.5, 1.88, 1.72, (0.0, 0.015, 0.025, 0.09, 0.62, 0.75, 0.985, 1.0), 0.6),
    "van": (4.9, 1.95, 1.98, (0.0, 0.01, 0.015, 0.03, 0.72, 0.87, 0.99, 1.0), 0.56),
}


def car(rng: np.random.Generator, light: Light) -> Mesh:
    """A car or van, some as taxis."""
    shape = str(rng.choice(list(_SHAPES), p=[0.33, 0.2, 0.2, 0.17, 0.1]))
    length, width, height, along, belt_share = _SHAPES[shape]
    paint = _pick(rng, _PAINT)
    make = MeshBuilder(light)
    w, top = width / 2, width / 2 * 0.76
    belt, sill = height * belt_share, 0.2
    a = [x * length for x in along]
    glass = _glass(light)
    hood = belt * 0.96
    # Lower body: rear, boot, bonnet, front.
    profile = [
        (a[0], sill),
        (a[1], belt * 0.96),
        (a[2], belt),
        (a[5], belt),
        (a[6], hood * 0.82),
        (a[7], sill),
    ]
    halves = [w * 0.97, w * 0.97, w * 0.95, w * 0.95, w * 0.93, w * 0.94]
    make.face(
        [
            (a[0] + 0.2, w * 0.9, 0.05),
            (a[0] + 0.2, w * 0.9, sill + 0.1),
            (a[0] + 0.2, -w * 0.9, sill + 0.1),
            (a[0] + 0.2, -w * 0.9, 0.05),
        ][::-1],
        (18, 18, 20),
        outline=True,
    )
    make.ring(profile, halves, [paint, paint, None, _dim(paint, 1.05), paint])
    make.mirrored(
        [
            (a[7] - 0.02, -w, sill),
            (a[6], -w * 0.97, hood * 0.82),
            (a[5], -w * 0.97, belt),
            (a[2], -w * 0.97, belt),
            (a[1], -w, belt * 0.96),
            (a[0], -w, sill),
        ],
        paint,
        outline=True,
    )
    make.mirrored(
        [
            (a[7] - 0.05, -w, sill),
            (a[7] - 0.05, -w, sill + 0.22),
            (a[0] + 0.03, -w, sill + 0.22),
            (a[0] + 0.03, -w, sill),
        ],
        _dim(paint, 0.72),
        detail=True,
    )
    # Greenhouse: windows all round under a painted roof.
    cabin = [(a[2], belt), (a[3], height), (a[4], height * 0.985), (a[5], belt)]
    make.mirrored(
        [(x, -(w * 0.95 if h == belt else top), h) for x, h in reversed(cabin)], paint, outline=True
    )
    make.ring(cabin, [w * 0.95, top, top, w * 0.95], [paint, _dim(paint, 1.05), paint])
    _windows(make, cabin, w * 0.95, top, glass, solid=shape == "van" and rng.random() < 0.5)
    _car_trim(make, a, w, belt, sill, light)
    radius = 0.31 if shape != "suv" else 0.36
    make.wheel(length * 0.17, w * 1.005, radius)
    make.wheel(length * 0.82, w * 1.005, radius)
    if rng.random() < 0.07:
        x = (a[3] + a[4]) / 2
        make.face(
            [
                (x, 0.3, height),
                (x, 0.3, height + 0.14),
                (x, -0.3, height + 0.14),
                (x, -0.3, height),
            ][::-1],
            (60, 220, 240),
            outline=True,
            glow=light.night,
        )
    lamps = (
        (0.0, -w * 0.75, belt * 0.82, False), (0.0, w * 0.75, belt * 0.82, False),
        (length, -w * 0.72, belt * 0.66, True), (length, w * 0.72, belt * 0.66, True),
    )  # fmt: skip
    return make.build(ids.CAR, lamps)


def _windows(
    make: MeshBuilder,
    cabin: list[tuple[float, float]],
    low: float,
    top: float,
    glass: Colour,
    *,
    solid: bool,
) -> None:
    (a0, h0), (a1, h1), (a2, h2), (a3, h3) = cabin

    def across(
        p: tuple[float, float], q: tuple[float, float], share: float, inset: float
    ) -> list[tuple[float, float, float]]:
        a, h = p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share
        half = (low + (top - low) * (h - h0) / max(h1 - h0, 1e-6)) * inset
        return [(a, -half, h), (a, half, h)]

    for (p, q), bright in ((((a0, h0), (a1, h1)), 1.0), (((a3, h3), (a2, h2)), 1.1)):
        (l0, r0), (l1, r1) = across(p, q, 0.1, 0.9), across(p, q, 0.88, 0.9)
        quad = [l0, l1, r1, r0] if p[0] < q[0] else [r0, r1, l1, l0]
        make.face(quad, _dim(glass, bright))
    if solid:
        split = a2 - (a2 - a1) * 0.25
        panes = [(split + 0.05, min(a2, a3))]
    else:
        middle = (a1 + a2) / 2 + 0.1
        panes = [(a1, middle - 0.05), (middle + 0.05, a2)]
    for i, (start, end) in enumerate(panes):
        lean0 = (a1 - a0) if start == a1 else 0.0
        lean1 = (a3 - a2) if end == a2 else 0.0
        upper, lower = h0 + (min(h1, h2) - h0) * 0.86, h0 + (h1 - h0) * 0.08
        bu, bl = low + (top - low) * 0.86, low + (top - low) * 0.08
        corners = [
            (end + lean1 * 0.86 - 0.04, -bl - 0.004, lower),
            (end + lean1 * 0.12 - 0.06, -bu - 0.004, upper),
            (start - lean0 * 0.12 + 0.06, -bu - 0.004, upper),
            (start - lean0 * 0.86 + 0.04, -bl - 0.004, lower),
        ]
        make.mirrored(corners, _dim(glass, 0.9 + 0.1 * i), detail=True)


def _plate(
    a: float, half: float, low: float, high: float, b: float = 0.0, *, rear: bool
) -> list[tuple[float, float, float]]:
    """A small upright rectangle on the rear or the front end."""
    quad = [(a, b - half, low), (a, b - half, high), (a, b + half, high), (a, b + half, low)]
    return quad if rear else quad[::-1]


def _car_trim(
    make: MeshBuilder, a: list[float], w: float, belt: float, sill: float, light: Light
) -> None:
    shine = light.night
    rear = a[0] - 0.005
    make.face(_plate(rear, w * 0.92, sill, sill + 0.2, rear=True), (45, 45, 48), detail=True)
    make.face(_plate(rear, 0.26, belt * 0.5, belt * 0.5 + 0.12, rear=True), _PLATE, detail=True)
    front = a[7] + 0.005
    make.face(_plate(front, w * 0.9, sill, sill + 0.16, rear=False), (40, 40, 42), detail=True)
    make.face(_plate(front, 0.5, sill + 0.2, sill + 0.36, rear=False), (30, 30, 32), detail=True)
    make.face(_plate(front, 0.26, sill + 0.06, sill + 0.18, rear=False), _PLATE, detail=True)
    for side in (-1, 1):
        make.face(
            _plate(rear, 0.11, belt * 0.72, belt * 0.9, side * w * 0.8, rear=True),
            _RED,
            glow=0.5 + 0.5 * shine,
        )
        make.face(
            _plate(front, 0.17, belt * 0.58, belt * 0.74, side * w * 0.72, rear=False),
            _LAMP,
            glow=0.8 + 0.2 * shine,
        )


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
        _dim(paint, 0.9),
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
    cargo, cab = _pick(rng, (*_LIVERY, (235, 235, 235))), _pick(rng, _PAINT + _LIVERY)
    length, half, high = float(rng.uniform(4.2, 6.0)), 1.22, float(rng.uniform(2.9, 3.5))
    box = MeshBuilder(light)
    box.face(
        [(0.3, -1.0, 0.35), (0.3, -1.0, 0.95), (0.3, 1.0, 0.95), (0.3, 1.0, 0.35)],
        (28, 28, 30),
        outline=True,
    )
    _side(box, 0.2, length, half * 0.9, 0.45, 0.95, (40, 40, 42))
    _box(box, 0.0, length, half, 0.92, high, cargo)
    _side(box, 0.4, length - 0.4, half + 0.005, 1.7, 2.3, _pick(rng, _LIVERY))
    box.face(
        [(-0.005, -0.02, 0.95), (-0.005, -0.02, high), (-0.005, 0.02, high), (-0.005, 0.02, 0.95)],
        _dim(cargo, 0.55),
        detail=True,
    )
    for side in (-1, 1):
        box.face(
            _plate(-0.01, 0.14, 0.72, 0.88, side * 0.95, rear=True),
            _RED,
            glow=0.5 + 0.5 * light.night,
        )
    box.face(_plate(-0.01, 0.28, 0.72, 0.86, rear=True), _PLATE, detail=True)
    for a in (0.9, 1.9):
        box.wheel(a, half, 0.46)
    front = MeshBuilder(light)
    depth, roof = 2.0, min(high - 0.1, 2.8)
    _box(front, 0.0, depth, half * 0.96, 0.45, roof, cab)
    glass = _glass(light)
    front.face(_plate(depth + 0.01, half * 0.88, 1.55, roof - 0.25, rear=False), glass)
    front.face(
        _plate(depth + 0.01, half * 0.8, 0.85, 1.35, rear=False), _dim(cab, 0.45), detail=True
    )
    for side in (-1, 1):
        front.face(_plate(depth + 0.012, 0.2, 0.55, 0.75, side * 0.85, rear=False), _LAMP, glow=0.8)
    _side(front, 0.8, depth - 0.15, half * 0.96 + 0.005, 1.6, roof - 0.3, glass)
    front.wheel(1.0, half * 0.97, 0.46)
    return box.build(ids.TRUCK, ((0.0, -0.95, 0.8, False), (0.0, 0.95, 0.8, False))), front.build(
        ids.TRUCK, ((depth, -0.85, 0.65, True), (depth, 0.85, 0.65, True))
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
    """A bus or tram as sections of side wall, the first with the rear and the last with the front."""
    paint, trim = _pick(rng, _LIVERY), _pick(rng, _LIVERY)
    glass = _glass(light)
    low, lit = (0.28 if rail else 0.32), 0.85 * light.night
    window: Colour = (150, 215, 235) if light.night > 0.4 else glass
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
            _side(
                make,
                k * step + 0.07,
                (k + 1) * step - 0.07,
                half + 0.006,
                bottom,
                high - 0.55,
                window,
                lit,
            )
        for end in (True, False):
            if (end and not first) or (not end and not last):
                continue
            at = -0.01 if end else section + 0.01
            make.face(
                _plate(at, half * 0.86, 1.2 if not end else 1.5, high - 0.45, rear=end), glass
            )
            make.face(
                _plate(at, half * 0.6, high - 0.38, high - 0.12, rear=end),
                (30, 150, 240),
                detail=True,
                glow=0.8,
            )
            for side in (-1, 1):
                lamp = _RED if end else _LAMP
                make.face(_plate(at, 0.15, 0.6, 0.82, side * half * 0.78, rear=end), lamp, glow=0.7)
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
        lamps = [(0.0, s * half * 0.78, 0.7, False) for s in (-1, 1)] if first else []
        lamps += [(section, s * half * 0.78, 0.7, True) for s in (-1, 1)] if last else []
        pieces.append(make.build(label, tuple(lamps)))
    return tuple(pieces)


def bus(rng: np.random.Generator, light: Light) -> tuple[Mesh, ...]:
    """A city bus in pieces, rear first."""
    return _coach(rng, light, ids.BUS, 3, 3.9, 1.26, 3.05, rail=False)


def tram(rng: np.random.Generator, light: Light) -> tuple[Mesh, ...]:
    """A tram in pieces, rear first."""
    return _coach(rng, light, ids.TRAIN, int(rng.integers(5, 8)), 4.6, 1.22, 3.45, rail=True)
