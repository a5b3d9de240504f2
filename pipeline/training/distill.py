"""Quantization-aware distillation without labels: the float network teaches its INT8 self.

Student and teacher see the same frames, mirrored in turn; the student's weights and biases move to
lower the mean over positions of

    KL(teacher || student) = sum_c t_c (log t_c - log s_c),    t, s = softmax of the logits

(Hinton et al. 2015). Activation scales stay as calibrated. Adam's step is a share of each tensor's
own root mean square, so one rate serves kernels of all sizes. One frame in eight is held out and
judges: where the student is not nearer to its teacher there afterwards, it stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.training.qdq_module import QdqModule

Frames = Sequence[npt.NDArray[np.uint8]]
HELD_OUT = 8


@dataclass(frozen=True)
class DistillConfig:
    """Numbers of one run; ``rate`` is Adam's step as a share of a tensor's root mean square."""

    steps: int = 200
    rate: float = 2e-4
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Distilled:
    """What it brought on the held-out frames: mean KL in nats, and labels equal to the teacher's.

    ``kept`` is false where the student got no nearer and its weights are the first ones.
    """

    before: float
    after: float
    labels_before: float
    labels_after: float
    kept: bool
    frames: int
    held_out: int


def distill(
    student: QdqModule, teacher: nn.Module, frames: Frames, config: DistillConfig,
    notify: Callable[[int], None] = lambda step: None,
) -> Distilled:  # fmt: skip
    """Train ``student`` in place.

    Args:
        student: the Q/DQ graph.
        teacher: the float network, frozen.
        frames: inputs, each (N, H, W, 3) uint8; at least two.
        config: the numbers.
        notify: told the steps done.
    """
    held = list(range(HELD_OUT - 1, len(frames), HELD_OUT)) or [len(frames) - 1]
    taught = [i for i in range(len(frames)) if i not in held]
    first = {k: v.detach().clone() for k, v in student.state_dict().items()}
    before, labels_before = _judge(student, teacher, frames, held)
    groups = [
        {"params": [p], "lr": config.rate, "size": float(p.detach().square().mean().sqrt())}
        for p in student.parameters()
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    order = np.random.default_rng(config.seed)
    for step in range(config.steps):
        x = torch.from_numpy(np.ascontiguousarray(frames[taught[order.integers(len(taught))]]))
        if order.random() < 0.5:
            x = x.flip(2)
        with torch.no_grad():
            target = teacher(x)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * group["size"] * _pace(config, step)
        optimizer.zero_grad(set_to_none=True)
        _divergence(student(x), target).backward()  # type: ignore[no-untyped-call]  # torch's stub
        nn.utils.clip_grad_norm_(student.parameters(), config.clip)
        optimizer.step()
        notify(step + 1)
    after, labels_after = _judge(student, teacher, frames, held)
    kept = after < before
    if not kept:
        student.load_state_dict(first)
    return Distilled(before, after, labels_before, labels_after, kept, len(taught), len(held))


def _pace(config: DistillConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    log_t, log_s = F.log_softmax(teacher, 1), F.log_softmax(student, 1)
    return (log_t.exp() * (log_t - log_s)).sum(1).mean()


@torch.no_grad()
def _judge(
    student: nn.Module, teacher: nn.Module, frames: Frames, which: Sequence[int]
) -> tuple[float, float]:
    """(mean KL, share of equal labels) on those frames."""
    apart, same = 0.0, 0.0
    for i in which:
        x = torch.from_numpy(np.ascontiguousarray(frames[i]))
        s, t = student(x), teacher(x)
        apart += float(_divergence(s, t))
        same += float((s.argmax(1) == t.argmax(1)).float().mean())
    return float(np.nan_to_num(apart, nan=1e30, posinf=1e30)) / len(which), same / len(which)
