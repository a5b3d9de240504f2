"""What lines the street: fronts of buildings, walls, fences, hedges, parks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from calibration.streetscape import facades, ids, plants
from calibration.streetscape.canvas import Canvas, Sprite
from calibration.streetscape.facades import LEVELS, SCALE, Front
from calibration.streetscape.geometry import View
from calibration.streetscape.layout import AHEAD, Lot, Plan
from calibration.streetscape.materials import Light, mips

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Draw = Callable[[Canvas], None]
Item = tuple[float, float, Draw]
"""Depth of the far end, distance sideways from the camera, and what draws it."""

FRONTS = 6
_STRIP = 12.0
_SLICE = 7.0


class Frontage:
    """The lots of both sides and their pictures."""

    def __init__(self, rng: np.random.Generator, light: Light) -> None:
        # A side faces the sun when the sun stands over the other side.
        facing = (0.75 if light.sun_side > 0 else 0.12, 0.75 if light.sun_side < 0 else 0.12)
        self.fronts = tuple(
            tuple(facades.front(rng, light, face) for _ in range(FRONTS)) for face in facing
        )
        self._walls = [[facades.wall(rng, light, f) for _ in range(2)] for f in facing]
        self._fences = [[facades.fence(rng, light, f) for _ in range(2)] for f in facing]
        self._hedges = [plants.hedge(rng, light, _STRIP, h, SCALE) for h in (1.2, 1.9)]
        self._wall_mips = [[mips(w, LEVELS) for w, _ in side] for side in self._walls]
        self._hedge_mips = [mips(h, LEVELS) for h in self._hedges]
        self._fence_mips = [
            [(mips(f, LEVELS), mips(m, LEVELS)) for f, m, _ in side] for side in self._fences
        ]
        self._hedge_top = tuple(float(v) for v in self._hedges[0][:6].mean((0, 1)))
        self._wall_top = [tuple(float(v) for v in w[:3].mean((0, 1))) for w, _ in self._walls[0]]

    def lengths(self) -> tuple[Floats, Floats]:
        """The lengths of the fronts of either side, metres."""
        left, right = (np.array([f.length for f in side]) for side in self.fronts)
        return left, right

    def items(self, view: View, plan: Plan, trees: list[Sprite]) -> tuple[list[Item], list[Floats]]:
        """What is visible, and the shadows it throws on the ground when the sun shines."""
        items: list[Item] = []
        before: Lot | None = None
        for k, sign in ((0, -1), (1, 1)):
            base = np.floor((view.s - 30) / plan.period) * plan.period
            for turn in (0, 1):
                for lot in plan.lots[k]:
                    start = base + turn * plan.period + lot.start
                    if start + lot.length > view.s + 1 and start < view.s + AHEAD:
                        self._lot(items, view, plan, trees, lot, before, k, sign, start)
                    before = lot
        return items, []

    def _lot(
        self,
        items: list[Item],
        view: View,
        plan: Plan,
        trees: list[Sprite],
        lot: Lot,
        before: Lot | None,
        k: int,
        sign: int,
        start: float,
    ) -> None:
        u = sign * (plan.sides[k].front + lot.setback)
        if lot.kind == "building":
            self._building(items, view, self.fronts[k][lot.variant], lot, before, u, sign, start)
        elif lot.kind == "park":
            self._park(items, view, trees, lot, u, sign, start)
        else:
            self._barrier(items, view, lot, k, u, sign, start)
            if lot.kind == "fence" and lot.variant == 0:
                self._park(items, view, trees, lot, u + sign * 1.5, sign, start)

    def _spans(
        self, view: View, u: float, start: float, length: float
    ) -> list[tuple[float, float]]:
        """The stretch from ``start`` on as far as it is in the picture, in slices."""
        reach = view.lens.focal / (view.centre + 10)
        side = abs(u + float(view.shift(np.array([max(start, view.s)]))[0]))
        near = view.s + max(0.8 * reach * side, 1.0)
        first, last = max(start, near), start + length
        if first >= last - 0.01:
            return []
        count = 1 if first > view.s + 45 else max(1, int(np.ceil((last - first) / _SLICE)))
        cuts = np.linspace(first, last, count + 1)
        return [(float(a), float(b)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]

    def _building(
        self,
        items: list[Item],
        view: View,
        front: Front,
        lot: Lot,
        before: Lot | None,
        u: float,
        sign: int,
        start: float,
    ) -> None:
        side = abs(u - view.u)
        exposed = (
            before is None
            or before.kind != "building"
            or before.setback > lot.setback
            or abs(before.start + before.length - lot.start) > 0.01
            or self.fronts[0 if sign < 0 else 1][before.variant].height < front.height
        )
        spans = self._spans(view, u, start, lot.length)
        for a, b in spans:
            items.append((b - view.s, side, _Wall(view, front, start, a, b, u, sign)))
        if exposed and start > view.s + 2:
            far = spans[0][1] if spans else start
            items.append((far - view.s, side + 5, _Gable(view, front, start, u, sign)))

    def _barrier(
        self, items: list[Item], view: View, lot: Lot, k: int, u: float, sign: int, start: float
    ) -> None:
        side = abs(u - view.u)
        for a, b in self._spans(view, u, start, lot.length):
            if lot.kind == "wall":
                height = self._walls[k][lot.variant][1]
                draw = _Strip(
                    view,
                    self._wall_mips[k][lot.variant],
                    None,
                    height,
                    a,
                    b,
                    start,
                    u,
                    sign,
                    ids.WALL,
                    self._wall_top[lot.variant],
                    0.35,
                )
            elif lot.kind == "fence":
                texture, mask = self._fence_mips[k][lot.variant]
                height = self._fences[k][lot.variant][2]
                draw = _Strip(
                    view, texture, mask, height, a, b, start, u, sign, ids.FENCE, None, 0.0
                )
            else:
                height = (1.2, 1.9)[lot.variant]
                draw = _Strip(
                    view,
                    self._hedge_mips[lot.variant],
                    None,
                    height,
                    a,
                    b,
                    start,
                    u,
                    sign,
                    ids.VEGETATION,
                    self._hedge_top,
                    0.9,
                )
            items.append((b - view.s, side, draw))

    @staticmethod
    def _park(
        items: list[Item],
        view: View,
        trees: list[Sprite],
        lot: Lot,
        u: float,
        sign: int,
        start: float,
    ) -> None:
        step = 5.5
        for i in range(int(lot.length / step)):
            # Cheap disorder that depends on the place alone.
            mix = (int(lot.start * 10) * 7919 + i * 104729) % 1000 / 1000
            s = start + (i + 0.5 + 0.6 * (mix - 0.5)) * step
            if s < view.s + 2:
                continue
            across = u + sign * (2.0 + 9.0 * ((mix * 37) % 1))
            tree = trees[int(mix * 1000) % len(trees)]
            items.append(
                (s - view.s, abs(across - view.u), _Stand(view, tree, s, across, mix < 0.5))
            )


class _Stand:
    """Stands a sprite at a place."""

    def __init__(self, view: View, sprite: Sprite, s: float, u: float, mirror: bool) -> None:
        self._view, self._sprite, self._s, self._u, self._mirror = view, sprite, s, u, mirror

    def __call__(self, canvas: Canvas) -> None:
        x, y, scale = self._view.at(self._s, self._u)
        canvas.sprite(self._sprite, x, y, scale, self._mirror)


def _level(density: float) -> int:
    """The mip level for so many screen pixels per metre."""
    return int(np.clip(np.floor(np.log2(SCALE / max(density, 1e-3))), 0, LEVELS - 1))


def _corners(
    view: View, a: float, b: float, u: float, low: float, high: float, sign: int
) -> Floats:
    """A plane along the road as the texture lies on it: left end first as seen from the road."""
    left, right = (a, b) if sign < 0 else (b, a)
    return view.project(
        np.array([left, right, right, left]), np.full(4, u), np.array([high, high, low, low])
    )


class _Wall:
    """Draws a slice of a building's front, with its share of the roof."""

    def __init__(
        self, view: View, front: Front, start: float, a: float, b: float, u: float, sign: int
    ) -> None:
        self._view, self._front, self._start = view, front, start
        self._a, self._b, self._u, self._sign = a, b, u, sign

    def __call__(self, canvas: Canvas) -> None:
        view, front, u = self._view, self._front, self._u
        corners = _corners(view, self._a, self._b, u, 0.0, front.height, self._sign)
        _textured(
            canvas,
            view,
            front.textures,
            corners,
            self._a,
            self._b,
            self._start,
            front.length,
            self._sign,
            ids.BUILDING,
        )
        inward = u + self._sign * 3.5
        ridge = front.height + (3.0 if front.pitched else 0.0)
        if front.pitched:
            top = view.project(
                np.array([self._a, self._b, self._b, self._a]),
                np.array([u, u, inward, inward]),
                np.array([front.height, front.height, ridge, ridge]),
            )
            canvas.convex(top, front.roof, ids.BUILDING)
        lip = _corners(
            view,
            self._a,
            self._b,
            u - self._sign * 0.25,
            front.height - 0.12,
            front.height + 0.12,
            self._sign,
        )
        canvas.convex(lip, front.trim, ids.BUILDING)


