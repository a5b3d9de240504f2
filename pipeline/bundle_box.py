"""What came of a bundle's engine on the box, whichever back end it is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class BoxEngine:
    """An engine that was built or taken into service.

    Attributes:
        path: the engine; its manifest lies beside it.
        told: lines for a person, of what was found.
        warnings: the same, of what is not as it should be.
        seconds: what it took.
    """

    path: Path
    told: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


def load_check(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(frames, labels) that came with an unpacked bundle, see ``bundle_frames.check_files``."""
    frames, labels = (
        np.load(folder / "check" / f"{name}.npy", allow_pickle=False)
        for name in ("frames", "labels")
    )
    return frames, labels
