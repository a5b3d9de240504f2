"""Who is about: walkers, people crossing, cyclists and motorcyclists, and what they parked."""

from __future__ import annotations

import numpy as np

from calibration.streetscape import figures
from calibration.streetscape.layout import Plan, Stream
from calibration.streetscape.materials import Light
from calibration.streetscape.stage import Stage

_LOOKS = 6
_PACE = 4  # frames per step of the walking cycle


class People:
    """The people of one street."""

    def __init__(self, rng: np.random.Generator, light: Light, plan: Plan) -> None:
        looks = [figures.Look.draw(rng) for _ in range(_LOOKS)]
        steps = range(figures.STEPS)
        self._walkers = [
            [figures.walker(look, light, k, sideways=False) for k in steps] for look in looks
        ]
        self._passers = [
            [figures.walker(look, light, k, sideways=True) for k in steps] for look in looks[:3]
        ]
        self._walks = [
            (side, Stream.draw(rng, 11.0 / plan.crowd, _LOOKS, speed=v, slack=1.4, jitter=0.9))
            for side in (0, 1)
            for v in (1.3, -1.2)
        ]
        self._riders = [
            [
                figures.rider(rng, light, looks[int(rng.integers(_LOOKS))], motor=motor, away=away)
                for motor in (False, True, False, False, True)
            ]
            for away in (False, True)
        ]
        self._rides = (
            Stream.draw(rng, 20.0, 5, speed=-5.4, slack=1.0, jitter=0.25),
            Stream.draw(rng, 17.0, 5, speed=5.2, slack=1.0, jitter=0.25),
        )
        bicycles = [figures.bicycle(rng, light, None, 0.4) for _ in range(3)]
        self._parked = bicycles + [figures.motorcycle(rng, light, None) for _ in range(2)]
        self._stands = tuple(Stream.draw(rng, 8.0, 5, slack=1.0) for _ in range(2))
        self._crossers = (
            figures.bicycle(rng, light, looks[0], 0.8),
            figures.motorcycle(rng, light, looks[1]),
        )
        self._phases = rng.uniform(0, 1, 8)

    def place(self, stage: Stage) -> None:
        """Put everybody on the stage."""
        sides, view = stage.plan.sides, stage.view
        for k, sign in ((0, -1), (1, 1)):
            for s, kind, _, i in self._stands[k].near(view.s, stage.time, 50):
                if stage.clear(s, 2.0):
                    at = sign * (sides[k].front - 1.0)
                    stage.stand(self._parked[kind], s, at, mirror=i % 2 == 0)
            for s, who, jitter, _ in self._rides[k].near(view.s, stage.time, 75):
                u = sign * (sides[k].lane_edge - 0.2) + jitter
                stage.stand(self._riders[k][who], s, u)
                stage.shade(s - 0.7, s + 0.7, u - 0.3, u + 0.3)
        for k, walk in self._walks:
            for s, who, jitter, i in walk.near(view.s, stage.time, 62):
                step = (stage.index // _PACE + i) % figures.STEPS
                u = (-1, 1)[k] * (sides[k].pavement + jitter)
                stage.stand(self._walkers[who][step], s, u)
                stage.shade(s - 0.15, s + 0.2, u - 0.3, u + 0.3)
        for crossing in stage.crossings:
            self._cross(stage, crossing)

    def _cross(self, stage: Stage, crossing: float) -> None:
        """Three people and one vehicle, back and forth across the road at a side street."""
        left, right = stage.plan.sides
        wide = left.kerb + right.kerb + 6
        which = int(crossing) % 8
        edge = crossing - stage.plan.crossing_width / 2
        for lane, speed in enumerate((1.2, 1.0, 3.2, 1.4)):
            phase = (stage.time * speed / wide + self._phases[(which + lane) % 8]) % 2
            u = -left.kerb - 3 + wide * (phase if phase < 1 else 2 - phase)
            if lane == 2:
                s, sprite = edge + 2.0, self._crossers[which % 2]
            else:
                step = (stage.index // _PACE + lane) % figures.STEPS
                s, sprite = edge - 3.4 + 0.9 * lane, self._passers[lane % 3][step]
            stage.stand(sprite, s, u, mirror=phase >= 1)
            stage.shade(s - 0.15, s + 0.25, u - 0.4, u + 0.4)
