"""Vehicles as small convex polygons in three dimensions.

A mesh lives in its own frame: ``a`` metres forward of its rear end, ``b`` to the right of its
middle, ``h`` up. Faces are convex, wound so that they show clockwise in the picture (rows run
down) when they face the camera, and stored in drawing order: every face may cover only faces
before it. A face that lies within another one's outline carries no label of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calibration.streetscape.materials import Colour, Light

Floats = npt.NDArray[np.float64]

CORNERS = 8
"""Corners per face; shorter faces repeat their last one."""


@dataclass(frozen=True)
class Mesh:
    """Corners of all faces (F, 8, 3) as (a, b, h), their colours (F, 3) BGR as lit, and flags.

    ``outline`` (F,) says which faces also carry the label; ``detail`` (F,) which may be left
    out when the vehicle is small. ``lamps`` are (a, b, h, red) of its lights.
    """

    corners: Floats
    colours: tuple[tuple[float, ...], ...]
    outline: npt.NDArray[np.bool_]
    detail: npt.NDArray[np.bool_]
    label: int
    length: float
    width: float
    height: float
    lamps: tuple[tuple[float, float, float, bool], ...] = ()


@dataclass
class MeshBuilder:
    """Collects faces and lights them."""

    light: Light
    faces: list[Floats] = field(default_factory=list)
    colours: list[tuple[float, ...]] = field(default_factory=list)
    outline: list[bool] = field(default_factory=list)
    detail: list[bool] = field(default_factory=list)

    def face(
        self,
        corners: list[tuple[float, float, float]],
        colour: Colour,
        *,
        outline: bool = False,
        detail: bool = False,
        glow: float = 0.0,
    ) -> None:
        """Add one face; ``glow`` is how much it shines by itself, 0 to 1."""
        points = np.array(corners, np.float64)
        normal = _normal(points)
        # Away from the camera (+a) the sun is behind the face; see Light.normal_gain.
        gain = self.light.normal_gain(float(normal[0]), float(normal[1]), float(normal[2]))
        lit = np.maximum(np.array(colour) * gain, np.array(colour) * glow)
        self.faces.append(
            np.concatenate([points, np.repeat(points[-1:], CORNERS - len(points), 0)])
        )
        self.colours.append(tuple(float(v) for v in np.clip(lit, 0, 255)))
        self.outline.append(outline)
        self.detail.append(detail)

    def mirrored(
        self,
        corners: list[tuple[float, float, float]],
        colour: Colour,
        *,
        outline: bool = False,
        detail: bool = False,
        glow: float = 0.0,
    ) -> None:
        """Add a face of the left side, and the same on the right."""
        self.face(corners, colour, outline=outline, detail=detail, glow=glow)
        other = [(a, -b, h) for a, b, h in reversed(corners)]
        self.face(other, colour, outline=outline, detail=detail, glow=glow)

    def ring(
        self, profile: list[tuple[float, float]], half: list[float], colours: list[Colour | None]
    ) -> None:
        """The skin between the left and right edge of a side profile.

        ``profile`` runs (a, h) from the rear bottom over the top to the front bottom, ``half``
        is half the width there, ``colours[i]`` paints the strip from point i to i + 1.
        """
        for i, colour in enumerate(colours):
            if colour is None:
                continue
            (a0, h0), (a1, h1) = profile[i], profile[i + 1]
            w0, w1 = half[i], half[i + 1]
            self.face(
                [(a0, -w0, h0), (a1, -w1, h1), (a1, w1, h1), (a0, w0, h0)], colour, outline=True
            )

    def wheel(self, a: float, half: float, radius: float, *, hub: Colour = (150, 150, 150)) -> None:
        """A wheel on each side."""
        turns = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False) + np.pi / CORNERS
        rim = [
            (a + radius * float(np.cos(t)), -half, radius + radius * float(np.sin(t)))
            for t in turns
        ]
        inner = [(a + (x - a) * 0.58, -half, radius + (h - radius) * 0.58) for x, _, h in rim]
        self.mirrored(rim, (30, 30, 32), outline=True)
        self.mirrored(inner, hub, detail=True)

    def build(self, label: int, lamps: tuple[tuple[float, float, float, bool], ...] = ()) -> Mesh:
        """The finished mesh."""
        corners = np.stack(self.faces)
        return Mesh(
            corners,
            tuple(self.colours),
            np.array(self.outline),
            np.array(self.detail),
            label,
            float(corners[..., 0].max()),
            float(2 * corners[..., 1].max()),
            float(corners[..., 2].max()),
            lamps,
        )


def _normal(points: Floats) -> Floats:
    """The outward unit normal of a face, by Newell's sum."""
    after = np.roll(points, -1, 0)
    total = np.cross(points, after).sum(0)
    size = float(np.linalg.norm(total))
    return np.asarray(total / size if size > 0 else total)


def turned(mesh: Mesh) -> Mesh:
    """The same vehicle coming towards the camera. Its colours stay: the sun is high."""
    corners = mesh.corners.copy()
    corners[..., 0] = mesh.length - corners[..., 0]
    corners[..., 1] *= -1
    lamps = tuple((mesh.length - a, -b, h, red) for a, b, h, red in mesh.lamps)
    return Mesh(
        corners,
        mesh.colours,
        mesh.outline,
        mesh.detail,
        mesh.label,
        mesh.length,
        mesh.width,
        mesh.height,
        lamps,
    )


RED: Colour = (40, 36, 210)
LAMP: Colour = (225, 235, 240)
PLATE: Colour = (225, 228, 228)


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of several colours."""
    return colours[int(rng.integers(len(colours)))]


def glass_of(light: Light) -> Colour:
    """Window glass under a sky, before it is lit."""
    sky = np.array(light.sky_low) * 0.22 + 30
    return (float(sky[0]), float(sky[1]), float(sky[2]))


def upright(
    a: float, half: float, low: float, high: float, b: float = 0.0, *, rear: bool
) -> list[tuple[float, float, float]]:
    """A small upright rectangle on the rear or the front end."""
    quad = [(a, b - half, low), (a, b - half, high), (a, b + half, high), (a, b + half, low)]
    return quad if rear else quad[::-1]
