"""Noise, and light falling on colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Colour = tuple[float, float, float]
"""Blue, green, red, 0 to 255."""


def dim(colour: Colour, factor: float) -> Colour:
    """A colour made darker or brighter."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def noise(rng: np.random.Generator, height: int, width: int, cell: tuple[float, float]) -> Singles:
    """Smooth tileable noise, float32 (height, width), mean 0, deviation about 1.

    ``cell`` is the size of its grains in pixels, (vertical, horizontal).
    """
    rows, columns = max(2, round(height / cell[0])), max(2, round(width / cell[1]))
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    grid = cv2.copyMakeBorder(grid, 2, 2, 2, 2, cv2.BORDER_WRAP)
    scale_y, scale_x = height / rows, width / columns
    size = (round(scale_x * (columns + 4)), round(scale_y * (rows + 4)))
    smooth = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    top, left = round(2 * scale_y), round(2 * scale_x)
    return np.asarray(smooth[top : top + height, left : left + width], np.float32)


def clouds(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int) -> Singles:
    """Noise of several sizes, each half as large and half as strong; deviation about 1."""
    # The finest octave decides how coarsely the sum may be computed.
    coarse = max(1, int(cell / 2 ** (octaves - 1) / 3))
    rows, columns = -(-height // coarse), -(-width // coarse)
    total = np.zeros((rows, columns), np.float32)
    for octave in range(octaves):
        size = cell / coarse / 2**octave
        total += noise(rng, rows, columns, (size, size)) * 0.5**octave
    total *= 0.8
    if coarse == 1:
        return total
    return np.asarray(cv2.resize(total, (width, height)), np.float32)


def to_bytes(image: npt.NDArray[np.floating]) -> Bytes:
    """A picture or map (h, w) or (h, w, 3), rounded and clipped to uint8."""
    return np.asarray(cv2.add(image, 0.0, dtype=cv2.CV_8U), np.uint8)


def to_colour(values: npt.NDArray[np.floating]) -> Bytes:
    """One colour (3,), rounded and clipped to uint8."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def gain_lut(gain: npt.ArrayLike, offset: npt.ArrayLike = 0.0) -> Bytes:
    """A (1, 256, n) table multiplying each channel by its gain (n,) and adding ``offset``."""
    ramp = np.arange(256.0)[:, None] * np.asarray(gain)[None, :] + offset
    return np.asarray(np.clip(np.rint(ramp), 0, 255), np.uint8)[None]


def varied(colour: Sequence[float], variation: Singles) -> Bytes:
    """One colour, uint8 (h, w, 3), brighter and darker by ``variation`` (h, w), 1 is neutral."""
    grey = cv2.cvtColor(to_bytes(variation * 128), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.LUT(grey, gain_lut(np.array(colour) / 128)), np.uint8)


def graded(image: Bytes, gain: Floats) -> Bytes:
    """A picture (h, w, 3) under a light."""
    return np.asarray(cv2.LUT(image, gain_lut(gain)), np.uint8)


@dataclass(frozen=True)
class Light:
    """Weather and time of day.

    Colours are BGR, 0 to 255; ``ambient`` and ``sun`` are gains per channel that add up on a
    surface facing the sun. ``sun_side`` is -1 when it shines from the left, 1 from the right.
    ``visibility`` is the depth in metres over which haze takes 63 % of a colour. ``wet``,
    ``rain`` and ``night`` run from 0 to 1.
    """

    name: str
    sky_top: tuple[float, float, float]
    sky_low: tuple[float, float, float]
    cloudiness: float
    ambient: Floats
    sun: Floats
    sun_side: int
    haze: tuple[float, float, float]
    visibility: float
    wet: float
    rain: float
    night: float
    grain: float

    def gain(self, facing: float) -> Floats:
        """Gain per BGR channel of a surface; ``facing`` is the cosine to the sun, 0 in shade."""
        return self.ambient + self.sun * max(facing, 0.0)

    def normal_gain(self, along: float, right: float, up: float) -> Floats:
        """Gain of a surface by its unit normal: towards +s, to the right, and up."""
        facing = 0.72 * up + 0.6 * right * self.sun_side - 0.35 * along
        # Half of the ambient light comes from above.
        return self.ambient * (0.8 + 0.2 * up) + self.sun * max(facing, 0.0)


def _light(rng: np.random.Generator, name: str) -> Light:
    side = -1 if rng.random() < 0.5 else 1
    jitter = 1 + 0.08 * (rng.random(3) - 0.5)

    def make(
        top: tuple[float, float, float],
        low: tuple[float, float, float],
        cloud: float,
        ambient: tuple[float, float, float],
        sun: tuple[float, float, float],
        visibility: float,
        wet: float = 0.0,
        rain: float = 0.0,
        night: float = 0.0,
        grain: float = 3.0,
    ) -> Light:
        haze = tuple(float(v) for v in np.array(low) * (0.97 - 0.1 * night))
        return Light(
            name,
            top,
            low,
            cloud,
            np.array(ambient) * jitter,
            np.array(sun) * jitter,
            side,
            (haze[0], haze[1], haze[2]),
            visibility * float(0.8 + 0.4 * rng.random()),
            wet,
            rain,
            night,
            grain,
        )

    if name == "sunny":
        return make((214, 150, 88), (236, 214, 190), 0.35, (0.66, 0.6, 0.55), (0.5, 0.6, 0.68), 900)
    if name == "cloudy":
        return make(
            (206, 178, 150), (230, 222, 214), 0.8, (0.8, 0.76, 0.72), (0.2, 0.24, 0.26), 600
        )
    if name == "overcast":
        return make((188, 184, 180), (218, 216, 213), 1.0, (0.82, 0.8, 0.78), (0.1, 0.1, 0.1), 420)
    if name == "dusk":
        return make(
            (150, 92, 84), (120, 160, 232), 0.5, (0.56, 0.45, 0.45), (0.16, 0.3, 0.46), 500,
            night=0.45, grain=4.0,
        )  # fmt: skip
    if name == "night":
        return make(
            (58, 40, 30), (92, 76, 72), 0.4, (0.33, 0.28, 0.26), (0.05, 0.06, 0.07), 380,
            night=1.0, grain=6.0,
        )  # fmt: skip
    if name == "rain":
        return make(
            (150, 146, 142), (178, 175, 172), 1.0, (0.66, 0.64, 0.62), (0.05, 0.05, 0.05), 190,
            wet=0.9, rain=1.0, night=0.2, grain=4.0,
        )  # fmt: skip
    return make(
        (208, 206, 203), (212, 210, 208), 1.0, (0.8, 0.79, 0.78), (0.05, 0.05, 0.05), 75, wet=0.15
    )


WEATHERS = ("sunny", "overcast", "rain", "cloudy", "dusk", "sunny", "fog", "cloudy", "night")


def light_of(rng: np.random.Generator, stratum: int) -> Light:
    """The light of one scene. Strata follow each other so that nearby seeds differ in weather."""
    return _light(rng, WEATHERS[stratum % len(WEATHERS)])
