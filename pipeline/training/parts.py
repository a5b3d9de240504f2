"""Which weights of a network a run trains, and how each is decayed."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torch import nn

from models.segmenter import Segmenter

Part: TypeAlias = Literal["classifier"]


def trained_groups(model: Segmenter, decay: float, only: Part | None) -> list[dict[str, Any]]:
    """The optimiser's groups; what is not in them is frozen.

    Weight decay on kernels only: a decayed BatchNorm scale or bias is a worse network.

    Args:
        model: its parameters are marked as to be trained or not.
        decay: weight decay.
        only: the one part to be trained; ``None`` trains everything.
    """
    model.requires_grad_(only is None)
    part: nn.Module = model if only is None else model.head.classifier
    part.requires_grad_(True)
    kernels = [p for p in part.parameters() if p.ndim > 1]
    rest = [p for p in part.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
