"""Untrained weights as a file, for whoever asks about speed and sizes alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import torch

from models.checkpoints import read_tensors, save_segmenter
from models.errors import ModelError
from models.repmlp import RepMLPUnit
from models.segmenter import build_segmenter, find_preset

BRANCH: Final = 0.1
"""What enters a residual branch of an untrained network, as a share of what passes it by."""


def random_checkpoint(preset: str, folder: Path) -> Path:
    """A file of untrained weights of that preset, always the same, in ``folder``.

    Its residual branches count a tenth. Untrained, with BatchNorms that have seen nothing, each
    would double what goes through it: D256's logits came to 10^12, and float32's rounding alone
    opened and closed its gates.

    Written anew only where there are others, such as of the preset before a change, or a damaged
    file: its bytes differ from one writing to the next, and what was built is found by them.

    Raises ``ModelError`` for an unknown preset.
    """
    model = build_segmenter(find_preset(preset), seed=0)
    for unit in model.modules():
        if isinstance(unit, RepMLPUnit):
            for norm in (unit.prebn1, unit.prebn2):
                torch.nn.init.constant_(norm.weight, BRANCH)
    path = folder / f"random-{preset}.safetensors"
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith("auxiliary.")}
    with contextlib.suppress(ModelError):
        there, _metadata = read_tensors(path)
        if there.keys() == wanted.keys() and all(
            torch.equal(there[name], wanted[name]) for name in wanted
        ):
            return path
    save_segmenter(model, preset, path, {"weights": "random, seed 0"})
    return path
