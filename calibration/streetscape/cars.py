"""Cars and vans."""

from __future__ import annotations

import numpy as np

from calibration.streetscape import ids
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

PAINTS: tuple[Colour, ...] = (
    (205, 205, 205), (60, 60, 62), (150, 150, 152), (32, 32, 36), (42, 36, 150), (140, 80, 36),
    (235, 235, 235), (90, 96, 100), (60, 100, 60), (40, 120, 190), (110, 60, 40), (180, 170, 150),
)  # fmt: skip

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
    paint = pick(rng, PAINTS)
    make = MeshBuilder(light)
    w, top = width / 2, width / 2 * 0.76
    belt, sill = height * belt_share, 0.2
    a = [x * length for x in along]
    glass = glass_of(light)
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
    halves = [w, w, w * 0.97, w * 0.97, w * 0.97, w]
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
    make.ring(profile, halves, [paint, paint, None, dim(paint, 1.05), paint])
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
        dim(paint, 0.72),
        detail=True,
    )
    # Greenhouse: windows all round under a painted roof.
    cabin = [(a[2], belt), (a[3], height), (a[4], height * 0.985), (a[5], belt)]
    make.mirrored(
        [(x, -(w * 0.97 if h == belt else top), h) for x, h in reversed(cabin)], paint, outline=True
    )
    make.ring(cabin, [w * 0.97, top, top, w * 0.97], [paint, dim(paint, 1.05), paint])
    _windows(make, cabin, w * 0.97, top, glass, solid=shape == "van" and rng.random() < 0.5)
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
        (0.0, -w * 0.75, belt * 0.82, True), (0.0, w * 0.75, belt * 0.82, True),
        (length, -w * 0.72, belt * 0.66, False), (length, w * 0.72, belt * 0.66, False),
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
        make.face(quad, dim(glass, bright))
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
        make.mirrored(corners, dim(glass, 0.9 + 0.1 * i), detail=True)


def _car_trim(
    make: MeshBuilder, a: list[float], w: float, belt: float, sill: float, light: Light
) -> None:
    shine = light.night
    rear = a[0] - 0.005
    make.face(upright(rear, w * 0.92, sill, sill + 0.2, rear=True), (45, 45, 48), detail=True)
    make.face(upright(rear, 0.26, belt * 0.5, belt * 0.5 + 0.12, rear=True), PLATE, detail=True)
    front = a[7] + 0.005
    make.face(upright(front, w * 0.9, sill, sill + 0.16, rear=False), (40, 40, 42), detail=True)
    make.face(upright(front, 0.5, sill + 0.2, sill + 0.36, rear=False), (30, 30, 32), detail=True)
    make.face(upright(front, 0.26, sill + 0.06, sill + 0.18, rear=False), PLATE, detail=True)
    for side in (-1, 1):
        make.face(
            upright(rear, 0.11, belt * 0.72, belt * 0.9, side * w * 0.8, rear=True),
            RED,
            glow=0.5 + 0.5 * shine,
        )
        make.face(
            upright(front, 0.17, belt * 0.58, belt * 0.74, side * w * 0.72, rear=False),
            LAMP,
            glow=0.8 + 0.2 * shine,
        )
