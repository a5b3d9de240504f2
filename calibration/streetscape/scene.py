"""A street on which a camera drives: put together here, drawn frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.streetscape import figures, furniture, plants, traffic, vehicles
from calibration.streetscape.air import Air
from calibration.streetscape.canvas import Canvas, Sprite
from calibration.streetscape.frontage import Frontage, Item
from calibration.streetscape.geometry import Lens, View
from calibration.streetscape.ground import Ground, crossings_near
from calibration.streetscape.layout import Stream, plan
from calibration.streetscape.materials import light_of
from calibration.streetscape.meshes import Mesh, turned
from calibration.streetscape.sky import Sky

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

FRAMES_PER_SECOND = 25
_SORT_CELL = 4.0


@dataclass(frozen=True)
class StreetFrame:
    """One frame: ``bgr`` uint8 (H, W, 3) and ``labels`` uint8 (H, W), Cityscapes label ids."""

    bgr: Bytes
    labels: Bytes


class StreetScene:
    """One street, its weather and its traffic: a deterministic function of ``seed``.

    ``render(i)`` is the world at i / 25 seconds, whatever was rendered before.
    """

    def __init__(self, seed: int, height: int = 512, width: int = 1024) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        self.seed = seed
        self.light = light_of(rng, seed)
        light = self.light
        self._frontage = Frontage(rng, light)
        self.plan = plan(rng, seed, self._frontage.lengths())
        self._lens = Lens.fit(height, width, self.plan.focal, self.plan.horizon)
        self._ground = Ground(rng, light, self.plan)
        self._trees = [plants.tree(rng, light, k) for k in (0, 1, 2, 3, 0, 1)]
        self._bushes = [plants.tree(rng, light, 4) for _ in range(2)]
        self._people(rng)
        self._vehicles(rng)
        self._street_things(rng)
        self._start = float(rng.uniform(0, self.plan.period))
        sway = rng.uniform(0, 2 * np.pi, 2)
        self._sway = (float(sway[0]), float(sway[1]))
        # Last, for these draw as many numbers as there are pixels.
        self._sky = Sky(rng, light, self._lens)
        self._air = Air(np.random.Generator(np.random.PCG64([seed, 1])), light, self._lens)
        self._glows = (
            traffic.glow((200, 235, 255), 0.8),
            traffic.glow((60, 60, 255), 0.7),
            traffic.glow((120, 190, 230), 0.5 * light.night),
        )

    def _people(self, rng: np.random.Generator) -> None:
        light, crowd = self.light, self.plan.crowd
        looks = [figures.Look.draw(rng) for _ in range(6)]
        self._walkers = {
            sideways: [
                [figures.walker(look, light, k, sideways=sideways) for k in range(figures.STEPS)]
                for look in (looks if not sideways else looks[:3])
            ]
            for sideways in (False, True)
        }
        self._walks = [
            (side, Stream.draw(rng, 11.0 / crowd, 6, speed=v, slack=1.4, jitter=0.9))
            for side in (0, 1)
            for v in (1.3, -1.2)
        ]
        self._cross_phase = rng.uniform(0, 1, 8)
        self._riders = {
            away: [
                figures.rider(rng, light, looks[int(rng.integers(6))], motor=motor, away=away)
                for motor in (False, True, False, True)
            ]
            for away in (True, False)
        }
        self._bikes = [figures.bicycle(rng, light, None, 0.4) for _ in range(3)]
        self._motors = [figures.motorcycle(rng, light, None) for _ in range(2)]
        self._crossers = [
            figures.bicycle(rng, light, looks[0], 0.8),
            figures.motorcycle(rng, light, looks[1]),
        ]
        self._rides = (
            (1, Stream.draw(rng, 17.0, 4, speed=5.2, slack=1.0, jitter=0.25)),
            (0, Stream.draw(rng, 20.0, 4, speed=-5.4, slack=1.0, jitter=0.25)),
        )
        self._parked_bikes = tuple(Stream.draw(rng, 13.0, 5, slack=1.0) for _ in range(2))

    def _vehicles(self, rng: np.random.Generator) -> None:
        light, lanes = self.light, self.plan
        cars: list[tuple[Mesh, ...]] = [(vehicles.car(rng, light),) for _ in range(8)]
        bus, truck = vehicles.bus(rng, light), vehicles.truck(rng, light)
        away = [*cars, bus, truck]
        self._away = away
        self._toward = [tuple(turned(m) for m in reversed(v)) for v in away]
        left, right = lanes.sides
        self._lanes: list[tuple[float, int, Stream]] = []
        spacing = 24.0 / lanes.traffic
        for i, u in enumerate(right.lanes):
            if i == lanes.camera_lane:
                continue
            speed = lanes.speed + float(rng.choice([-3.5, 2.5]))
            self._lanes.append((u, 1, Stream.draw(rng, spacing, 10, speed=speed)))
        for u in left.lanes:
            speed = -float(rng.uniform(7, 12))
            self._lanes.append((-u, -1, Stream.draw(rng, spacing * 1.2, 10, speed=speed)))
        self._parked = [
            (sign * (side.kerb - 1.15), sign, Stream.draw(rng, 8.0, 10, slack=0.3))
            for side, sign in ((left, -1), (right, 1))
            if side.parking
        ]
        self._empty = rng.random(400) < 0.4
        self._lead = (float(rng.uniform(14, 34)), float(rng.uniform(2, 5)), int(rng.integers(10)))
        self._lead_phase = float(rng.uniform(0, 6))
        self._tram = vehicles.tram(rng, light)
        self._tram_toward = tuple(turned(m) for m in reversed(self._tram))
        self._trams = (
            (1.55, 1, Stream.draw(rng, 75.0, 1, speed=lanes.speed - 4.0)),
            (-1.55, -1, Stream.draw(rng, 85.0, 1, speed=-9.0)),
        )

    def _street_things(self, rng: np.random.Generator) -> None:
        light, green = self.light, self.plan.greenery
        self._lamp = furniture.lamp_post(rng, light)
        self._signs = [furniture.sign(rng, light, k) for k in range(9)]
        self._lights = {
            overhead: [furniture.traffic_light(rng, light, k, overhead=overhead) for k in range(3)]
            for overhead in (False, True)
        }
        self._bollard = furniture.bollard(rng, light)
        self._lamps = tuple(Stream.draw(rng, 27.0, 1, slack=0.1) for _ in range(2))
        self._posts = tuple(Stream.draw(rng, 19.0, 9, slack=0.8) for _ in range(2))
        self._rows = tuple(
            Stream.draw(rng, float(rng.uniform(9, 13)) / green, 6, slack=0.4) for _ in range(2)
        )
        self._planters = tuple(Stream.draw(rng, 17.0, 2, slack=1.0) for _ in range(2))

    def view(self, index: int) -> View:
        """The camera at a frame."""
        time = index / FRAMES_PER_SECOND
        s = self._start + self.plan.speed * time
        sway = 0.12 * np.sin(0.5 * time + self._sway[0])
        pitch = 0.0016 * np.sin(7.1 * time + self._sway[1]) + 0.001 * np.sin(2.3 * time)
        lane = self.plan.sides[1].lanes[self.plan.camera_lane]
        return View(
            self._lens, self.plan.bend, s, lane + float(sway), self.plan.camera_height, float(pitch)
        )

    def render(self, index: int) -> StreetFrame:
        """Draw one frame into new arrays."""
        view, time = self.view(index), index / FRAMES_PER_SECOND
        canvas = Canvas(self._lens.height, self._lens.width)
        items, shadows = self._frontage.items(view, self.plan, self._trees)
        self._place_sprites(items, shadows, view, time, index)
        self._place_vehicles(items, shadows, view, time)
        top = self._sky.draw(view, canvas.bgr, canvas.labels)
        self._ground.draw(canvas, view, min(top, int(view.horizon) + 3), shadows)
        items.sort(key=lambda item: (-(item[0] // _SORT_CELL), -item[1]))
        layer = 0
        for depth, _, draw in items:
            while layer < len(self._air.depths) and depth < self._air.depths[layer]:
                self._air.veil(canvas, view, layer)
                layer += 1
            draw(canvas)
        while layer < len(self._air.depths):
            self._air.veil(canvas, view, layer)
            layer += 1
        self._air.finish(canvas, view, index)
        return StreetFrame(canvas.bgr, canvas.labels)

    def _stand(
        self,
        items: list[Item],
        view: View,
        sprite: Sprite,
        s: float,
        u: float,
        mirror: bool = False,
    ) -> None:
        x, y, scale = view.at(s, u)
        if -400 < x < view.lens.width + 400 and scale > 2.0:
            items.append((s - view.s, abs(u - view.u), _standing(sprite, x, y, scale, mirror)))

    def _place_sprites(
        self, items: list[Item], shadows: list[Floats], view: View, time: float, index: int
    ) -> None:
        sides = self.plan.sides
        crossings = crossings_near(self.plan, view.s)
        keep = self.plan.crossing_width / 2 + 2.0

        def clear(s: float) -> bool:
            return s > view.s + 2.0 and all(abs(s - c) > keep for c in crossings)

        for k, sign in ((0, -1), (1, 1)):
            side = sides[k]
            edge = side.kerb + 0.5
            for s, _, _, _ in self._lamps[k].near(view.s, time):
                if clear(s):
                    self._stand(items, view, self._lamp, s, sign * edge, mirror=sign < 0)
                    shadows.append(
                        traffic.flat(view, s, s + 0.2, sign * edge - 0.1, sign * edge + 0.1)
                    )
            for s, kind, _, _ in self._posts[k].near(view.s, time, 110):
                if clear(s):
                    self._stand(items, view, self._signs[kind], s, sign * (edge + 0.1))
            for s, kind, _, i in self._rows[k].near(view.s, time):
                if clear(s):
                    at = sign * (
                        (side.kerb + side.verge) / 2 if side.verge > side.kerb else side.kerb + 0.9
                    )
                    self._stand(items, view, self._trees[kind], s, at, mirror=i % 2 == 0)
                    if s < view.s + 60:
                        shadows.append(traffic.flat(view, s - 1.5, s + 1.5, at - 1.6, at + 1.6))
            for s, kind, _, _ in self._planters[k].near(view.s, time, 80):
                if clear(s):
                    self._stand(items, view, self._bushes[kind], s, sign * (side.front - 0.4))
            for s, kind, _, i in self._parked_bikes[k].near(view.s, time, 70):
                if clear(s) and not self._empty[i]:
                    sprite = self._bikes[kind] if kind < 3 else self._motors[kind - 3]
                    self._stand(
                        items, view, sprite, s, sign * (side.front - 1.0), mirror=i % 2 == 0
                    )
        for k, walk in self._walks:
            for s, who, jitter, i in walk.near(view.s, time, 75):
                if s > view.s + 2.5:
                    sign = -1 if k == 0 else 1
                    step = (index // 4 + i) % figures.STEPS
                    u = sign * (sides[k].pavement + jitter)
                    self._stand(items, view, self._walkers[False][who][step], s, u)
                    shadows.append(traffic.flat(view, s - 0.15, s + 0.2, u - 0.3, u + 0.3))
        self._at_crossings(items, shadows, view, time, index, crossings)
        for k, ride in self._rides:
            sign = -1 if k == 0 else 1
            for s, who, jitter, _ in ride.near(view.s, time, 90):
                if s > view.s + 2.5:
                    u = sign * (sides[k].lane_edge - 0.2) + jitter
                    self._stand(items, view, self._riders[k == 1][who], s, u)
                    shadows.append(traffic.flat(view, s - 0.7, s + 0.7, u - 0.3, u + 0.3))

    def _at_crossings(
        self,
        items: list[Item],
        shadows: list[Floats],
        view: View,
        time: float,
        index: int,
        crossings: list[float],
    ) -> None:
        left, right = self.plan.sides
        wide = left.kerb + right.kerb + 6
        for crossing in crossings:
            which = int(crossing) % 8
            edge = crossing - self.plan.crossing_width / 2
            state = int((time * 0.12 + self._cross_phase[which] * 3) % 3)
            for s, u, overhead in (
                (edge - 1.0, right.kerb + 0.4, which % 2 == 0),
                (edge - 1.0, -left.kerb - 0.4, False),
                (edge + self.plan.crossing_width + 1.0, right.kerb + 0.4, False),
            ):
                if s > view.s + 2:
                    self._stand(items, view, self._lights[overhead][state], s, u)
            for lane in range(4):
                phase = (
                    time * (1.2, 1.0, 3.2, 1.4)[lane] / wide + self._cross_phase[(which + lane) % 8]
                ) % 2
                there = phase if phase < 1 else 2 - phase
                u = -left.kerb - 3 + wide * there
                s = edge - 3.4 + 0.9 * lane if lane != 2 else edge + 2.0
                if s < view.s + 3:
                    continue
                if lane == 2:
                    sprite = self._crossers[which % 2]
                else:
                    step = (index // 4 + lane) % figures.STEPS
                    sprite = self._walkers[True][lane % 3][step]
                self._stand(items, view, sprite, s, u, mirror=phase >= 1)
                shadows.append(traffic.flat(view, s - 0.15, s + 0.25, u - 0.4, u + 0.4))

    def _place_vehicles(
        self, items: list[Item], shadows: list[Floats], view: View, time: float
    ) -> None:
        placed: list[traffic.Placed] = []

        def add(pieces: tuple[Mesh, ...], s: float, u: float) -> None:
            for mesh in pieces:
                if s + mesh.length > view.s + 1.0:
                    placed.append(traffic.Placed(mesh, s, u))
                s += mesh.length

        for u, sign, lane in self._lanes:
            fleet = self._away if sign > 0 else self._toward
            for s, kind, _, _ in lane.near(view.s, time, 150):
                add(fleet[kind], s, u)
        for u, sign, lane in self._parked:
            fleet = self._away if sign > 0 else self._toward
            for s, kind, _, i in lane.near(view.s, time, 100):
                gap = self.plan.crossing_width / 2 + 8
                if (
                    not self._empty[i % 400]
                    and kind < 8
                    and all(abs(s - c) > gap for c in crossings_near(self.plan, view.s))
                ):
                    add(fleet[kind], s, u)
        gap, swing, kind = self._lead
        ahead = gap + swing * float(np.sin(0.3 * time + self._lead_phase))
        lane_u = self.plan.sides[1].lanes[self.plan.camera_lane]
        add(self._away[kind], view.s + ahead, lane_u)
        if self.plan.tram:
            for u, sign, lane in self._trams:
                for s, _, _, _ in lane.near(view.s, time, 150):
                    add(self._tram if sign > 0 else self._tram_toward, s, u)
        traffic.project(view, placed)
        for vehicle in placed:
            shadows.extend(traffic.shadow(view, vehicle, self.light))
            items.append(
                (vehicle.far - view.s, abs(vehicle.u - view.u), self._driver(vehicle, view))
            )

    def _driver(self, vehicle: traffic.Placed, view: View) -> Callable[[Canvas], None]:
        def draw(canvas: Canvas) -> None:
            traffic.draw(canvas, vehicle)
            traffic.lamps(canvas, view, vehicle, self.light, (self._glows[0], self._glows[1]))

        return draw


def _standing(
    sprite: Sprite, x: float, y: float, scale: float, mirror: bool
) -> Callable[[Canvas], None]:
    def draw(canvas: Canvas) -> None:
        canvas.sprite(sprite, x, y, scale, mirror)

    return draw
