"""Procedural street scenes as a source: endless, deterministic, with known truth."""

from __future__ import annotations

import numpy as np

from pipeline.errors import SourceError
from pipeline.video.frames import Pixels
from pipeline.video.source import STREETS_RATE, STREETS_SIZE, Head, SourceOptions, SourceSpec


class StreetsReader:
    """``calibration.streets`` at 25 frames a second on its own clock. Not live: it waits."""

    live = False
    rate: float | None = STREETS_RATE
    decode_errors = 0
    truncated = False

    def __init__(self, spec: SourceSpec, options: SourceOptions) -> None:
        from calibration.streets import StreetScene

        self._height, self._width = options.size or STREETS_SIZE
        self._scene = StreetScene(int(spec.target), self._height, self._width)
        self._next = 0

    def grab(self) -> Head | None:
        """Name the next frame; it is rendered by ``retrieve``, if anyone wants it."""
        self._next += 1
        return Head(self._height, self._width, (self._next - 1) / STREETS_RATE)

    def retrieve(self, out: Pixels) -> None:
        """Render it."""
        if not self._next:
            raise SourceError("no frame was grabbed")
        np.copyto(out, self._scene.render(self._next - 1).bgr)

    def close(self) -> None:
        """Nothing is held."""