class _Gable:
    """Draws the end of a building that looks down the road at the camera."""

    def __init__(self, view: View, front: Front, s: float, u: float, sign: int) -> None:
        self._view, self._front, self._s, self._u, self._sign = view, front, s, u, sign

    def __call__(self, canvas: Canvas) -> None:
        front, sign = self._front, self._sign
        left, right = sorted((self._u, self._u + sign * 8.0))
        s = np.full(4, self._s)
        corners = self._view.project(
            s, np.array([left, right, right, left]), np.array([front.height, front.height, 0, 0])
        )
        level = _level((corners[1, 0] - corners[0, 0]) / 8.0 * 2)
        texture = front.side[level][level]
        if front.pitched:
            peak = self._view.project(
                s[:3],
                np.array([self._u, self._u + sign * 8.0, self._u + sign * 3.5]),
                np.array([front.height, front.height, front.height + 3.0]),
            )
            canvas.convex(
                peak, tuple(float(v) for v in front.side[-1][-1].mean((0, 1))), ids.BUILDING
            )
        canvas.plane(texture, corners, ids.BUILDING)


def _textured(
    canvas: Canvas,
    view: View,
    levels: tuple[tuple[Bytes, ...], ...],
    corners: Floats,
    a: float,
    b: float,
    start: float,
    length: float,
    sign: int,
    label: int,
    masks: tuple[tuple[Bytes, ...], ...] | None = None,
) -> None:
    """Lay the part of a texture of ``length`` metres from ``start`` that belongs to [a, b]."""
    depth = max((a + b) / 2 - view.s, 1.0)
    across = abs(corners[1, 0] - corners[0, 0]) / max(b - a, 1e-6)
    if b - a < 1e-3 or abs(corners[1, 0] - corners[0, 0]) < 0.5:
        canvas.convex(corners, levels[-1][-1][0, 0].tolist(), label)
        return
    down_level, across_level = _level(view.lens.focal / depth), _level(across)
    texture = levels[down_level][across_level]
    first, last = np.mod(a - start, length), np.mod(a - start, length) + (b - a)
    if sign > 0:
        first, last = length - last, length - first
    width = texture.shape[1]
    x0 = int(np.clip(np.floor(first / length * width), 0, width - 1))
    x1 = int(np.clip(np.ceil(last / length * width), x0 + 1, width))
    # Whole texture columns: move the corners out to where those columns end.
    span = (last - first) / length * width
    grow0, grow1 = (first / length * width - x0) / span, (x1 - last / length * width) / span
    left, right = (a, b) if sign < 0 else (b, a)
    grown = corners
    if max(grow0, grow1) < 0.5:
        l_s, r_s = left - (right - left) * grow0, right + (right - left) * grow1
        u_h = _unproject(view, corners, left)
        grown = view.project(
            np.array([l_s, r_s, r_s, l_s]),
            np.full(4, u_h[0]),
            np.array([u_h[1], u_h[1], u_h[2], u_h[2]]),
        )
    if masks is None:
        canvas.plane(texture[:, x0:x1], grown, None)
    else:
        canvas.lattice(texture[:, x0:x1], masks[down_level][across_level][:, x0:x1], grown)
    canvas.mark(corners, label)


