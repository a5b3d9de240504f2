"""Vehicles on the road: projecting their meshes, drawing them, and the shadows under them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.canvas import SHIFT, Canvas, fixed
from calibration.streetscape.geometry import NEAR, View
from calibration.streetscape.materials import Light
from calibration.streetscape.meshes import Mesh

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_SMALL = 22.0
"""Below this height in pixels a vehicle is drawn without its details."""


@dataclass
class Placed:
    """A mesh on the road: its rear at ``s``, its middle at ``u``."""

    mesh: Mesh
    s: float
    u: float
    corners: npt.NDArray[np.int32] | None = None
    faces: npt.NDArray[np.bool_] | None = None

    @property
    def far(self) -> float:
        """Where its front end is."""
        return self.s + self.mesh.length


def project(view: View, placed: list[Placed]) -> None:
    """Give every vehicle its corners in the picture and which faces look at the camera."""
    if not placed:
        return
    counts = [len(p.mesh.corners) for p in placed]
    local = np.concatenate([p.mesh.corners for p in placed])
    s = local[..., 0] + np.repeat([p.s for p in placed], counts)[:, None]
    u = local[..., 1] + np.repeat([p.u for p in placed], counts)[:, None]
    points = view.project(s, u, local[..., 2])
    x, y = points[..., 0], points[..., 1]
    twice = (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)
    shown = (twice > 0.5) & (x.max(1) > 0) & (x.min(1) < view.lens.width)
    whole = fixed(points)
    at = 0
    for vehicle, count in zip(placed, counts, strict=True):
        faces = shown[at : at + count]
        tall = view.lens.focal * vehicle.mesh.height / max(vehicle.s - view.s, NEAR)
        vehicle.faces = faces & ~vehicle.mesh.detail if tall < _SMALL else faces
        vehicle.corners = whole[at : at + count]
        at += count


def draw(canvas: Canvas, vehicle: Placed) -> None:
    """Paint a projected vehicle."""
    if vehicle.corners is None or vehicle.faces is None:
        return
    mesh, bgr, labels = vehicle.mesh, canvas.bgr, canvas.labels
    for i in np.flatnonzero(vehicle.faces):
        cv2.fillConvexPoly(bgr, vehicle.corners[i], mesh.colours[i], cv2.LINE_AA, SHIFT)
        if mesh.outline[i]:
            cv2.fillConvexPoly(labels, vehicle.corners[i], mesh.label, cv2.LINE_8, SHIFT)


def lamps(
    canvas: Canvas, view: View, vehicle: Placed, light: Light, glows: tuple[Bytes, Bytes]
) -> None:
    """The shine of head and tail lamps that look at the camera, when it is dark enough."""
    if light.night + light.rain * 0.3 < 0.3 and light.visibility > 150:
        return
    for a, b, h, forward in vehicle.mesh.lamps:
        s = vehicle.s + a
        if (
            s < view.s + 2
            or (forward and a < vehicle.mesh.length / 2)
            or (not forward and a > vehicle.mesh.length / 2 and vehicle.mesh.length > 3 and forward)
        ):
            continue
        facing = a < vehicle.mesh.length / 2
        if not facing:
            continue
        x, y, scale = view.at(s, vehicle.u + b, h)
        canvas.glow(glows[1], x, y, max(2.0, 0.4 * scale))


def shadow(view: View, vehicle: Placed, light: Light) -> list[Floats]:
    """Where it darkens the ground, as convex polygons in the picture."""
    mesh = vehicle.mesh
    a0, a1 = max(vehicle.s - 0.1, view.s + NEAR), vehicle.far + 0.15
    if a1 <= a0 or a0 > view.s + 90:
        return []
    half = mesh.width / 2 + 0.05
    reach = 0.85 * mesh.height * min(1.0, float(light.sun.mean()) * 2.5)
    left = -half - (reach if light.sun_side > 0 else 0.0)
    right = half + (reach if light.sun_side < 0 else 0.0)
    return [flat(view, a0, a1, vehicle.u + left, vehicle.u + right)]


def flat(view: View, a0: float, a1: float, left: float, right: float) -> Floats:
    """A rectangle on the ground, as a polygon in the picture."""
    return view.project(
        np.array([a0, a0, a1, a1]), np.array([left, right, right, left]), np.zeros(4)
    )


def glow(colour: tuple[float, float, float], strength: float) -> Bytes:
    """A round light that fades outwards, uint8 (64, 64, 3)."""
    axis = np.linspace(-1, 1, 64)
    distance = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    fall = np.clip(1 - distance, 0, 1) ** 2.2 * strength
    return (fall[..., None] * np.array(colour)).astype(np.uint8)
