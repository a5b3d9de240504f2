"""The sky and the far skyline: one wide picture that slides as the camera turns."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape import ids
from calibration.streetscape.geometry import Lens, View
from calibration.streetscape.materials import Light, clouds, noise, to_bytes, to_colour

Bytes = npt.NDArray[np.uint8]

# How far the picture reaches beyond the frame on each side, radians of turn.
_REACH = 0.5


class Sky:
    """Everything above the ground that is too far away to move."""

    def __init__(self, rng: np.random.Generator, light: Light, lens: Lens) -> None:
        self._margin = round(_REACH * lens.focal)
        width = lens.width + 2 * self._margin
        self._below = round(0.03 * lens.height)
        self._horizon = round(lens.horizon)
        height = self._horizon + self._below + round(0.06 * lens.height)
        # Drawn small: clouds have no sharp edges, and the random numbers do not depend on size.
        rows, columns = 160, 720
        ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 0.8
        top, low = np.array(light.sky_top, np.float32), np.array(light.sky_low, np.float32)
        image = top * (1 - ramp) + low * ramp
        cover = clouds(rng, rows, columns, 90, 5) * 0.5 + clouds(rng, rows, columns, 40, 4) * 0.35
        amount = np.clip((cover + 1.6 * light.cloudiness - 0.9) * 1.4, 0, 1)[..., None]
        shade = (0.93 + 0.12 * clouds(rng, rows, columns, 60, 4))[..., None]
        white = np.clip(low * 1.05 * shade, 0, 255)
        image = image + (white - image) * amount * (0.75 - 0.45 * ramp)
        sky = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        self._image = to_bytes(sky)
        self._labels = np.full((height, width), ids.SKY, np.uint8)
        self._skyline(rng, light, lens)

    def _skyline(self, rng: np.random.Generator, light: Light, lens: Lens) -> None:
        """Roofs and woods along the horizon, in the haze."""
        height, width = self._labels.shape
        unit = lens.focal / 260.0  # pixels per metre at the distance they stand
        columns = np.arange(width) / unit
        count = round(width / unit) + 1
        wood = noise(rng, 1, 512, (1, 9))[0] * 2.0 + noise(rng, 1, 512, (1, 3))[0] * 0.8 + 7
        tops = np.interp(columns, np.arange(512) * 1.6, wood)
        tops = np.maximum(tops, 2.5)
        base = self._horizon + self._below
        veil = np.array(light.haze)
        share = float(np.exp(-260 / light.visibility))
        green = np.array((62.0, 96.0, 80.0)) * light.gain(0.4)
        rows = np.arange(height)[:, None]
        mask = (rows >= self._horizon - tops * unit) & (rows < height)
        self._image[mask] = to_colour(veil * (1 - share) + green * share)
        self._labels[mask] = ids.VEGETATION
        at = 0.0
        while at < count:
            wide, tall = float(rng.uniform(10, 30)), float(rng.uniform(7, 20))
            if rng.random() < 0.55:
                tone = light.gain(0.3) * np.array((0.95, 1.0, 1.02)) * float(rng.uniform(90, 190))
                colour = to_colour(veil * (1 - share) + tone * share)
                x0, x1 = round(at * unit), round((at + wide) * unit)
                y0 = max(round(self._horizon - tall * unit), 0)
                self._image[y0:, x0:x1] = colour
                self._labels[y0:, x0:x1] = ids.BUILDING
                window = to_colour(colour * 0.8)
                step = max(2, round(3.2 * unit))
                for y in range(y0 + step // 2, base, step):
                    self._image[y : y + max(1, step // 3), x0 + 1 : x1 - 1 : 2] = window
            at += wide + float(rng.uniform(0, 25))

    def draw(self, view: View, bgr: Bytes, labels: Bytes) -> int:
        """Fill the rows above the ground; returns the first row below the picture."""
        turn = round(np.clip(view.heading * view.lens.focal, -self._margin, self._margin))
        left, width = self._margin + int(turn), labels.shape[1]
        # Row r of the frame shows row r + lift of the picture, the top row above it.
        lift = self._horizon - round(view.horizon)
        start = max(-lift, 0)
        end = min(self._image.shape[0] - lift, labels.shape[0])
        bgr[:start] = self._image[0, left : left + width]
        labels[:start] = ids.SKY
        bgr[start:end] = self._image[start + lift : end + lift, left : left + width]
        labels[start:end] = self._labels[start + lift : end + lift, left : left + width]
        return int(end)