def _unproject(view: View, corners: Floats, s: float) -> tuple[float, float, float]:
    """Sideways place, upper and lower height of a plane along the road from its first corner."""
    scale = view.lens.focal / (s - view.s)
    u = (corners[0, 0] - view.centre) / scale - float(view.shift(np.array([s]))[0])
    high = view.height - (corners[0, 1] - view.horizon) / scale
    low = view.height - (corners[3, 1] - view.horizon) / scale
    return float(u), float(high), float(low)


class _Strip:
    """Draws a slice of wall, fence or hedge, and its top if it has one to see."""

    def __init__(
        self,
        view: View,
        levels: tuple[tuple[Bytes, ...], ...],
        masks: tuple[tuple[Bytes, ...], ...] | None,
        height: float,
        a: float,
        b: float,
        start: float,
        u: float,
        sign: int,
        label: int,
        top: tuple[float, ...] | None,
        thick: float,
    ) -> None:
        self._view, self._levels, self._masks, self._height = view, levels, masks, height
        self._a, self._b, self._start, self._u = a, b, start, u
        self._sign, self._label, self._top, self._thick = sign, label, top, thick

    def __call__(self, canvas: Canvas) -> None:
        view, sign = self._view, self._sign
        if self._top is not None:
            s = np.array([self._a, self._a, self._a, self._a])
            out = self._u + sign * self._thick
            end = view.project(
                s,
                np.array([self._u, out, out, self._u]),
                np.array([self._height, self._height, 0, 0]),
            )
            canvas.convex(end, tuple(0.7 * v for v in self._top), self._label)
        # A texture is 12 m long and repeats; a slice is shorter but may run over its end.
        at = self._a
        while at < self._b - 1e-6:
            into = float(np.mod(at - self._start, _STRIP))
            upto = min(self._b, at + _STRIP - into)
            corners = _corners(view, at, upto, self._u, 0.0, self._height, sign)
            _textured(
                canvas,
                view,
                self._levels,
                corners,
                at,
                upto,
                self._start,
                _STRIP,
                sign,
                self._label,
                self._masks,
            )
            at = upto if upto > at + 1e-6 else at + 0.01
