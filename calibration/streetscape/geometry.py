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

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NEAR = 0.6
"""Nearest depth drawn, metres. Points before it are moved onto it."""


@dataclass(frozen=True)
class Bend:
    """How the centre line wanders: amplitudes (m), wave numbers (rad/m) and phases (rad)."""

    amplitudes: tuple[float, ...]
    waves: tuple[float, ...]
    phases: tuple[float, ...]

    def offset(self, s: Floats) -> Floats:
        """X(s) in metres."""
        total = np.zeros_like(s)
        for a, k, p in zip(self.amplitudes, self.waves, self.phases, strict=True):
            total += a * np.sin(k * s + p)
        return total

    def slope(self, s: float) -> float:
        """dX/ds at one place."""
        terms = zip(self.amplitudes, self.waves, self.phases, strict=True)
        return float(sum(a * k * np.cos(k * s + p) for a, k, p in terms))


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
    """One camera position: projects (s, u, h) into the picture."""

    def __init__(self, lens: Lens, bend: Bend, s: float, u: float, height: float, pitch: float):
        self.lens, self.bend = lens, bend
        self.s, self.u, self.height = s, u, height
        self.horizon = lens.horizon + pitch * lens.height
        self.centre = (lens.width - 1) / 2
        self._slope = bend.slope(s)
        self._origin = float(bend.offset(np.array([s]))[0])

    @property
    def heading(self) -> float:
        """Which way the camera looks, radians from the s axis."""
        return self._slope

    def shift(self, s: Floats) -> Floats:
        """How far sideways, in metres, the road's centre line at ``s`` lies from straight on."""
        return self.bend.offset(s) - self._origin - self._slope * (s - self.s) - self.u

    def project(self, s: Floats, u: Floats, h: Floats) -> Floats:
        """Columns and rows, float64 (..., 2), of points nearer than ``NEAR`` moved onto it."""
        z = np.maximum(s - self.s, NEAR)
        scale = self.lens.focal / z
        points = np.empty((*np.broadcast(s, u, h).shape, 2))
        points[..., 0] = self.centre + scale * (u + self.shift(self.s + z))
        points[..., 1] = self.horizon + scale * (self.height - h)
        return points

    def at(self, s: float, u: float, h: float = 0.0) -> tuple[float, float, float]:
        """Column, row and scale (pixels per metre) of one point; its depth must be positive."""
        z = s - self.s
        scale = self.lens.focal / z
        x = u + float(self.shift(np.array([s]))[0])
        return self.centre + scale * x, self.horizon + scale * (self.height - h), scale
