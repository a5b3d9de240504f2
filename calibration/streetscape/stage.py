"""One frame while it is being put together: what will be drawn, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calibration.streetscape.canvas import Canvas, Sprite
from calibration.streetscape.geometry import View
from calibration.streetscape.layout import Plan, crossings_near

Floats = npt.NDArray[np.float64]
Draw = Callable[[Canvas], None]

_CELL = 4.0  # metres of depth within which the sideways distance decides
_TINY = 2.0  # pixels per metre below which sprites are not drawn


@dataclass
class Stage:
    """The camera and time of a frame, and all that has been put before it so far.

    ``items`` are (depth of the far end, distance sideways from the camera, what draws it);
    ``shadows`` are rectangles on the ground, (start, end, left, right).
    """

    view: View
    plan: Plan
    index: int
    time: float
    items: list[tuple[float, float, Draw]] = field(default_factory=list)
    shadows: list[tuple[float, float, float, float]] = field(default_factory=list)
    crossings: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.crossings = crossings_near(self.plan, self.view.s)

    def put(self, far: float, u: float, draw: Draw) -> None:
        """Add something that reaches to ``far`` (s) at ``u``."""
        self.items.append((far - self.view.s, abs(u - self.view.u), draw))

    def stand(self, sprite: Sprite, s: float, u: float, *, mirror: bool = False) -> None:
        """Stand a sprite at a place; nothing happens when it is too near, too far or beside."""
        if s < self.view.s + 2.0:
            return
        x, y, scale = self.view.at(s, u)
        margin = scale * 6.0
        if scale < _TINY or not -margin < x < self.view.lens.width + margin:
            return

        def draw(canvas: Canvas) -> None:
            canvas.sprite(sprite, x, y, scale, mirror)

        self.put(s, u, draw)

    def shade(self, start: float, end: float, left: float, right: float) -> None:
        """Darken a rectangle of the ground."""
        start = max(start, self.view.s + 0.8)
        if start < end:
            self.shadows.append((start, end, left, right))

    def shadow_outlines(self) -> Floats:
        """The shadows in the picture, (n, 4, 2)."""
        a, b, left, right = np.array(self.shadows).reshape(-1, 4).T
        s, u = np.stack([a, a, b, b], 1), np.stack([left, right, right, left], 1)
        return self.view.project(s, u, 0.0)

    def clear(self, s: float, gap: float) -> bool:
        """Whether ``s`` is ``gap`` metres away from every side street."""
        return all(abs(s - c) > gap + self.plan.crossing_width / 2 for c in self.crossings)

    def ordered(self) -> list[tuple[float, float, Draw]]:
        """Far things first; at like depth what is further to the side, then longer things' ends.

        Among things beside each other only the one nearer to the camera's line can hide the
        other, which is why the side decides there.
        """
        return sorted(self.items, key=lambda item: (-(item[0] // _CELL), -item[1], -item[0]))
