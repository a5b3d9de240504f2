"""RepMLPNet (Ding et al., CVPR 2022) as the backbone of a segmentation network (Appendix B).

One RepMLP block maps a feature map x of shape (N, C, H, W), cut into non-overlapping patches of
h x w, to

    y = gate(x) * [ BN(FC3(p)) + sum_k BN_k(conv_k(p)) ]         for every patch p

* FC3 is one fully connected layer over the h*w positions of a patch. It has S *share-sets*:
  channel c uses set c mod S, so a kernel is (S, h*w, h*w) and not (C, h*w, h*w).
* conv_k are k x k convolutions with the same S sets, zero padded *inside the patch*.
* gate is the global perceptron: sigmoid(fc2(relu(fc1(mean of x over the whole map)))), (N, C).

Training form keeps the branches apart. Deploy form has them merged into FC3, or, *split*, into one
k x k convolution beside FC3 (see ``locality``).
Parameter names are those of the public RepMLPNet release, so its checkpoints load unchanged.

For segmentation the 2x embeddings between stages become 1x1 expansion + 3x3 stride-2 depthwise
convolution (``downsample``), which carries information across patch edges, and each stage's
output is normalised on its own (``norms``) before the head reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convolution import ConvBN, Downsample, Refinement
from models.errors import InputShapeError, ModelError

STEM_STRIDE = 4


@dataclass(frozen=True)
class BackboneConfig:
    """Plain numbers that define a backbone. One entry per stage.

    Attributes:
        channels: width of each stage.
        patches: side of the square patch of each stage, in pixels of that stage's map.
        blocks: RepMLP units in each stage.
        sharesets: S of each stage; divides the stage's channels.
        kernels: odd sizes of the parallel convolutions, the same in every block.
        gate_reduction: C / hidden width of the global perceptron.
        ffn_expand: hidden width / C of the feed-forward unit.
        stem: 0 for the paper's 4x4 patch embedding; otherwise the width of a two-step one, a 2x2
            embedding followed by an overlapping 3x3 stride-2 convolution (Xiao et al. 2021, "Early
            convolutions help transformers see better"). 48 numbers of a 4x4 patch do not fit into
            16 channels; 12 of a 2x2 patch do, and a pole two pixels wide survives.
        refine: residual pairs of 3x3 convolutions behind that stem (He et al. 2016). Where a stage
            has one share-set all its channels see through the same window: what tells a pole from a
            window frame must be made before it.
        activation: of the feed-forward units: the paper's GELU, or ReLU, which INT8 engines fuse
            into the convolution before it and quantize without a sign.
    """

    channels: tuple[int, ...]
    patches: tuple[int, ...]
    blocks: tuple[int, ...]
    sharesets: tuple[int, ...]
    kernels: tuple[int, ...] = (1, 3)
    gate_reduction: int = 4
    ffn_expand: int = 4
    stem: int = 0
    refine: int = 0
    activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.patches) == len(self.blocks) == len(self.sharesets):
            raise ModelError("channels, patches, blocks and sharesets need one number per stage")
        for c, s in zip(self.channels, self.sharesets, strict=True):
            if c % s:
                raise ModelError(f"{s} share-sets do not divide {c} channels")
        if any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ModelError(f"kernel sizes must be odd, got {self.kernels}")
        if self.refine and not self.stem:
            raise ModelError("only a two-step stem can be refined")
        for first, second in zip(self.patches, self.patches[1:], strict=False):
            if first != 2 * second:
                raise ModelError(f"each patch must be half the one before it, got {self.patches}")

    @property
    def unit(self) -> int:
        """Pixels of the image along one side of a patch: inputs are whole multiples of it."""
        return STEM_STRIDE * self.patches[0]


def check_input_size(height: int, width: int, unit: int, what: str = "input") -> None:
    """Raise ``InputShapeError`` unless both sides are positive multiples of ``unit`` pixels.

    Args:
        height: in pixels.
        width: in pixels.
        unit: side of a patch in pixels.
        what: the message begins with; the option, where one asked for this size.
    """
    if height > 0 and width > 0 and height % unit == 0 and width % unit == 0:
        return

    def nearest(size: int) -> list[int]:
        below = size // unit * unit
        return [n for n in (below, below + unit) if n > 0 and (size % unit or n == size)]

    fits = [f"{h}x{w}" for h in nearest(height) for w in nearest(width)]
    raise InputShapeError(
        f"{what} {height}x{width} is not a whole number of {unit}x{unit} patches; "
        f"nearest sizes that fit: {', '.join(fits)}"
    )


class GlobalPerceptron(nn.Module):
    """The channel gate: (N, C, H, W) -> (N, C, 1, 1) in (0, 1), from the mean of the whole map."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the map, FC, ReLU, FC, sigmoid."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.fc2(F.relu(self.fc1(mean))))


