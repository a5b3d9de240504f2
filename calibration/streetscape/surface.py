"""The texture of the ground: what makes asphalt, slabs and grass more than one colour."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape.geometry import View
from calibration.streetscape.layout import Plan
from calibration.streetscape.materials import noise, to_bytes

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

_DENSITY = 32  # texture pixels per metre, both ways
_LENGTH = 32  # metres after which it repeats
_HALF = 24  # metres from the centre line to its edge
# From which depth on it is used blurred over how many pixels along the road: with foreshortening
# a pixel covers more and more of it that way.
_BANDS = ((0.0, 1), (9.0, 4), (20.0, 16), (42.0, 64))


class Surface:
    """Brightness of the ground seen from above, laid into the picture by ``draw``."""

    def __init__(self, rng: np.random.Generator, plan: Plan) -> None:
        full = _paint(rng, plan)
        self._levels = [full]
        for _, blur in _BANDS[1:]:
            wrapped = cv2.copyMakeBorder(full, blur, blur, 0, 0, cv2.BORDER_WRAP)
            level = cv2.blur(wrapped, (1 + blur // 16, blur))
            self._levels.append(np.ascontiguousarray(level[blur : blur + full.shape[0]]))

    def draw(self, view: View, first: int) -> Bytes:
        """Brightness (H - first, W) uint8 of the rows from ``first`` down; 128 is neutral.

        Each row of the picture shows one depth, so its texture row and the linear map of its
        columns follow from the camera in closed form (see ``geometry``).
        """
        lens = view.lens
        rows = np.arange(first, lens.height, dtype=np.float64)
        depth = np.asarray(lens.focal * view.height / (rows - view.horizon), np.float64)
        s = view.s + depth
        step = (depth / lens.focal * _DENSITY).astype(np.float32)[:, None]
        start = ((_HALF - view.shifts(s)) * _DENSITY).astype(np.float32)[:, None]
        along = (np.mod(s, _LENGTH) * _DENSITY).astype(np.float32)[:, None]
        columns = (np.arange(lens.width) - view.centre).astype(np.float32)[None, :]
        value = np.empty((len(rows), lens.width), np.uint8)
        limits = [depth for depth, _ in _BANDS[1:]] + [np.inf]
        end = len(rows)
        for limit, level in zip(limits, self._levels, strict=True):
            begin = int(np.searchsorted(-depth, -limit))
            if begin < end:
                across = columns * step[begin:end] + start[begin:end]
                down = np.repeat(along[begin:end], lens.width, 1)
                part = value[begin:end]
                cv2.remap(level, across, down, cv2.INTER_LINEAR, part, cv2.BORDER_WRAP)
                end = begin
        return value


def _paint(rng: np.random.Generator, plan: Plan) -> Bytes:
    rows, columns = _LENGTH * _DENSITY, 2 * _HALF * _DENSITY
    value = np.full((rows, columns), 128, np.float32)
    # Grains are long: seen from a car they are foreshortened four times and more.
    value += 5.0 * noise(rng, rows, columns, (7, 2)) + 3.0 * noise(rng, rows, columns, (24, 5))
    value += 3.0 * noise(rng, rows, columns, (110, 40))
    u = (np.arange(columns) / _DENSITY - _HALF)[None, :].astype(np.float32)
    for side, sign in zip(plan.sides, (-1, 1), strict=True):
        for lane in side.lanes:
            # Tyres polish two tracks; oil drips between them.
            for at, wide in ((-0.8, 0.35), (0.8, 0.35), (0.0, 0.25)):
                value -= 7 * np.exp(-(((u - sign * lane - at) / wide) ** 2))
        _slabs(rng, value, sign * side.verge, sign * side.front)
        _roughen(rng, value, sign * side.kerb, sign * side.verge)
        _roughen(rng, value, sign * side.front, sign * _HALF)
    if plan.tram_bed:
        _roughen(rng, value, -plan.median, plan.median)
    for _ in range(8):
        side_sign = int(rng.choice([-1, 1]))
        edge = plan.sides[0 if side_sign < 0 else 1].kerb
        at = side_sign * float(rng.uniform(plan.median + 0.6, edge - 0.8))
        _blemish(rng, value, _column(at))
    return to_bytes(value)


def _column(u: float) -> int:
    return int(np.clip(round((u + _HALF) * _DENSITY), 0, 2 * _HALF * _DENSITY))


def _between(value: Singles, u0: float, u1: float) -> Singles:
    low, high = sorted((_column(u0), _column(u1)))
    return value[:, low:high]


def _slabs(rng: np.random.Generator, value: Singles, near: float, far: float) -> None:
    part = _between(value, near, far)
    step = _DENSITY if rng.random() < 0.5 else _DENSITY // 2
    down, across = part.shape[0] // step + 1, part.shape[1] // step + 1
    tone = (6 * rng.standard_normal((down, across))).astype(np.float32)
    part += np.repeat(np.repeat(tone, step, 0), step, 1)[: part.shape[0], : part.shape[1]]
    part[::step] -= 26
    part[1::step] -= 12
    part[:, ::step] -= 26


def _roughen(rng: np.random.Generator, value: Singles, u0: float, u1: float) -> None:
    part = _between(value, u0, u1)
    if part.shape[1] > 4:
        rows, columns = part.shape
        part += 17 * noise(rng, rows, columns, (8, 3)) + 17 * noise(rng, rows, columns, (50, 16))


def _blemish(rng: np.random.Generator, value: Singles, x: int) -> None:
    y = int(rng.integers(40, value.shape[0] - 160))
    kind = int(rng.integers(3))
    if kind == 0:  # a mended rectangle
        wide, long = int(rng.integers(20, 60)), int(rng.integers(30, 120))
        value[y : y + long, x : x + wide] += float(rng.choice([-18, -12, 10]))
    elif kind == 1:  # a manhole
        cv2.circle(value, (x, y), round(0.33 * _DENSITY), 96.0, -1)
        cv2.circle(value, (x, y), round(0.33 * _DENSITY), 74.0, 2)
    else:  # a crack
        steps = rng.integers(-7, 8, (14, 2))
        steps[:, 1] += 7
        path = np.cumsum(steps, 0) + np.array([x, y - 30])
        cv2.polylines(value, [path.astype(np.int32)], False, (84.0,), 2)
