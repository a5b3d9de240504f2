"""From road coordinates to pixels.

The road's centre line wanders sideways as X(s), a sum of two sines. A camera at s_c looks along
the tangent, so a point (s, u, h) lies at depth z = s - s_c and sideways at

    x = u - u_c + X(s) - X(s_c) - X'(s_c) (s - s_c)

which is the pinhole view of a road bent by a shear: exact for straight roads, and for the bends
here (radius over 150 m) within a few percent of a turned one, while depth stays a plain
difference and every surface of constant s stays parallel to the picture.

    column = f x / z + c_x,    row = f (camera height - h) / z + horizon

Columns and rows count from the centre of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NEAR = 0.6
"""Nearest depth drawn, metres. Points before it are moved onto it."""


@dataclass(frozen=True)
class Bend:
    """How the centre line wanders, two sines: amplitudes (m), wave numbers (rad/m), phases."""

    amplitudes: tuple[float, float]
    waves: tuple[float, float]
    phases: tuple[float, float]

    def offsets(self, s: Floats) -> Floats:
        """X(s) in metres of many places."""
        (a, b), (k, m), (p, q) = self.amplitudes, self.waves, self.phases
        return np.asarray(a * np.sin(k * s + p) + b * np.sin(m * s + q))

    def offset(self, s: float) -> float:
        """X(s) in metres of one place."""
        (a, b), (k, m), (p, q) = self.amplitudes, self.waves, self.phases
        return a * math.sin(k * s + p) + b * math.sin(m * s + q)

    def slope(self, s: float) -> float:
        """dX/ds of one place."""
        (a, b), (k, m), (p, q) = self.amplitudes, self.waves, self.phases
        return a * k * math.cos(k * s + p) + b * m * math.cos(m * s + q)


@dataclass(frozen=True)
class Lens:
    """What of a camera does not move: picture size, focal length and horizon row in pixels."""

    height: int
    width: int
    focal: float
    horizon: float

    @staticmethod
    def fit(height: int, width: int, focal: float, horizon: float) -> Lens:
        """A lens whose field of view has the same area at every size.

        ``focal`` is in picture widths at an aspect of 1:2, ``horizon`` in picture heights.
        """
        return Lens(height, width, focal * float(np.sqrt(2.0 * height * width)), horizon * height)


class View:
    """One camera position: projects (s, u, h) into the picture.

    ``heading`` is which way it looks, radians from the s axis.
    """

    def __init__(self, lens: Lens, bend: Bend, s: float, u: float, height: float, pitch: float):
        self.lens, self.bend = lens, bend
        self.s, self.u, self.height = s, u, height
        self.horizon = lens.horizon + pitch * lens.height
        self.centre = (lens.width - 1) / 2
        self.heading = bend.slope(s)
        self._origin = bend.offset(s)

    def shifts(self, s: Floats) -> Floats:
        """How far sideways, in metres, the road's centre line at ``s`` lies from straight on."""
        return self.bend.offsets(s) - (self._origin + self.u) - self.heading * (s - self.s)

    def shift(self, s: float) -> float:
        """The same of one place."""
        return self.bend.offset(s) - self._origin - self.u - self.heading * (s - self.s)

    def project(self, s: Floats, u: Floats, h: Floats | float) -> Floats:
        """Columns and rows, float64 (..., 2); points nearer than ``NEAR`` are moved onto it.

        ``s``, ``u`` and ``h`` broadcast against each other.
        """
        z = np.maximum(s - self.s, NEAR)
        scale = self.lens.focal / z
        x = self.centre + scale * (u + self.shifts(self.s + z))
        y = self.horizon + scale * (self.height - h)
        points = np.empty((*np.broadcast_shapes(x.shape, y.shape), 2))
        points[..., 0], points[..., 1] = x, y
        return points

    def at(self, s: float, u: float, h: float = 0.0) -> tuple[float, float, float]:
        """Column, row and scale (pixels per metre) of one point; its depth must be positive."""
        scale = self.lens.focal / (s - self.s)
        x = self.centre + scale * (u + self.shift(s))
        return x, self.horizon + scale * (self.height - h), scale

    def upright(self, left: float, right: float, u: float, low: float, high: float) -> Floats:
        """Corners (4, 2) of an upright plane along the road, from the top ``left`` (an s) on."""
        x0, y0, k0 = self.at(left, u, high)
        x1, y1, k1 = self.at(right, u, high)
        drop = high - low
        return np.array([[x0, y0], [x1, y1], [x1, y1 + k1 * drop], [x0, y0 + k0 * drop]])

    def facing(self, s: float, left: float, right: float, low: float, high: float) -> Floats:
        """Corners (4, 2) of an upright plane across the road, from the top left on."""
        x0, y0, scale = self.at(s, left, high)
        x1, y1 = x0 + scale * (right - left), y0 + scale * (high - low)
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
