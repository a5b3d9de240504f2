"""What the model tests share: networks whose every parameter does something."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from models.repmlp import BackboneConfig
from models.segmenter import Preset, Segmenter, build_segmenter

Module = TypeVar("Module", bound=nn.Module)

TINY = Preset(
    "tiny", BackboneConfig((4, 8, 16, 32), (8, 4, 2, 1), (1, 1, 1, 1), (1, 2, 4, 8)), width=8
)


def randomise(module: Module, seed: int = 0) -> Module:
    """Random weights, biases and BatchNorm statistics: nothing left at one or zero."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        with torch.no_grad():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            uniform(part.weight, 0.5, 1.5)
            uniform(part.bias, -0.5, 0.5)
            uniform(part.running_mean, -0.5, 0.5)
            if part.running_var is not None:
                uniform(part.running_var, 0.5, 2.0)
        elif isinstance(part, nn.Conv2d) and part.bias is not None:
            uniform(part.bias, -0.5, 0.5)
    return module


def tiny_segmenter(seed: int = 0, *, auxiliary: bool = False) -> Segmenter:
    """A whole network small enough for every test."""
    return randomise(build_segmenter(TINY, seed=seed, auxiliary=auxiliary), seed).eval()
