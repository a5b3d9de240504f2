"""The axis of one whole tile, by its formula: what the runner's axes are compared with."""

from __future__ import annotations

import numpy as np

from pipeline.kernels import Axis


def upsample_axis(cells: int, factor: int = 4) -> Axis:
    """One tile of ``cells`` cells, sampled ``factor`` times as fine: torch's half-pixel bilinear.

    Sample u lies at grid coordinate (u + 1/2) / factor - 1/2.
    """
    position = (np.arange(cells * factor) + 0.5) / factor - 0.5
    index = np.floor(position)
    return Axis(
        size=cells,
        origins=np.zeros(1, np.int32),
        weights=np.ones((1, cells), np.float32),
        cells=(index + 1).astype(np.int32),
        fractions=(position - index).astype(np.float32),
    )
