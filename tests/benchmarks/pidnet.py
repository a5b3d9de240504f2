"""PIDNet-S (Xu et al., CVPR 2023), untrained: the peer whose speed ours is held against.

Written from the paper's tables and figures: a stem to stride 4; three branches from stride 8, P
(detail), I (context) and D (boundary); P takes from I where a pixel's features agree (Pag), D adds
I's difference, I ends in a parallel pyramid (PAPPM), and D's boundary weighs P against I at the end
(Light-Bag). Inference only: no auxiliary heads. Logits at stride 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, CONTEXT, HEAD = 32, 96, 128


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def bn_conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """BatchNorm, ReLU, convolution."""
    conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


def grown(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the other's size."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Residual(nn.Module):
    """Two 3x3 convolutions (basic) or 1x1, 3x3, 1x1 with twice the width (bottleneck)."""

    def __init__(
        self, inputs: int, planes: int, stride: int = 1, *, wide: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        outputs = 2 * planes if wide else planes
        sizes = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
        if not wide:
            sizes = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [conv_bn(*size), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        self.way: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.way = conv_bn(inputs, outputs, 1, stride)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """The last block of a stage leaves its ReLU to whoever reads it."""
        y: Tensor = self.body(x) + self.way(x)
        return y if self.last else F.relu(y)


def stage(
    inputs: int, planes: int, count: int, stride: int = 1, *, wide: bool = False
) -> nn.Sequential:
    """``count`` residual blocks."""
    outputs = 2 * planes if wide else planes
    return nn.Sequential(
        *(
            Residual(
                inputs if i == 0 else outputs, planes, stride if i == 0 else 1,
                wide=wide, last=i == count - 1,
            )
            for i in range(count)
        )
    )  # fmt: skip


class Pag(nn.Module):
    """P takes I where their embeddings agree: sigma = sigmoid(<f(p), g(i)>)."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.f, self.g = conv_bn(channels, middle), conv_bn(channels, middle)

    def forward(self, p: Tensor, i: Tensor) -> Tensor:
        """(1 - sigma) p + sigma i."""
        agree = torch.sigmoid((self.f(p) * grown(self.g(i), p)).sum(1, keepdim=True))
        return (1 - agree) * p + agree * grown(i, p)


class Pappm(nn.Module):
    """Means over growing windows, each added to the level itself, fused by one grouped 3x3."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        pools = [nn.AvgPool2d(k, s, k // 2) for k, s in ((5, 2), (9, 4), (17, 8))]
        self.scales = nn.ModuleList(
            nn.Sequential(pool, bn_conv(inputs, middle))
            for pool in (*pools, nn.AdaptiveAvgPool2d(1))
        )
        self.own = bn_conv(inputs, middle)
        self.process = bn_conv(4 * middle, 4 * middle, 3, groups=4)
        self.compress = bn_conv(5 * middle, outputs)
        self.shortcut = bn_conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        own = self.own(x)
        pooled = torch.cat([grown(scale(x), x) + own for scale in self.scales], 1)
        out: Tensor = self.compress(torch.cat([own, self.process(pooled)], 1)) + self.shortcut(x)
        return out


class PidNetS(nn.Module):
    """(N, H, W, 3) uint8 frames -> (N, classes, H/8, W/8) logits."""

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        w = WIDTH
        self.stem = nn.Sequential(
            conv_bn(3, w, 3, 2), nn.ReLU(), conv_bn(w, w, 3, 2), nn.ReLU(), stage(w, w, 2),
            nn.ReLU(), stage(w, 2 * w, 2, 2), nn.ReLU(),
        )  # fmt: skip
        self.i3, self.i4 = stage(2 * w, 4 * w, 3, 2), stage(4 * w, 8 * w, 3, 2)
        self.i5 = stage(8 * w, 8 * w, 2, 2, wide=True)
        self.to_p3, self.to_p4 = conv_bn(4 * w, 2 * w), conv_bn(8 * w, 2 * w)
        self.pag3, self.pag4 = Pag(2 * w, w), Pag(2 * w, w)
        self.p3, self.p4 = stage(2 * w, 2 * w, 2), stage(2 * w, 2 * w, 2)
        self.p5 = stage(2 * w, 2 * w, 1, wide=True)
        self.d3 = stage(2 * w, w, 1)
        self.d4 = stage(w, w, 1, wide=True)
        self.d5 = stage(2 * w, 2 * w, 1, wide=True)
        self.to_d3, self.to_d4 = conv_bn(4 * w, w, 3), conv_bn(8 * w, 2 * w, 3)
        self.context = Pappm(16 * w, CONTEXT, 4 * w)
        self.from_p, self.from_i = conv_bn(4 * w, 4 * w), conv_bn(4 * w, 4 * w)
        self.head = bn_conv(4 * w, HEAD, 3)
        self.classify = bn_conv(HEAD, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        x = self.stem((frames.permute(0, 3, 1, 2).float() - 114.0) / 57.0)
        p, d = self.p3(x), self.d3(x)
        i = F.relu(self.i3(x))
        p = self.pag3(p, self.to_p3(i))
        d = d + grown(self.to_d3(i), d)
        i = F.relu(self.i4(i))
        p, d = self.p4(F.relu(p)), self.d4(F.relu(d))
        p = self.pag4(p, self.to_p4(i))
        d = d + grown(self.to_d4(i), d)
        p, d = self.p5(F.relu(p)), self.d5(F.relu(d))
        i = grown(self.context(self.i5(i)), p)
        edge = torch.sigmoid(d)
        fused = self.from_p(p + (1 - edge) * i) + self.from_i(i + edge * p)
        out: Tensor = self.classify(self.head(fused))
        return out
