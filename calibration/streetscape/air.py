"""What lies between the street and the picture: haze, rain, wet ground, the sensor's grain."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape import ids
from calibration.streetscape.canvas import Canvas
from calibration.streetscape.geometry import Lens, View
from calibration.streetscape.materials import Light, gain_lut

Bytes = npt.NDArray[np.uint8]


class Air:
    """The air and camera of one scene."""

    def __init__(self, rng: np.random.Generator, light: Light, lens: Lens) -> None:
        self._light, self._lens = light, lens
        count = 7 if light.visibility < 150 else 4 if light.visibility < 450 else 2
        self._depths = [float(d) for d in np.geomspace(160.0, 9.0 if count > 2 else 30.0, count)]
        nearer = [*self._depths[1:], 0.0]
        self._luts = []
        for depth, end in zip(self._depths, nearer, strict=True):
            share = float(np.exp(-(depth - end) / light.visibility))
            self._luts.append(gain_lut(np.full(3, share), (1 - share) * np.array(light.haze)))
        height, width = lens.height, lens.width
        # A patch of grain, repeated: nobody sees that, and it is quicker drawn.
        size = (height // 2 + 32, width // 2 + 32)
        patch = rng.standard_normal((*size, 1), np.float32) * light.grain
        patch = patch + rng.standard_normal((*size, 3), np.float32) * (light.grain * 0.5)
        patch = np.clip(np.rint(patch + 128), 0, 255).astype(np.uint8)
        self._grain = np.ascontiguousarray(np.tile(patch, (2, 2, 1)))
        self._rain = self._streaks(rng) if light.rain > 0 else None
        self._offsets = rng.integers(0, 64, (251, 4))

    @property
    def depths(self) -> list[float]:
        """Depths at which what lies beyond is veiled, far ones first."""
        return self._depths

    def veil(self, canvas: Canvas, view: View, layer: int) -> None:
        """Draw the haze between one depth and the next nearer one over all drawn so far."""
        row = view.horizon + view.lens.focal * view.height / self._depths[layer]
        canvas.haze(min(math.ceil(row), view.lens.height), self._luts[layer])

    def veil_ground(self, part: Bytes, view: View, first: int) -> None:
        """Make haze rise smoothly over the ground, whose rows from ``first`` on ``part`` is.

        The layers veil all between two depths alike. This adds what lies between the nearer of
        the two and the ground itself, so that no layer's edge shows on the road.
        """
        rows = np.arange(first, first + len(part))
        depth = view.lens.focal * view.height / np.maximum(rows - view.horizon, 0.5)
        steps = np.array([0.0, *self._depths[::-1]])
        within = depth - steps[np.searchsorted(steps, depth) - 1]
        clear = np.exp(-within / self._light.visibility)
        gain = np.repeat(np.rint(255 * clear), 3).astype(np.uint8).reshape(-1, 1, 3)
        veil = np.rint((1 - clear)[:, None, None] * np.array(self._light.haze)).astype(np.uint8)
        cv2.multiply(part, _widened(gain, part.shape[1]), dst=part, scale=1 / 255)
        cv2.add(part, _widened(veil, part.shape[1]), dst=part)

    def _streaks(self, rng: np.random.Generator) -> Bytes:
        height, width = self._lens.height, self._lens.width
        sheet = np.zeros((height * 2, width + 64), np.uint8)
        unit = height / 512
        for _ in range(900):
            x, y = int(rng.integers(width + 64)), int(rng.integers(height * 2))
            long = float(rng.uniform(8, 34)) * unit
            tone = int(rng.integers(10, 34))
            end = (round(x - long * 0.12), round(y + long))
            cv2.line(sheet, (x, y), end, tone, max(1, round(unit)), cv2.LINE_AA)
        return np.asarray(cv2.cvtColor(sheet, cv2.COLOR_GRAY2BGR), np.uint8)

    def finish(self, canvas: Canvas, view: View, index: int) -> None:
        """Wet reflections, rain and grain over the finished picture."""
        if self._light.wet > 0.1:
            self._mirror(canvas, view)
        height, width = canvas.labels.shape
        dx, dy, _, _ = (int(v) for v in self._offsets[index % len(self._offsets)])
        if self._rain is not None:
            fall = (index * round(height * 0.11) + dy * 3) % height
            streaks = self._rain[height - fall : 2 * height - fall, dx : dx + width]
            cv2.add(canvas.bgr, streaks, dst=canvas.bgr)
        grain = self._grain[dy : dy + height, dx : dx + width]
        cv2.addWeighted(canvas.bgr, 1.0, grain, 1.0, -128.0, dst=canvas.bgr)

    def _mirror(self, canvas: Canvas, view: View) -> None:
        """Mix the scene above the horizon, upside down and smeared, into wet flat ground."""
        height, width = canvas.labels.shape
        first = min(max(int(view.horizon) + 8, 1), height - 1)
        rows = height - first
        quarter = (width // 4, max(1, rows // 6))
        above = canvas.bgr[max(first - rows, 0) : first]
        above = cv2.flip(cv2.resize(above, quarter, interpolation=cv2.INTER_AREA), 0)
        image = cv2.resize(cv2.blur(above, (3, 9)), (width, rows), interpolation=cv2.INTER_LINEAR)
        part = canvas.bgr[first:]
        share = 0.42 * self._light.wet
        mixed = cv2.addWeighted(part, 1 - share, image, share, 0)
        mask = cv2.inRange(canvas.labels[first:], ids.ROAD, ids.SIDEWALK)
        cv2.copyTo(mixed, mask, part)


def _widened(column: Bytes, width: int) -> Bytes:
    """A column (h, 1, 3) repeated ``width`` times."""
    size = (width, column.shape[0])
    return np.asarray(cv2.resize(column, size, interpolation=cv2.INTER_NEAREST), np.uint8)
