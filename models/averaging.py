"""The mean of trained networks (model soups, Wortsman et al., ICML 2022, arXiv:2203.05482)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.checkpoints import load_segmenter
from models.errors import ModelError
from models.segmenter import Preset, Segmenter


def average(files: Sequence[Path], preset: str | None = None) -> tuple[Segmenter, Preset]:
    """(the network whose every weight and statistic is the mean of the files', its preset).

    Sums are float64. What counts (``num_batches_tracked``) is the first file's.

    Args:
        files: checkpoints of one preset and form, at least one.
        preset: of checkpoints that do not say.

    Raises:
        ModelError: a file that cannot be read, or is in another form than the first.
    """
    mean, found, _report = load_segmenter(files[0], preset)
    state = mean.state_dict()
    total = {key: value.double() for key, value in state.items() if value.is_floating_point()}
    for file in files[1:]:
        other = load_segmenter(file, found.name)[0].state_dict()
        if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in state.items()}:
            raise ModelError(f"'{file}' is in another form than '{files[0]}'")
        for key in total:
            total[key] += other[key].double()
    with torch.no_grad():
        for key, value in total.items():
            state[key].copy_(value / len(files))
    return mean, found
