"""The ground: roadway, kerbs, pavements, grass, markings, and what shades them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from calibration.streetscape import ids
from calibration.streetscape.air import Air
from calibration.streetscape.canvas import SHIFT, Canvas, fixed
from calibration.streetscape.geometry import View
from calibration.streetscape.layout import Plan, crossings_near
from calibration.streetscape.materials import Light
from calibration.streetscape.surface import Surface

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Colour = tuple[float, ...]
Strip = tuple[float, float, Colour, int | None]

_DEPTHS = np.geomspace(1.5, 230.0, 34)
_SHADE = 118  # of 255, how bright shadowed ground is
_PLAIN = 124  # texture brightness of plain asphalt; 128 is neutral
_PAVINGS = ((138, 144, 148), (128, 140, 156), (120, 132, 160))
_DASH, _GAP = 3.6, 5.4  # metres


class Ground:
    """The ground of one street."""

    def __init__(self, rng: np.random.Generator, light: Light, plan: Plan) -> None:
        self._plan = plan
        self._surface = Surface(rng, plan)
        tone = float(rng.uniform(0.85, 1.15)) * (0.72 if light.wet > 0.5 else 1.0)
        gain = light.gain(0.72)

        def lit(colour: tuple[int, int, int], factor: float = 1.0) -> Colour:
            return tuple(float(v) for v in np.clip(np.array(colour) * gain * factor, 0, 255))

        self._asphalt = lit((104, 100, 98), tone)
        self._paving = lit(_PAVINGS[int(rng.integers(3))], tone)
        self._paint = lit((205, 210, 212))
        self._centre = lit((60, 170, 200)) if rng.random() < 0.2 else self._paint
        self._strips = self._cross_section(
            lit((58, 106, 92)),
            lit((112, 108, 105), tone),
            lit((170, 172, 172), tone),
            lit((80, 84, 88)),
        )
        self._edges = np.array(
            [[u for u, _, _, _ in self._strips], [u for _, u, _, _ in self._strips]]
        )
        self._grass = lit((58, 106, 92))
        self._solid, self._dashed = self._lines()

    def _cross_section(
        self, grass: Colour, shoulder: Colour, kerb: Colour, rail: Colour
    ) -> list[Strip]:
        """From the left of the road to its right, in drawing order."""
        plan, (left, right) = self._plan, self._plan.sides
        strips: list[Strip] = [(-left.front, right.front, self._paving, ids.SIDEWALK)]
        for side, sign in ((left, -1), (right, 1)):
            if side.verge > side.kerb:
                strips.append((sign * side.kerb, sign * side.verge, grass, ids.TERRAIN))
            strips.append((sign * side.kerb, sign * (side.kerb + 0.18), kerb, ids.SIDEWALK))
        strips.append((-left.kerb, right.kerb, self._asphalt, ids.ROAD))
        for side, sign in ((left, -1), (right, 1)):
            strips.append((sign * side.lane_edge, sign * side.kerb, shoulder, ids.ROAD))
        if plan.tram_bed:
            strips.append((-plan.median, plan.median, grass, ids.TERRAIN))
        elif 0 < plan.median < 2:
            strips.append((0.3 - plan.median, plan.median - 0.3, self._paving, ids.SIDEWALK))
        if plan.tram:
            rails = (-2.27, -0.83, 0.83, 2.27)
            strips += [(u - 0.05, u + 0.05, rail, None) for u in rails]
        return strips

    def _lines(self) -> tuple[list[tuple[float, Colour]], list[tuple[float, Colour]]]:
        """Where solid and dashed lines run, and their colours."""
        plan = self._plan
        solid: list[tuple[float, Colour]] = []
        dashed: list[tuple[float, Colour]] = []
        if plan.median < 0.1:
            solid += [(-0.12, self._centre), (0.12, self._centre)]
        elif plan.tram and not plan.tram_bed:
            solid += [(-plan.median, self._paint), (plan.median, self._paint)]
        for side, sign in zip(plan.sides, (-1, 1), strict=True):
            dashed += [(sign * (lane - plan.lane / 2), self._paint) for lane in side.lanes[1:]]
            (dashed if side.parking else solid).append((sign * side.lane_edge, self._paint))
        return solid, dashed

    def draw(self, canvas: Canvas, view: View, top: int, shadows: Floats, air: Air) -> None:
        """Draw the ground from row ``top`` down, darkened inside ``shadows`` (n, 4, 2)."""
        cv2.rectangle(canvas.bgr, (0, top), canvas.labels.shape[::-1], self._grass, -1)
        canvas.labels[top:] = ids.TERRAIN
        s = view.s + _DEPTHS
        edges = fixed(view.project(s, self._edges[..., None], 0.0))
        for i, (_, _, colour, label) in enumerate(self._strips):
            outline = [np.concatenate([edges[0, i], edges[1, i, ::-1]])]
            cv2.fillPoly(canvas.bgr, outline, colour, cv2.LINE_AA, SHIFT)
            if label is not None:
                cv2.fillPoly(canvas.labels, outline, (label,), cv2.LINE_8, SHIFT)
        for crossing in crossings_near(self._plan, view.s):
            self._crossing(canvas, view, crossing)
        self._markings(canvas, view)
        self._shade(canvas, view, top, shadows, air)

    def _crossing(self, canvas: Canvas, view: View, s: float) -> None:
        """A side street, its pavements, and the zebra crossings before and after it."""
        plan, half = self._plan, self._plan.crossing_width / 2
        left, right = plan.sides
        wide = (s - half - 3.5, s + half + 3.5)
        self._patch(canvas, view, wide, (-70.0, -left.front), self._paving, ids.SIDEWALK)
        self._patch(canvas, view, wide, (right.front, 70.0), self._paving, ids.SIDEWALK)
        self._patch(canvas, view, (s - half, s + half), (-70.0, 70.0), self._asphalt, ids.ROAD)
        stop, lane = s - half - 5.4, (plan.median + 0.1, right.lane_edge - 0.1)
        self._patch(canvas, view, (stop, stop + 0.4), lane, self._paint, None)
        bars = np.arange(-left.kerb + 0.4, right.kerb - 0.5, 1.0)
        for start in (s - half - 4.2, s + half + 1.2):
            self._bars(
                canvas, view, np.full_like(bars, start), np.full_like(bars, start + 3.0), bars, 0.5
            )

    def _patch(
        self,
        canvas: Canvas,
        view: View,
        along: tuple[float, float],
        across: tuple[float, float],
        colour: Colour,
        label: int | None,
    ) -> None:
        corners = _rectangle(view, along, across)
        if corners is not None:
            canvas.convex(corners, colour, label)

    def _bars(
        self, canvas: Canvas, view: View, start: Floats, end: Floats, u: Floats, width: float,
        colours: list[Colour] | None = None,
    ) -> None:  # fmt: skip
        """Painted rectangles from ``start`` to ``end`` (s), ``width`` wide from ``u`` on."""
        seen = end > view.s + 1.5
        start, end, u = np.maximum(start[seen], view.s + 1.2), end[seen], u[seen]
        if not len(u):
            return
        s = np.stack([start, start, end, end], 1)
        corners = fixed(view.project(s, np.stack([u, u + width, u + width, u], 1), 0.0))
        tones = [self._paint] * len(u) if colours is None else [
            c for c, k in zip(colours, seen, strict=True) if k
        ]  # fmt: skip
        for quad, tone in zip(corners, tones, strict=True):
            cv2.fillConvexPoly(canvas.bgr, quad, tone, cv2.LINE_AA, SHIFT)

    def _markings(self, canvas: Canvas, view: View) -> None:
        """Lane lines, interrupted at crossings."""
        half, width = self._plan.crossing_width / 2 + 5.8, 0.13
        gaps = crossings_near(self._plan, view.s)
        starts, ends, us, colours = [], [], [], []
        step = _DASH + _GAP
        base = math.floor(view.s / step) * step
        for lines, reach, dash in ((self._solid, 150.0, step), (self._dashed, 100.0, _DASH)):
            for i in range(math.ceil(reach / step)):
                a, b = base + i * step, base + i * step + dash
                if all(b < gap - half or a > gap + half for gap in gaps):
                    for u, colour in lines:
                        starts.append(a)
                        ends.append(b)
                        us.append(u - width / 2)
                        colours.append(colour)
        self._bars(canvas, view, np.array(starts), np.array(ends), np.array(us), width, colours)

    def _shade(self, canvas: Canvas, view: View, top: int, shadows: Floats, air: Air) -> None:
        lens = view.lens
        first = max(top, int(view.horizon) + 2)
        value = self._surface.draw(view, first)
        self._smooth_crossings(value, view, first)
        if len(shadows):
            shade = np.full(value.shape, 255, np.uint8)
            for corners in fixed(shadows - np.array([0, first])):
                cv2.fillConvexPoly(shade, corners, (_SHADE,), cv2.LINE_8, SHIFT)
            size = max(3, lens.height // 100) | 1
            value = cv2.multiply(value, cv2.blur(shade, (size, size)), scale=1 / 255)
        part = canvas.bgr[first:]
        cv2.multiply(part, cv2.cvtColor(value, cv2.COLOR_GRAY2BGR), dst=part, scale=1 / 128)
        air.veil_ground(part, view, first)

    def _smooth_crossings(self, value: Bytes, view: View, first: int) -> None:
        """Take slabs and grass out of the texture where a side street runs over them."""
        plan, half = self._plan, self._plan.crossing_width / 2
        across = [(-70.0, -plan.sides[0].kerb), (plan.sides[1].kerb, 70.0)]
        if plan.tram_bed:
            across.append((-plan.median, plan.median))
        for s in crossings_near(plan, view.s):
            for reach in across:
                corners = _rectangle(view, (s - half, s + half), reach)
                if corners is not None:
                    points = fixed(corners - np.array([0, first]))
                    cv2.fillConvexPoly(value, points, (_PLAIN,), cv2.LINE_8, SHIFT)


def _rectangle(
    view: View, along: tuple[float, float], across: tuple[float, float]
) -> Floats | None:
    """A rectangle of the ground in the picture (4, 2); None where it is behind the camera."""
    low, high = max(along[0], view.s + 1.0), along[1]
    if high < view.s + 1.2:
        return None
    s, (u0, u1) = np.array([low, low, high, high]), across
    return view.project(s, np.array([u0, u1, u1, u0]), 0.0)
