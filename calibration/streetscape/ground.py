"""The ground: roadway, kerbs, pavements, grass, markings, shadows, and their texture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape import ids
from calibration.streetscape.canvas import Canvas, fixed
from calibration.streetscape.geometry import View
from calibration.streetscape.layout import Plan
from calibration.streetscape.materials import Light, noise, to_bytes

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

_FAR = 230.0
_DENSITY = 32  # texture pixels per metre, both ways
_LENGTH = 32  # metres after which the texture repeats
_HALF = 24  # metres from the centre line to the texture's edge
# From which depth on which texture is used: blurred along the road as it foreshortens.
_BANDS = ((0.0, 1), (9.0, 4), (20.0, 16), (42.0, 64))


class Ground:
    """The ground of one street."""

    def __init__(self, rng: np.random.Generator, light: Light, plan: Plan) -> None:
        self._plan, self._light = plan, light
        tone = float(rng.uniform(0.85, 1.15)) * (0.72 if light.wet > 0.5 else 1.0)
        gain = light.gain(0.72)

        def lit(b: float, g: float, r: float, k: float = 1.0) -> tuple[float, ...]:
            return tuple(float(v) for v in np.clip(np.array((b, g, r)) * gain * k, 0, 255))

        self._asphalt = lit(104, 100, 98, tone)
        self._shoulder = lit(112, 108, 105, tone)
        self._paving = lit(
            *((138, 144, 148), (128, 140, 156), (120, 132, 160))[int(rng.integers(3))], tone
        )
        self._kerb = lit(170, 172, 172, tone)
        self._grass = lit(58, 110, 92)
        self._paint = lit(205, 210, 212)
        self._rail = lit(80, 84, 88)
        self._cycle = lit(*((92, 86, 140), (104, 100, 98))[int(rng.integers(2))], tone)
        self._yellow = lit(60, 170, 200) if rng.random() < 0.2 else self._paint
        self._textures = [self._texture(rng)]
        for _, blur in _BANDS[1:]:
            blurred = cv2.blur(
                cv2.copyMakeBorder(self._textures[0], blur, blur, 0, 0, cv2.BORDER_WRAP),
                (1 + blur // 16, blur),
            )
            rows = _LENGTH * _DENSITY
            self._textures.append(np.ascontiguousarray(blurred[blur : blur + rows]))
        steps = np.geomspace(1.5, _FAR, 44)
        self._steps = steps

    def _texture(self, rng: np.random.Generator) -> Bytes:
        """Brightness seen from above, 128 is neutral: rows along the road, columns across it."""
        rows, columns = _LENGTH * _DENSITY, 2 * _HALF * _DENSITY
        value = np.full((rows, columns), 128, np.float32)
        value += 6.0 * noise(rng, rows, columns, (2, 2))
        value += 6.0 * noise(rng, rows, columns, (7, 6)) + 5.0 * noise(rng, rows, columns, (60, 40))
        u = (np.arange(columns) / _DENSITY - _HALF)[None, :]
        plan = self._plan
        for side, sign in zip(plan.sides, (-1, 1), strict=True):
            for lane in side.lanes:
                for track in (-0.8, 0.8):
                    value -= 7 * np.exp(-(((u - sign * lane - track) / 0.35) ** 2)).astype(
                        np.float32
                    )
                value -= 6 * np.exp(-(((u - sign * lane) / 0.25) ** 2)).astype(np.float32)
            self._pave(rng, value, sign, side.verge, side.front)
            x0, x1 = sorted((sign * side.kerb, sign * side.verge))
            self._roughen(rng, value, x0, x1, 20)
            outer = sorted((sign * side.front, sign * _HALF))
            self._roughen(rng, value, outer[0], outer[1], 18)
        inner = min(s.kerb for s in plan.sides) - 0.3
        for _ in range(7):
            self._patch(rng, value, inner)
        return to_bytes(value)

    def _pave(
        self, rng: np.random.Generator, value: Singles, sign: int, near: float, far: float
    ) -> None:
        x0, x1 = sorted((self._column(sign * near), self._column(sign * far)))
        part = value[:, x0:x1]
        step = _DENSITY if rng.random() < 0.5 else _DENSITY // 2
        slabs = rng.standard_normal((part.shape[0] // step + 1, part.shape[1] // step + 1)) * 6
        big = np.kron(slabs, np.ones((step, step)))[: part.shape[0], : part.shape[1]]
        part += big.astype(np.float32)
        part[::step] -= 30
        part[1::step] -= 12
        part[:, ::step] -= 30

    def _roughen(
        self, rng: np.random.Generator, value: Singles, x0: float, x1: float, by: float
    ) -> None:
        part = value[:, self._column(x0) : self._column(x1)]
        if part.shape[1] > 4:
            part += by * noise(rng, part.shape[0], part.shape[1], (3, 3))
            part += by * noise(rng, part.shape[0], part.shape[1], (20, 16))

    def _patch(self, rng: np.random.Generator, value: Singles, reach: float) -> None:
        rows = value.shape[0]
        x, y = self._column(float(rng.uniform(-reach, reach))), int(rng.integers(40, rows - 160))
        kind = int(rng.integers(3))
        if kind == 0:  # a mended rectangle
            w, h = int(rng.integers(20, 60)), int(rng.integers(30, 120))
            value[y : y + h, x : x + w] += float(rng.choice([-20, -14, 12]))
        elif kind == 1:  # a manhole
            cv2.circle(value, (x, y), round(0.33 * _DENSITY), 92.0, -1)
            cv2.circle(value, (x, y), round(0.33 * _DENSITY), 70.0, 2)
        else:  # a crack
            path = np.cumsum(rng.integers(-7, 8, (14, 2)) + [0, 7], 0) + [x, y - 30]
            cv2.polylines(value, [path.astype(np.int32)], False, 78.0, 2)

    @staticmethod
    def _column(u: float) -> int:
        return int(np.clip(round((u + _HALF) * _DENSITY), 0, 2 * _HALF * _DENSITY))

    def draw(self, canvas: Canvas, view: View, top: int, shadows: list[Floats]) -> None:
        """Draw the ground from row ``top`` down, darkened inside ``shadows`` (convex, pixels)."""
        canvas.bgr[top:] = self._grass
        canvas.labels[top:] = ids.TERRAIN
        self._strips(canvas, view)
        self._crossings(canvas, view)
        self._markings(canvas, view)
        self._shade(canvas, view, top, shadows)

    def _strips(self, canvas: Canvas, view: View) -> None:
        left, right = self._plan.sides
        self._strip(canvas, view, -left.front, right.front, self._paving, ids.SIDEWALK)
        for side, sign in ((left, -1), (right, 1)):
            if side.verge > side.kerb:
                self._strip(
                    canvas, view, sign * side.kerb, sign * side.verge, self._grass, ids.TERRAIN
                )
            self._strip(
                canvas, view, sign * side.kerb, sign * (side.kerb + 0.18), self._kerb, ids.SIDEWALK
            )
        self._strip(canvas, view, -left.kerb, right.kerb, self._asphalt, ids.ROAD)
        for side, sign in ((left, -1), (right, 1)):
            self._strip(
                canvas, view, sign * side.lane_edge, sign * side.kerb, self._shoulder, ids.ROAD
            )
        if self._plan.tram_bed:
            self._strip(
                canvas, view, -self._plan.median, self._plan.median, self._grass, ids.TERRAIN
            )
        elif 0 < self._plan.median < 2:
            self._strip(
                canvas,
                view,
                -self._plan.median + 0.3,
                self._plan.median - 0.3,
                self._paving,
                ids.SIDEWALK,
            )
        if self._plan.tram:
            for track in (-1.55, 1.55):
                for rail in (-0.72, 0.72):
                    u = track + rail
                    self._strip(canvas, view, u - 0.05, u + 0.05, self._rail, None)

    def _strip(
        self,
        canvas: Canvas,
        view: View,
        u0: float,
        u1: float,
        colour: tuple[float, ...],
        label: int | None,
    ) -> None:
        s = view.s + self._steps
        zero = np.zeros_like(s)
        edges = view.project(
            np.concatenate([s, s[::-1]]),
            np.concatenate([zero + u0, zero + u1]),
            np.zeros(2 * len(s)),
        )
        canvas.polygon(edges, colour, label)

    def _quad(
        self,
        canvas: Canvas,
        view: View,
        s: tuple[float, float],
        u: tuple[float, float],
        colour: tuple[float, ...],
        label: int | None,
    ) -> None:
        if s[1] < view.s + 1.2:
            return
        low = max(s[0], view.s + 1.0)
        corners = view.project(
            np.array([low, low, s[1], s[1]]), np.array([u[0], u[1], u[1], u[0]]), np.zeros(4)
        )
        canvas.convex(corners, colour, label)

    def _crossings(self, canvas: Canvas, view: View) -> None:
        plan = self._plan
        left, right = plan.sides
        half = plan.crossing_width / 2
        for s in crossings_near(plan, view.s):
            for sign, side in ((-1, left), (1, right)):
                outer = sorted((sign * side.front, sign * 70.0))
                self._quad(
                    canvas,
                    view,
                    (s - half - 3.5, s + half + 3.5),
                    (outer[0], outer[1]),
                    self._paving,
                    ids.SIDEWALK,
                )
            self._quad(canvas, view, (s - half, s + half), (-70.0, 70.0), self._asphalt, ids.ROAD)
            if plan.tram_bed:
                self._quad(
                    canvas,
                    view,
                    (s - half, s + half),
                    (-plan.median, plan.median),
                    self._asphalt,
                    ids.ROAD,
                )
            for edge in (s - half - 4.2, s + half + 1.2):
                u = -left.kerb + 0.4
                while u < right.kerb - 0.5:
                    self._quad(canvas, view, (edge, edge + 3.0), (u, u + 0.5), self._paint, None)
                    u += 1.0
            self._quad(
                canvas,
                view,
                (s - half - 5.6, s - half - 5.1),
                (plan.median, right.lane_edge),
                self._paint,
                None,
            )

    def _markings(self, canvas: Canvas, view: View) -> None:
        plan = self._plan
        middle = (0.0,) if not plan.tram else (-plan.median, plan.median)
        if plan.median < 0.1:
            for u in (-0.12, 0.12):
                self._dashes(canvas, view, u, 0.11, self._yellow, solid=True)
        elif not plan.tram_bed:
            for u in middle:
                self._dashes(canvas, view, u, 0.14, self._paint, solid=True)
        for side, sign in zip(plan.sides, (-1, 1), strict=True):
            for lane in side.lanes[1:]:
                self._dashes(
                    canvas, view, sign * (lane - plan.lane / 2), 0.13, self._paint, solid=False
                )
            self._dashes(
                canvas, view, sign * side.lane_edge, 0.13, self._paint, solid=not side.parking
            )

    def _dashes(
        self,
        canvas: Canvas,
        view: View,
        u: float,
        width: float,
        colour: tuple[float, ...],
        *,
        solid: bool,
    ) -> None:
        step, dash = (9.0, 9.0) if solid else (9.0, 3.6)
        half = self._plan.crossing_width / 2 + 5.0
        gaps = crossings_near(self._plan, view.s)
        start = np.arange(np.floor(view.s / step) * step, view.s + (150 if solid else 100), step)
        end = start + dash
        clear = np.ones(len(start), bool)
        for gap in gaps:
            clear &= (end < gap - half) | (start > gap + half)
        start, end = np.maximum(start[clear], view.s + 1.2), end[clear]
        start, end = start[end > view.s + 1.5], end[end > view.s + 1.5]
        if not len(start):
            return
        s = np.stack([start, start, end, end], 1)
        us = np.broadcast_to(
            np.array([u - width / 2, u + width / 2, u + width / 2, u - width / 2]), s.shape
        )
        corners = fixed(view.project(s, us, np.zeros_like(s)))
        for quad in corners:
            cv2.fillConvexPoly(canvas.bgr, quad, colour, cv2.LINE_AA, 4)

    def _shade(self, canvas: Canvas, view: View, top: int, shadows: list[Floats]) -> None:
        lens = view.lens
        first = max(top, int(view.horizon) + 2)
        rows = np.arange(first, lens.height)
        depth = lens.focal * view.height / (rows - view.horizon)
        s = view.s + depth
        per_column = (depth / lens.focal * _DENSITY).astype(np.float32)
        shift = view.shift(s)
        start = ((_HALF - shift) * _DENSITY).astype(np.float32)
        columns = (np.arange(lens.width) - view.centre).astype(np.float32)
        along = (np.mod(s, _LENGTH) * _DENSITY).astype(np.float32)
        value = np.empty((len(rows), lens.width), np.uint8)
        limits = [d for d, _ in _BANDS[1:]] + [-1.0]
        end = len(rows)
        for limit, texture in zip(limits, self._textures, strict=True):
            begin = int(np.searchsorted(-depth, -limit)) if limit > 0 else 0
            if begin >= end:
                continue
            across = columns[None, :] * per_column[begin:end, None]
            across += start[begin:end, None]
            down = np.repeat(along[begin:end, None], lens.width, 1)
            cv2.remap(texture, across, down, cv2.INTER_LINEAR, value[begin:end], cv2.BORDER_WRAP)
            end = begin
        if shadows:
            shade = np.full(value.shape, 255, np.uint8)
            for shadow in shadows:
                cv2.fillConvexPoly(shade, fixed(shadow - [0, first]), 118, cv2.LINE_8, 4)
            size = max(3, lens.height // 100) | 1
            value = cv2.multiply(value, cv2.blur(shade, (size, size)), scale=1 / 255)
        part = canvas.bgr[first:]
        cv2.multiply(part, cv2.cvtColor(value, cv2.COLOR_GRAY2BGR), dst=part, scale=1 / 128)


def crossings_near(plan: Plan, s: float) -> list[float]:
    """Where side streets cross, from behind the camera to as far as it sees, far ones first."""
    base = np.floor((s - 30) / plan.period) * plan.period
    every = [base + k * plan.period + c for k in (0, 1) for c in plan.crossings]
    return [float(c) for c in sorted(every, reverse=True) if s - 30 < c < s + 190]
