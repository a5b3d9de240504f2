"""Convolutions with BatchNorm, and what RepMLPNet and its head build from them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvBN(nn.Sequential):
    """Convolution without bias, then BatchNorm, then ReLU if asked: keys ``conv``, ``bn``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1,
        padding: int | None = None, groups: int = 1, relu: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        pad = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if relu:
            self.relu = nn.ReLU()


class Downsample(nn.Module):
    """1x1 expansion + 3x3 stride-2 depthwise convolution: patches see across their edges."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = ConvBN(inputs, outputs, 1, relu=True)
        self.reduce = ConvBN(outputs, outputs, 3, stride=2, groups=outputs, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H/2, W/2)."""
        return self.reduce(self.expand(x))  # type: ignore[no-any-return]  # nn.Module


class Refinement(nn.Module):
    """relu(x + conv3x3(relu(conv3x3(x)))), each with BatchNorm, of a map that is not negative."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBN(channels, channels, 3, relu=True)
        self.second = ConvBN(channels, channels, 3)
        # It begins as the identity (Goyal et al. 2017), also in a network that had none.
        nn.init.zeros_(self.second.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.relu(x + self.second(self.first(x)))
