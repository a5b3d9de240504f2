"""UperNet head (Xiao et al., ECCV 2018): pyramid pooling, feature pyramid, fusion, classifier.

From four maps at strides 4, 8, 16, 32:

1. pyramid pooling on the last map: adaptive average pooling to 1, 2, 3 and 6 bins, 1x1 conv each,
   bilinear back to the map's size, concatenated with the map, 3x3 conv;
2. lateral 1x1 convs on the others, top-down path: each adds the bilinear upsampling of the next;
3. 3x3 conv on each but the last, all upsampled to stride 4 and concatenated, 3x3 fusion conv;
4. 1x1 classifier: float logits at stride 4.

With ``early_fusion`` step 3 convolves before it upsamples: the fusion kernel's slice for each
level runs at that level's own stride, and the results are added from the coarsest up. For a 1x1
kernel that would be the same function, by linearity; for 3x3 it is a close relative with the same
parameters and a third of the multiply-adds, and nothing is concatenated at stride 4.

Every convolution but the classifier is Conv + BatchNorm + ReLU. Bilinear resampling is half-pixel
(``align_corners=False``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convolution import ConvBN
from models.errors import ModelError

POOL_BINS = (1, 2, 3, 6)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, half-pixel, to (height, width)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    """(N, C, H, W) -> (N, width, H, W): context of the whole map at four grains."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.bins = POOL_BINS
        self.branches = nn.ModuleList(ConvBN(channels, width, 1, relu=True) for _ in self.bins)
        self.bottleneck = ConvBN(channels + len(self.bins) * width, width, 3, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        parts = [x]
        for bins, branch in zip(self.bins, self.branches, strict=True):
            parts.append(upsample(branch(F.adaptive_avg_pool2d(x, bins)), x.shape[2:]))
        return self.bottleneck(torch.cat(parts, dim=1))  # type: ignore[no-any-return]  # nn.Module


class UperNetHead(nn.Module):
    """Four maps of ``channels`` widths -> logits (N, classes, H/4, W/4)."""

    def __init__(
        self, channels: Sequence[int], width: int, classes: int, *, early_fusion: bool = False
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ModelError("UperNet needs at least two levels")
        self.width, self.classes, self.early_fusion = width, classes, early_fusion
        self.ppm = PyramidPooling(channels[-1], width)
        self.laterals = nn.ModuleList(ConvBN(c, width, 1, relu=True) for c in channels[:-1])
        self.fpn = nn.ModuleList(ConvBN(width, width, 3, relu=True) for _ in channels[:-1])
        self.fusion = ConvBN(len(channels) * width, width, 3, relu=True)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """See the class."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, levels, strict=False)]
        maps.append(self.ppm(levels[-1]))
        for i in range(len(maps) - 2, -1, -1):
            maps[i] = maps[i] + upsample(maps[i + 1], maps[i].shape[2:])
        outs = [conv(x) for conv, x in zip(self.fpn, maps, strict=False)] + [maps[-1]]
        if self.early_fusion:
            return self.classifier(self._fuse_early(outs))  # type: ignore[no-any-return]  # nn.Module
        size = outs[0].shape[2:]
        fused = torch.cat([outs[0]] + [upsample(x, size) for x in outs[1:]], dim=1)
        return self.classifier(self.fusion(fused))  # type: ignore[no-any-return]  # nn.Module

    def fusion_slices(self) -> list[Tensor]:
        """The fusion kernel's (width, width, 3, 3) slice of each level, finest first."""
        return list(torch.split(self.fusion.conv.weight, self.width, dim=1))

    def _fuse_early(self, outs: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for x, weight in zip(reversed(outs), reversed(self.fusion_slices()), strict=True):
            own = F.conv2d(x, weight, padding=1)
            total = own if total is None else own + upsample(total, own.shape[2:])
        return self.fusion.relu(self.fusion.bn(total))  # type: ignore[no-any-return]  # nn.Module


class AuxiliaryHead(nn.Module):
    """FCN head on one level, for deep supervision in training only: never exported."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBN(channels, width, 3, relu=True)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, level: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes, H, W) at the level's own stride."""
        return self.classifier(self.conv(level))  # type: ignore[no-any-return]  # nn.Module
