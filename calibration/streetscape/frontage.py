"""What lines the street: buildings, walls, fences, hedges, parks, and the shadows they throw."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from calibration.streetscape import facades, ids, plants
from calibration.streetscape.canvas import Canvas, Sprite
from calibration.streetscape.facades import DEEP, Front
from calibration.streetscape.geometry import View
from calibration.streetscape.layout import AHEAD, Lot
from calibration.streetscape.materials import Light
from calibration.streetscape.planes import Texture, across, along
from calibration.streetscape.stage import Draw, Stage

Floats = npt.NDArray[np.float64]

FRONTS = 6
_SLICE = 8.0
_RISE, _INWARD = 3.0, 4.5  # of a pitched roof: to its ridge, metres


class Frontage:
    """The lots of both sides and their pictures."""

    def __init__(self, rng: np.random.Generator, light: Light) -> None:
        # A side faces the sun when the sun stands over the other side.
        facing = (0.75 if light.sun_side > 0 else 0.12, 0.75 if light.sun_side < 0 else 0.12)
        self._light = light
        self._fronts = [[facades.front(rng, light, f) for _ in range(FRONTS)] for f in facing]
        self._walls = [[facades.wall(rng, light, f) for _ in range(2)] for f in facing]
        self._fences = [[facades.fence(rng, light, f) for _ in range(2)] for f in facing]
        self._hedges = [plants.hedge(rng, light, height) for height in (1.2, 1.9)]

    def lengths(self) -> tuple[Floats, Floats]:
        """The lengths of the fronts of either side, metres."""
        left, right = (np.array([f.texture.length for f in side]) for side in self._fronts)
        return left, right

    def place(self, stage: Stage, trees: list[Sprite]) -> None:
        """Put what is visible on the stage, and the shadows of buildings when the sun shines."""
        plan, s0 = stage.plan, stage.view.s
        base = math.floor((s0 - 30) / plan.period) * plan.period
        for k in (0, 1):
            before: Lot | None = None
            for turn in (0, 1):
                for lot in plan.lots[k]:
                    start = base + turn * plan.period + lot.start
                    if start + lot.length > s0 + 1 and start < s0 + AHEAD:
                        self._lot(stage, trees, lot, before, k, start)
                    before = lot

    def _lot(
        self,
        stage: Stage,
        trees: list[Sprite],
        lot: Lot,
        before: Lot | None,
        k: int,
        start: float,
    ) -> None:
        sign = (-1, 1)[k]
        u = sign * (stage.plan.sides[k].front + lot.setback)
        if lot.kind == "building":
            self._building(stage, lot, before, k, start, u)
        elif lot.kind == "park":
            _park(stage, trees, lot, start, u, sign)
        else:
            self._barrier(stage, lot, k, start, u)
            if lot.kind == "fence" and lot.variant == 0:
                _park(stage, trees, lot, start, u + sign * 1.5, sign)

    def _building(
        self, stage: Stage, lot: Lot, before: Lot | None, k: int, start: float, u: float
    ) -> None:
        view, front, sign = stage.view, self._fronts[k][lot.variant], (-1, 1)[k]
        spans = _spans(view, u, start, lot.length)
        for a, b in spans:
            stage.put(b, u, _front(view, front, start, a, b, u, sign))
        hidden = (
            before is not None
            and before.kind == "building"
            and before.setback <= lot.setback
            and abs(before.start + before.length - lot.start) < 0.01
            and self._fronts[k][before.variant].texture.height >= front.texture.height
        )
        if not hidden and start > view.s + 2:
            # Its front hides it where both are seen, so it counts as further to the side.
            far = spans[0][1] if spans else start
            stage.put(far, u + sign * 5, _gable(view, front, start, u, sign))
        if self._light.sun_side == sign and float(self._light.sun.mean()) > 0.3:
            reach = min(0.55 * front.texture.height, 11.0)
            stage.shade(start, start + lot.length, u, u - sign * reach)

    def _barrier(self, stage: Stage, lot: Lot, k: int, start: float, u: float) -> None:
        texture, label, thick = {
            "wall": (self._walls[k][lot.variant], ids.WALL, 0.35),
            "fence": (self._fences[k][lot.variant], ids.FENCE, 0.0),
            "hedge": (self._hedges[lot.variant], ids.VEGETATION, 0.9),
        }[lot.kind]
        for a, b in _spans(stage.view, u, start, lot.length):
            draw = _strip(stage.view, texture, start, a, b, u, (-1, 1)[k] * thick, label)
            stage.put(b, u, draw)


def _spans(view: View, u: float, start: float, length: float) -> list[tuple[float, float]]:
    """The stretch from ``start`` on as far as it is in the picture, in slices."""
    side = abs(u + view.shift(max(start, view.s)))
    near = view.s + max(0.8 * view.lens.focal / (view.centre + 10) * side, 1.0)
    first, last = max(start, near), start + length
    if first >= last - 0.01:
        return []
    count = 1 if first > view.s + 45 else math.ceil((last - first) / _SLICE)
    cuts = [first + (last - first) * i / count for i in range(count + 1)]
    return list(pairwise(cuts))


def _park(stage: Stage, trees: list[Sprite], lot: Lot, start: float, u: float, sign: int) -> None:
    step = 5.5
    for i in range(int(lot.length / step)):
        # Cheap disorder that depends on the place alone.
        mix = (int(lot.start * 10) * 7919 + i * 104729) % 1000 / 1000
        s = start + (i + 0.5 + 0.6 * (mix - 0.5)) * step
        at = u + sign * (2.0 + 9.0 * ((mix * 37) % 1))
        stage.stand(trees[int(mix * 1000) % len(trees)], s, at, mirror=mix < 0.5)


def _front(view: View, front: Front, start: float, a: float, b: float, u: float, sign: int) -> Draw:
    """What draws a slice of a building's front, with its share of the roof."""

    def draw(canvas: Canvas) -> None:
        top = front.texture.height
        if front.pitched:
            inward = u + sign * _INWARD
            s, us = np.array([a, b, b, a]), np.array([u, u, inward, inward])
            slope = view.project(s, us, np.array([top, top, top + _RISE, top + _RISE]))
            canvas.convex(slope, front.roof, ids.BUILDING)
        along(canvas, view, front.texture, start, a, b, u, ids.BUILDING)
        lip = view.upright(a, b, u - sign * 0.25, top - 0.12, top + 0.12)
        canvas.convex(lip, front.trim, ids.BUILDING)

    return draw


def _gable(view: View, front: Front, s: float, u: float, sign: int) -> Draw:
    """What draws the end of a building that looks down the road at the camera."""

    def draw(canvas: Canvas) -> None:
        left, right = sorted((u, u + sign * DEEP))
        if front.pitched:
            top = front.gable.height
            us = np.array([left, right, (left + right) / 2])
            peak = view.project(np.full(3, s), us, np.array([top, top, top + _RISE]))
            canvas.convex(peak, front.gable.mean, ids.BUILDING)
        across(canvas, view, front.gable, s, left, right, ids.BUILDING)

    return draw


def _strip(
    view: View,
    texture: Texture,
    start: float,
    a: float,
    b: float,
    u: float,
    thick: float,
    label: int,
) -> Draw:
    """What draws a slice of wall, fence or hedge, and its near end where it is thick."""

    def draw(canvas: Canvas) -> None:
        if thick:
            left, right = sorted((u, u + thick))
            dark = tuple(0.7 * v for v in texture.mean)
            canvas.convex(view.facing(a, left, right, 0.0, texture.height), dark, label)
        along(canvas, view, texture, start, a, b, u, label)

    return draw