def split_patches(x: Tensor, h: int, w: int, sets: int) -> Tensor:
    """(N, C, H, W) -> (S, M, h*w): rows of one share-set, M = N * C/S * patches.

    Row order is (image, group, patch row, patch column) with channel = group * S + set.
    """
    n, c, height, width = x.shape
    rows, cols = height // h, width // w
    x = x.reshape(n, c // sets, sets, rows, h, cols, w)
    return x.permute(2, 0, 1, 3, 5, 4, 6).reshape(sets, -1, h * w)


def merge_patches(x: Tensor, shape: Sequence[int], h: int, w: int) -> Tensor:
    """Inverse of ``split_patches``: (S, M, h*w) -> ``shape`` = (N, C, H, W)."""
    n, c, height, width = shape
    sets = x.shape[0]
    x = x.reshape(sets, n, c // sets, height // h, width // w, h, w)
    return x.permute(1, 2, 0, 3, 5, 4, 6).reshape(n, c, height, width)


class RepMLPBlock(nn.Module):
    """One RepMLP block over maps of whole patches. See the module docstring for the formula.

    Attributes:
        h, w: patch size in pixels of this map.
        sets: S, the number of share-sets.
        kernels: sizes of the parallel convolutions; empty in deploy form.
        local: in split form the one merged convolution, with a bias; otherwise ``None``.
    """

    def __init__(
        self, channels: int, h: int, w: int, *, sets: int, kernels: Sequence[int],
        gate_reduction: int = 4, deploy: bool = False, split: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if split and not deploy:
            raise ModelError("only a deploy-form block can be split")
        self.channels, self.h, self.w, self.sets = channels, h, w, sets
        self.deploy = deploy
        self.kernels: tuple[int, ...] = () if deploy else tuple(kernels)
        self.gp = GlobalPerceptron(channels, max(1, channels // gate_reduction))
        area = h * w
        # A grouped 1x1 convolution only in name, for the published keys; it runs as a matmul.
        self.fc3 = nn.Conv2d(area * sets, area * sets, 1, groups=sets, bias=deploy)
        self.fc3_bn = nn.Identity() if deploy else nn.BatchNorm2d(sets)
        for k in self.kernels:
            self.add_module(f"repconv{k}", ConvBN(sets, sets, k, groups=sets))
        self.local: nn.Conv2d | None = None
        if split:
            self.add_local(split)

    def add_local(self, kernel: int) -> None:
        """Give a deploy-form block its one merged convolution: the split form."""
        self.local = nn.Conv2d(self.sets, self.sets, kernel, padding=kernel // 2, groups=self.sets)

    @property
    def form(self) -> str:
        """``train``, ``full`` (all merged into FC3) or ``split`` (FC3 beside one convolution)."""
        if not self.deploy:
            return "train"
        return "full" if self.local is None else "split"

    def branch(self, kernel: int) -> nn.Module:
        """The parallel convolution of that size."""
        return self.get_submodule(f"repconv{kernel}")

    def fc3_matrix(self) -> Tensor:
        """FC3's kernel as (S, h*w out, h*w in)."""
        return self.fc3.weight.view(self.sets, self.h * self.w, self.h * self.w)

    def spatial(self, x: Tensor) -> Tensor:
        """Everything in the block but its gate: (N, C, H, W) -> the same shape."""
        patches = split_patches(x, self.h, self.w, self.sets)
        out = torch.bmm(patches, self.fc3_matrix().to(patches.dtype).transpose(1, 2))
        if self.fc3.bias is not None:
            out = out + self.fc3.bias.view(self.sets, 1, -1)
        elif isinstance(self.fc3_bn, nn.BatchNorm2d):
            # BatchNorm wants its channel (the set) second: (M, S, h*w, 1).
            out = self.fc3_bn(out.transpose(0, 1).unsqueeze(-1)).squeeze(-1).transpose(0, 1)
        if self.kernels or self.local is not None:
            images = patches.transpose(0, 1).reshape(-1, self.sets, self.h, self.w)
            if self.local is not None:
                conv = self.local(images)
            else:
                conv = torch.stack([self._branch_of(k, images) for k in self.kernels]).sum(0)
            out = out + conv.reshape(-1, self.sets, self.h * self.w).transpose(0, 1)
        return merge_patches(out, x.shape, self.h, self.w)

    def _branch_of(self, kernel: int, images: Tensor) -> Tensor:
        """One parallel branch of (M, S, h, w)."""
        branch = self.branch(kernel)
        if kernel > 1 or not isinstance(branch, ConvBN):
            return branch(images)  # type: ignore[no-any-return]  # nn.Module
        # One number per set. As a grouped convolution its backward pass takes a third of a training
        # step on a CPU; as a product it takes next to nothing.
        scaled = images * branch.conv.weight.view(1, -1, 1, 1).to(images.dtype)
        return branch.bn(scaled)  # type: ignore[no-any-return]  # nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); H and W are whole multiples of the patch."""
        if x.shape[2] % self.h or x.shape[3] % self.w:
            raise InputShapeError(
                f"map {x.shape[2]}x{x.shape[3]} is not a whole number of {self.h}x{self.w} patches"
            )
        gate: Tensor = self.gp(x)
        return self.spatial(x) * gate


class FFNBlock(nn.Module):
    """1x1 convolutions C -> expand * C -> C with BatchNorm after each and GELU or ReLU between."""

    def __init__(self, channels: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        self.activation = activation
        self.ffn_fc1 = ConvBN(channels, hidden, 1)
        self.ffn_fc2 = ConvBN(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        hidden = self.ffn_fc1(x)
        hidden = F.relu(hidden) if self.activation == "relu" else F.gelu(hidden)
        return self.ffn_fc2(hidden)  # type: ignore[no-any-return]  # nn.Module


class RepMLPUnit(nn.Module):
    """Pre-normalised residual pair: x + block(BN(x)), then y + ffn(BN(y))."""

    def __init__(self, block: RepMLPBlock, ffn: FFNBlock) -> None:
        super().__init__()
        self.repmlp_block = block
        self.ffn_block = ffn
        self.prebn1 = nn.BatchNorm2d(block.channels)
        self.prebn2 = nn.BatchNorm2d(block.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = x + self.repmlp_block(self.prebn1(x))
        return x + self.ffn_block(self.prebn2(x))  # type: ignore[no-any-return]  # nn.Module


def units_of(stage: nn.Module) -> list[RepMLPUnit]:
    """The units of one entry of ``RepMLPNet.stages``, typed."""
    return [unit for unit in stage.children() if isinstance(unit, RepMLPUnit)]


class RepMLPNet(nn.Module):
    """Image (N, 3, H, W), normalised RGB -> four normalised maps at strides 4, 8, 16, 32."""

    def __init__(self, config: BackboneConfig, *, deploy: bool = False) -> None:
        super().__init__()
        self.config = config
        first = 2 if config.stem else STEM_STRIDE
        self.conv_embedding = ConvBN(
            3, config.stem or config.channels[0], first, stride=first, padding=0, relu=True
        )
        self.stem: ConvBN | None = None
        if config.stem:
            self.stem = ConvBN(config.stem, config.channels[0], 3, stride=2, relu=True)
        self.refine = nn.ModuleList(Refinement(config.channels[0]) for _ in range(config.refine))
        self.stages = nn.ModuleList()
        for c, p, n, s in zip(
            config.channels, config.patches, config.blocks, config.sharesets, strict=True
        ):
            units = [
                RepMLPUnit(
                    RepMLPBlock(
                        c, p, p, sets=s, kernels=config.kernels,
                        gate_reduction=config.gate_reduction, deploy=deploy,
                    ),
                    FFNBlock(c, c * config.ffn_expand, config.activation),
                )
                for _ in range(n)
            ]  # fmt: skip
            self.stages.append(nn.ModuleList(units))
        pairs = zip(config.channels, config.channels[1:], strict=False)
        self.downsample = nn.ModuleList(Downsample(a, b) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in config.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class. Raises ``InputShapeError`` when the image is not whole patches."""
        check_input_size(image.shape[2], image.shape[3], self.config.unit)
        x = self.conv_embedding(image)
        if self.stem is not None:
            x = self.stem(x)
        for refinement in self.refine:
            x = refinement(x)
        levels: list[Tensor] = []
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index:
                x = self.downsample[index - 1](x)
            for unit in units_of(stage):
                x = unit(x)
            levels.append(norm(x))
        return levels

    def repmlp_blocks(self) -> list[tuple[str, RepMLPBlock]]:
        """Every RepMLP block with its module name, in the order it runs."""
        return [(n, m) for n, m in self.named_modules() if isinstance(m, RepMLPBlock)]
