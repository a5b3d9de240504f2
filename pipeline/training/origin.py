"""What a run learns from: the options that name it, and what they are remembered by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import FramePair
from models.segmenter import Preset
from pipeline.artifact import sha256_of
from pipeline.errors import UsageError
from pipeline.training.data import Mixture
from pipeline.training.relabel import read_label_map
from pipeline.training.state import digest_frames


def parse_data(entries: Sequence[str]) -> tuple[list[str], list[float]]:
    """``ROOT:WEIGHT`` entries -> (roots, weights); a weight left out is 1."""
    roots, weights = [], []
    for entry in entries:
        if not entry:
            raise UsageError("no data to train on: give --data ROOT or set CITYSCAPES_DATASET")
        root, _colon, weight = entry.rpartition(":")
        try:
            weights.append(float(weight) if root else 1.0)
            roots.append(root or entry)
        except ValueError:
            weights.append(1.0)
            roots.append(entry)
    return roots, weights


def parse_label_maps(
    entries: Sequence[str], roots: Sequence[str]
) -> list[npt.NDArray[np.uint8] | None]:
    """``ROOT=FILE`` entries -> one table of train ids, or none, for each root."""
    tables: list[npt.NDArray[np.uint8] | None] = [None for _root in roots]
    for entry in entries:
        root, equals, file = entry.rpartition("=")
        if not equals or root not in roots:
            raise UsageError(f"--label-map '{entry}': give ROOT=FILE with a ROOT named by --data")
        table = read_label_map(Path(file))
        tables = [table if given == root else t for given, t in zip(roots, tables, strict=True)]
    return tables


def describe_origin(
    preset: Preset, mixture: Mixture, maps: Sequence[npt.NDArray[np.uint8] | None],
    judged: Sequence[FramePair], val_shape: tuple[int, int], init: Path | None,
) -> dict[str, str]:  # fmt: skip
    """By option, what the run learns from, is judged by and begins as; see ``training.state``.

    Args:
        preset: of the network.
        mixture: the data.
        maps: label maps, of each tree of the mixture and of the one that judges.
        judged: frames that are scored.
        val_shape: (height, width) they are scored at.
        init: the weights' file.
    """
    numbers = sha256(repr(sorted(asdict(preset).items())).encode()).hexdigest()
    return {
        "--preset": f"{preset.name} {numbers[:12]}",
        "--data": "; ".join(
            f"{digest_frames(frames)}, weight {weight:g}"
            for frames, weight in zip(mixture.frames, mixture.weights, strict=True)
        ),
        "--label-map": "; ".join(
            "none" if table is None else sha256(table.tobytes()).hexdigest()[:12] for table in maps
        ),
        "--val": digest_frames(judged),
        "--val-shape": f"{val_shape[0]}x{val_shape[1]}",
        "--init": sha256_of(init)[:12] if init else "none",
    }
