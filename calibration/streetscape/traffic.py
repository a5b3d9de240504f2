"""Vehicles on the road: where they are, how their meshes are drawn, and their shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape import cars, vehicles
from calibration.streetscape.canvas import SHIFT, Canvas, fixed
from calibration.streetscape.geometry import NEAR, View
from calibration.streetscape.layout import Plan, Stream
from calibration.streetscape.materials import Light
from calibration.streetscape.meshes import Mesh, turned
from calibration.streetscape.stage import Draw, Stage

Bytes = npt.NDArray[np.uint8]

_SMALL = 26.0
"""Below this height in pixels a vehicle is drawn without its details."""
_CARS = 8
_TRACK = 1.55  # metres from the centre line to a tram track


@dataclass
class Placed:
    """A mesh on the road: its rear at ``s``, its middle at ``u``.

    ``corners`` (F, 8, 2) are in the picture, ``faces`` (F,) are those that show.
    """

    mesh: Mesh
    s: float
    u: float
    corners: npt.NDArray[np.int32]
    faces: npt.NDArray[np.bool_]


class Traffic:
    """The vehicles of one street."""

    def __init__(self, rng: np.random.Generator, light: Light, plan: Plan) -> None:
        self._light = light
        away: list[tuple[Mesh, ...]] = [(cars.car(rng, light),) for _ in range(_CARS)]
        away += [vehicles.bus(rng, light), vehicles.truck(rng, light)]
        tram = vehicles.tram(rng, light)
        self._away, self._toward = away, [_turn(v) for v in away]
        self._trams = {1: tram, -1: _turn(tram)}
        left, right = plan.sides
        spacing, kinds = 24.0 / plan.traffic, len(away)
        self._lanes: list[tuple[float, int, Stream]] = []
        for i, u in enumerate(right.lanes):
            if i != plan.camera_lane:
                speed = plan.speed + float(rng.choice([-3.5, 2.5]))
                self._lanes.append((u, 1, Stream.draw(rng, spacing, kinds, speed=speed)))
        for u in left.lanes:
            speed = -float(rng.uniform(7, 12))
            self._lanes.append((-u, -1, Stream.draw(rng, spacing * 1.2, kinds, speed=speed)))
        self._parked = [
            (sign * (side.kerb - 1.15), sign, Stream.draw(rng, 8.0, _CARS, slack=0.3))
            for side, sign in ((left, -1), (right, 1))
            if side.parking
        ]
        self._free = rng.random(64) < 0.4
        self._gap, self._swing = float(rng.uniform(14, 34)), float(rng.uniform(2, 5))
        self._lead, self._phase = int(rng.integers(kinds)), float(rng.uniform(0, 6))
        self._rails: list[tuple[float, int, Stream]] = []
        if plan.tram:
            self._rails = [
                (_TRACK, 1, Stream.draw(rng, 230.0, 1, speed=plan.speed - 4.0, slack=0.6)),
                (-_TRACK, -1, Stream.draw(rng, 260.0, 1, speed=-9.0, slack=0.6)),
            ]
        self._glows = (glow((200, 235, 255), 0.8), glow((60, 60, 255), 0.7))

    def place(self, stage: Stage) -> None:
        """Put all vehicles on the stage."""
        view, time = stage.view, stage.time
        there: list[tuple[Mesh, float, float]] = []

        def add(pieces: tuple[Mesh, ...], s: float, u: float) -> None:
            for mesh in pieces:
                if s + mesh.length > view.s + 1.0:
                    there.append((mesh, s, u))
                s += mesh.length

        for u, sign, lane in self._lanes:
            for s, kind, _, _ in lane.near(view.s, time, 150):
                add((self._away if sign > 0 else self._toward)[kind], s, u)
        for u, sign, row in self._parked:
            for s, kind, _, i in row.near(view.s, time, 100):
                if not self._free[i % len(self._free)] and stage.clear(s + 2, 8.0):
                    add((self._away if sign > 0 else self._toward)[kind], s, u)
        for u, sign, rail in self._rails:
            for s, _, _, _ in rail.near(view.s, time, 150, behind=40.0):
                add(self._trams[sign], s, u)
        ahead = self._gap + self._swing * math.sin(0.3 * time + self._phase)
        lane_u = stage.plan.sides[1].lanes[stage.plan.camera_lane]
        add(self._away[self._lead], view.s + ahead, lane_u)
        for vehicle in project_all(view, there):
            self._shade(stage, vehicle)
            stage.put(vehicle.s + vehicle.mesh.length, vehicle.u, self._drawer(view, vehicle))

    def _shade(self, stage: Stage, vehicle: Placed) -> None:
        """Under a vehicle it is dark; beside it too, away from the sun."""
        mesh, light = vehicle.mesh, self._light
        if vehicle.s > stage.view.s + 90:
            return
        half = mesh.width / 2 + 0.05
        reach = 0.85 * mesh.height * min(1.0, float(light.sun.mean()) * 2.5)
        left = vehicle.u - half - (reach if light.sun_side > 0 else 0.0)
        right = vehicle.u + half + (reach if light.sun_side < 0 else 0.0)
        stage.shade(vehicle.s - 0.1, vehicle.s + mesh.length + 0.15, left, right)

    def _drawer(self, view: View, vehicle: Placed) -> Draw:
        def draw(canvas: Canvas) -> None:
            paint(canvas, vehicle)
            if self._light.night > 0.1 or self._light.visibility < 150:
                _shine(canvas, view, vehicle, self._glows)

        return draw


def _turn(vehicle: tuple[Mesh, ...]) -> tuple[Mesh, ...]:
    return tuple(turned(mesh) for mesh in reversed(vehicle))


def project_all(view: View, there: list[tuple[Mesh, float, float]]) -> list[Placed]:
    """All vehicles' corners in the picture by one computation."""
    if not there:
        return []
    counts = [len(mesh.corners) for mesh, _, _ in there]
    local = np.concatenate([mesh.corners for mesh, _, _ in there])
    s = local[..., 0] + np.repeat([s for _, s, _ in there], counts)[:, None]
    u = local[..., 1] + np.repeat([u for _, _, u in there], counts)[:, None]
    points = view.project(s, u, local[..., 2])
    x, y = points[..., 0], points[..., 1]
    # Twice the signed area: positive where the corners run clockwise, facing the camera.
    twice = (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)
    shown = (twice > 0.5) & (x.max(1) > 0) & (x.min(1) < view.lens.width)
    corners = fixed(points)
    placed, at = [], 0
    for (mesh, rear, middle), count in zip(there, counts, strict=True):
        faces = shown[at : at + count]
        if view.lens.focal * mesh.height / max(rear - view.s, NEAR) < _SMALL:
            faces = faces & ~mesh.detail
        placed.append(Placed(mesh, rear, middle, corners[at : at + count], faces))
        at += count
    return placed


