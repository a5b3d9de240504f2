"""Losses for thin classes: weighted cross entropy with online hard example mining, plus Dice.

* Class weights (Paszke et al. 2016, ENet): w_c = 1 / ln(1.02 + p_c) with p_c the share of pixels,
  here scaled to a mean of 1 over the classes that occur.
* OHEM (Shrivastava et al. 2016): only pixels whose true class has probability below ``threshold``
  count, but never fewer than ``keep`` of the labelled ones (the hardest).
* Dice: 1 - mean_c (2 sum p_c t_c) / (sum p_c + sum t_c) over classes present in the batch; it
  weighs a pole's few pixels like a road's many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from calibration.cityscapes import IGNORE


@dataclass(frozen=True)
class LossConfig:
    """What the loss counts.

    Attributes:
        balance: exponent of the class weights; 1 finds every person and calls four times as many
            pixels one, 0 makes the probabilities honest.
        threshold: OHEM: pixels at least this sure of the truth do not count.
        keep: OHEM: but at least this share of the labelled pixels does; 1 counts every pixel.
        dice: weight of the Dice term; 0 leaves it out.
    """

    balance: float = 0.5
    threshold: float = 0.7
    keep: float = 0.25
    dice: float = 1.0


LOSSES: Mapping[str, LossConfig] = {
    "hard": LossConfig(),
    "plain": LossConfig(balance=0.0, keep=1.0, dice=0.0),
}
"""By name: hard looks for rare classes; plain is the cross entropy of every pixel."""


def class_weights(shares: npt.NDArray[np.float64], balance: float = 1.0) -> npt.NDArray[np.float32]:
    """ENet weights of pixel shares (C,) to the power ``balance``.

    float32 with mean 1 over classes with share > 0; 1 for the others.
    """
    present = shares > 0
    weights = np.where(present, np.log(1.02 + shares) ** -balance, 0.0)
    if present.any():
        weights = weights / weights[present].mean()
    return np.where(present, weights, 1.0).astype(np.float32)


def segmentation_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, config: LossConfig = LOSSES["hard"]
) -> Tensor:
    """Scalar loss.

    Args:
        logits: (N, C, H, W) float at the labels' resolution.
        labels: (N, H, W) int64 train ids, 255 ignored.
        weights: (C,) class weights.
        config: what counts; its ``balance`` is in ``weights`` already.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    losses = F.nll_loss(log_p, labels, weight=weights, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    count = int(valid.sum())
    if count == 0:
        return logits.sum() * 0.0
    safe = labels.masked_fill(~valid, 0)
    truth = -log_p.detach().gather(1, safe.unsqueeze(1)).squeeze(1)[valid]
    kept = max(1, int(config.keep * count))
    # -log p of the kept-th hardest pixel, or of the threshold, whichever lets more pixels in.
    bound = min(float(truth.kthvalue(count - kept + 1).values), -float(np.log(config.threshold)))
    hard = truth >= bound
    chosen = losses[valid][hard]
    mass = weights[labels[valid][hard]].sum().clamp_min(1e-6)
    loss = chosen.sum() / mass
    if config.dice:
        loss = loss + config.dice * _dice(log_p.exp(), safe, valid)
    return loss


def _dice(p: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    classes = p.shape[1]
    p = p * valid.unsqueeze(1)
    flat = p.permute(1, 0, 2, 3).reshape(classes, -1)
    index = labels.reshape(-1)
    mask = valid.reshape(-1)
    hit = flat.gather(0, index.unsqueeze(0)).squeeze(0)
    overlap = flat.new_zeros(classes).index_add(0, index, hit * mask)
    truth = torch.bincount(index[mask], minlength=classes).to(flat.dtype)
    present = truth > 0
    score = (2 * overlap + 1.0) / (flat.sum(dim=1) + truth + 1.0)
    return 1.0 - score[present].mean()


def upsample_pixels(
    logits: Tensor, size: Sequence[int], stride: int, row: int, column: int
) -> Tensor:
    """Pixels [row::stride, column::stride] of the half-pixel bilinear upsampling to ``size``.

    Equal to ``interpolate(logits, size, mode="bilinear")[..., row::stride, column::stride]``
    without the pixels in between.
    """
    y = (torch.arange(row, size[0], stride, device=logits.device) * 2 + 1) / size[0] - 1
    x = (torch.arange(column, size[1], stride, device=logits.device) * 2 + 1) / size[1] - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(logits.dtype)
    grid = grid.expand(logits.shape[0], -1, -1, -1)
    return F.grid_sample(logits, grid, padding_mode="border", align_corners=False)
