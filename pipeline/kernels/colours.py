"""Which colour each label is painted in, prepared once for ``overlay``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Colours:
    """A palette with an opacity, and which labels are painted at all.

    Args:
        palette: (n, 3) uint8, row c the BGR colour of label c, n <= 256. Labels >= n are not
            painted, so 255 (ignore) leaves its pixels alone unless the palette has 256 rows.
        opacity: 0 (the frame) .. 1 (the colour), rounded to the nearest 1/256.
        classes: the labels to paint; ``None`` paints every label of the palette.

    Attributes:
        entries: (256, 4) uint8: blue, green, red, and 255 where the label is painted; zero where it
            is not. Read-only.
        alpha: the opacity in 256ths, 0 .. 256.

    Raises:
        ValueError: a palette, an opacity or a class that cannot be.
    """

    def __init__(
        self,
        palette: npt.ArrayLike,
        opacity: float = 0.5,
        classes: Iterable[int] | None = None,
    ) -> None:
        colours = np.asarray(palette)
        if colours.ndim != 2 or colours.shape[1] != 3 or not 1 <= len(colours) <= 256:
            raise ValueError(f"a palette has shape (1..256, 3), not {colours.shape}")
        if colours.dtype.kind not in "iu" or colours.min() < 0 or colours.max() > 255:
            raise ValueError("a palette holds whole numbers within 0 .. 255")
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity {opacity} is not within 0 .. 1")
        shown = range(len(colours)) if classes is None else sorted(set(classes))
        if any(not 0 <= c < len(colours) for c in shown):
            raise ValueError(f"classes must lie within 0 .. {len(colours) - 1}")
        rows = list(shown)
        self.alpha = round(opacity * 256)
        self.entries = np.zeros((256, 4), np.uint8)
        self.entries[rows, :3] = colours[rows]
        self.entries[rows, 3] = 255
        self.entries.flags.writeable = False
