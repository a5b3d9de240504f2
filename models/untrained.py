"""Untrained weights as a file, for whoever asks about speed and sizes alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from models.checkpoints import read_tensors, save_segmenter
from models.errors import ModelError
from models.segmenter import build_segmenter, find_preset


def random_checkpoint(preset: str, folder: Path) -> Path:
    """A file of untrained weights of that preset, always the same, in ``folder``.

    Written anew only where there are others, such as of the preset before a change, or a damaged
    file: its bytes differ from one writing to the next, and what was built is found by them.

    Raises ``ModelError`` for an unknown preset.
    """
    model = build_segmenter(find_preset(preset), seed=0)
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
