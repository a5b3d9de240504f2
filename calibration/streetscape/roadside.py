"""What stands along the road: lamps, signs, traffic lights, trees, bushes, bollards."""

from __future__ import annotations

import numpy as np

from calibration.streetscape import furniture, plants, traffic
from calibration.streetscape.canvas import Canvas
from calibration.streetscape.layout import Plan, Stream
from calibration.streetscape.materials import Light
from calibration.streetscape.stage import Stage

_SIGNS = 9


class Roadside:
    """The furniture and plants of one street. ``trees`` are its kinds of tree."""

    def __init__(self, rng: np.random.Generator, light: Light, plan: Plan) -> None:
        self.trees = [plants.tree(rng, light, kind) for kind in (0, 1, 2, 3, 0, 1)]
        self._bushes = [plants.tree(rng, light, 4) for _ in range(2)]
        self._lamp = furniture.lamp_post(rng, light)
        self._lamp_light = traffic.glow((120, 190, 230), 0.6 * light.night)
        self._dark = light.night > 0.3
        self._signs = [furniture.sign(rng, light, kind) for kind in range(_SIGNS)]
        self._lights = [
            [furniture.traffic_light(rng, light, k, overhead=over) for k in range(3)]
            for over in (False, True)
        ]
        self._bollard = furniture.bollard(rng, light)
        self._phases = rng.uniform(0, 3, 8)
        self._lamps = tuple(Stream.draw(rng, 27.0, 1, slack=0.1) for _ in range(2))
        self._posts = tuple(Stream.draw(rng, 18.0, _SIGNS + 1, slack=0.8) for _ in range(2))
        self._rows = tuple(
            Stream.draw(rng, float(rng.uniform(9, 13)) / plan.greenery, 6, slack=0.4)
            for _ in range(2)
        )
        self._planters = tuple(Stream.draw(rng, 17.0, 3, slack=1.0) for _ in range(2))

    def place(self, stage: Stage) -> None:
        """Put it on the stage."""
        for k in (0, 1):
            self._side(stage, k)
        for crossing in stage.crossings:
            self._signals(stage, crossing)

    def _side(self, stage: Stage, k: int) -> None:
        side, sign, s0, time = stage.plan.sides[k], (-1, 1)[k], stage.view.s, stage.time
        edge = sign * (side.kerb + 0.5)
        for s, _, _, _ in self._lamps[k].near(s0, time, 130):
            if stage.clear(s, 2.0):
                stage.stand(self._lamp, s, edge, mirror=sign < 0)
                stage.shade(s, s + 0.2, edge - 0.1, edge + 0.1)
                if self._dark and s0 + 6 < s < s0 + 90:
                    self._shine(stage, s, edge - sign * 1.4)
        for s, kind, _, _ in self._posts[k].near(s0, time, 90):
            if stage.clear(s, 2.0):
                post = self._signs[kind] if kind < _SIGNS else self._lights[0][2]
                stage.stand(post, s, edge + sign * 0.1)
        verge = side.verge > side.kerb
        row = sign * ((side.kerb + side.verge) / 2 if verge else side.kerb + 0.9)
        for s, kind, _, i in self._rows[k].near(s0, time, 140):
            if stage.clear(s, 2.0):
                stage.stand(self.trees[kind], s, row, mirror=i % 2 == 0)
                if s < s0 + 60:
                    stage.shade(s - 1.5, s + 1.5, row - 1.6, row + 1.6)
        for s, kind, _, _ in self._planters[k].near(s0, time, 60):
            if stage.clear(s, 2.0):
                thing = self._bushes[kind] if kind < 2 else self._bollard
                stage.stand(thing, s, sign * (side.front - 0.4) if kind < 2 else edge)

    def _shine(self, stage: Stage, s: float, u: float) -> None:
        x, y, scale = stage.view.at(s, u, 7.2)

        def draw(canvas: Canvas) -> None:
            canvas.glow(self._lamp_light, x, y, 1.6 * scale)

        stage.put(s, u, draw)

    def _signals(self, stage: Stage, crossing: float) -> None:
        left, right = stage.plan.sides
        which = int(crossing) % 8
        near = crossing - stage.plan.crossing_width / 2 - 1.0
        far = crossing + stage.plan.crossing_width / 2 + 1.0
        state = int((stage.time * 0.12 + self._phases[which]) % 3)
        stage.stand(self._lights[which % 2][state], near, right.kerb + 0.4)
        stage.stand(self._lights[0][state], near, -left.kerb - 0.4)
        stage.stand(self._lights[0][state], far, right.kerb + 0.4)
