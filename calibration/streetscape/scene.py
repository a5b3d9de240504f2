"""A street on which a camera drives: put together here, drawn frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.streetscape.air import Air
from calibration.streetscape.canvas import Canvas
from calibration.streetscape.frontage import Frontage
from calibration.streetscape.geometry import Lens, View
from calibration.streetscape.ground import Ground
from calibration.streetscape.layout import plan
from calibration.streetscape.materials import light_of
from calibration.streetscape.people import People
from calibration.streetscape.roadside import Roadside
from calibration.streetscape.sky import Sky
from calibration.streetscape.stage import Stage
from calibration.streetscape.traffic import Traffic

Bytes = npt.NDArray[np.uint8]

FRAMES_PER_SECOND = 25


@dataclass(frozen=True)
class StreetFrame:
    """One frame: ``bgr`` uint8 (H, W, 3) and ``labels`` uint8 (H, W), Cityscapes label ids."""

    bgr: Bytes
    labels: Bytes


class StreetScene:
    """One street, its weather and its traffic: a deterministic function of ``seed``.

    ``render(i)`` is the world at i / 25 seconds, whatever was rendered before. The picture's
    size changes how it is sampled, not what is in it. Seeds that follow each other differ in
    weather and in whether trams run.
    """

    def __init__(self, seed: int, height: int = 512, width: int = 1024) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        self.seed = seed
        self.light = light = light_of(rng, seed)
        self._frontage = Frontage(rng, light)
        self.plan = plan(rng, seed, self._frontage.lengths())
        self._ground = Ground(rng, light, self.plan)
        self._roadside = Roadside(rng, light, self.plan)
        self._people = People(rng, light, self.plan)
        self._traffic = Traffic(rng, light, self.plan)
        self._start = float(rng.uniform(0, self.plan.period))
        self._sway = float(rng.uniform(0, 2 * np.pi))
        # Last, and with numbers of their own: these draw as many as there are pixels.
        self._lens = Lens.fit(height, width, self.plan.focal, self.plan.horizon)
        self._sky = Sky(np.random.Generator(np.random.PCG64([seed, 1])), light, self._lens)
        self._air = Air(np.random.Generator(np.random.PCG64([seed, 2])), light, self._lens)

    def view(self, index: int) -> View:
        """The camera at a frame."""
        time = index / FRAMES_PER_SECOND
        s = self._start + self.plan.speed * time
        sway = 0.12 * np.sin(0.5 * time + self._sway)
        pitch = 0.0016 * np.sin(7.1 * time + self._sway) + 0.001 * np.sin(2.3 * time)
        lane = self.plan.sides[1].lanes[self.plan.camera_lane]
        u, height = lane + float(sway), self.plan.camera_height
        return View(self._lens, self.plan.bend, s, u, height, float(pitch))

    def render(self, index: int) -> StreetFrame:
        """Draw one frame into new arrays."""
        view = self.view(index)
        stage = Stage(view, self.plan, index, index / FRAMES_PER_SECOND)
        self._frontage.place(stage, self._roadside.trees)
        self._roadside.place(stage)
        self._people.place(stage)
        self._traffic.place(stage)
        canvas = Canvas(self._lens.height, self._lens.width)
        top = self._sky.draw(view, canvas.bgr, canvas.labels)
        top = min(top, int(view.horizon) + 3)
        self._ground.draw(canvas, view, top, stage.shadow_outlines(), self._air)
        layer, depths = 0, self._air.depths
        for depth, _, draw in stage.ordered():
            while layer < len(depths) and depth < depths[layer]:
                self._air.veil(canvas, view, layer)
                layer += 1
            draw(canvas)
        for rest in range(layer, len(depths)):
            self._air.veil(canvas, view, rest)
        self._air.finish(canvas, view, index)
        return StreetFrame(canvas.bgr, canvas.labels)