def paint(canvas: Canvas, vehicle: Placed) -> None:
    """Draw a vehicle, and its label with it."""
    mesh, bgr, labels = vehicle.mesh, canvas.bgr, canvas.labels
    for i in np.flatnonzero(vehicle.faces):
        cv2.fillConvexPoly(bgr, vehicle.corners[i], mesh.colours[i], cv2.LINE_AA, SHIFT)
        if mesh.outline[i]:
            cv2.fillConvexPoly(labels, vehicle.corners[i], (mesh.label,), cv2.LINE_8, SHIFT)


def _shine(canvas: Canvas, view: View, vehicle: Placed, glows: tuple[Bytes, Bytes]) -> None:
    """The lamps of the end that looks at the camera; ``glows`` are white and red."""
    for a, b, h, red in vehicle.mesh.lamps:
        s = vehicle.s + a
        if a < vehicle.mesh.length / 2 and view.s + 2 < s < view.s + 120:
            x, y, scale = view.at(s, vehicle.u + b, h)
            canvas.glow(glows[red], x, y, max(2.0, (0.35 if red else 0.55) * scale))


def glow(colour: tuple[float, float, float], strength: float) -> Bytes:
    """A round light that fades outwards, uint8 (64, 64, 3), BGR."""
    axis = np.linspace(-1, 1, 64)
    distance = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    fall = np.clip(1 - distance, 0, 1) ** 2.2 * strength
    return np.asarray(fall[..., None] * np.array(colour), np.uint8)
