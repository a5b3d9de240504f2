"""The whole network: RepMLPNet backbone + UperNet head, and the presets that size them.

A preset is plain numbers. The six paper presets are Table 2 of the paper; T224 and B224 have
patches of 56 at stride 4 (224 pixels), the others 64 (256 pixels). The two edge presets are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.repmlp import BackboneConfig, RepMLPNet
from models.upernet import AuxiliaryHead, UperNetHead

NUM_CLASSES = 19
# ImageNet statistics of RGB in 0..255, the normalisation every published RepMLPNet expects.
MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)
AUXILIARY_LEVEL = 2


@dataclass(frozen=True)
class Preset:
    """A named size: the backbone's numbers, the head's width and how it fuses its levels."""

    name: str
    backbone: BackboneConfig
    width: int
    early_fusion: bool = False
    classes: int = NUM_CLASSES

    @property
    def unit(self) -> int:
        """Inputs are whole multiples of this many pixels on both sides."""
        return self.backbone.unit


def _paper(
    name: str, base: int, sets: tuple[int, ...], blocks: tuple[int, ...], patch: int
) -> Preset:
    channels = (base, 2 * base, 4 * base, 8 * base)
    patches = (patch, patch // 2, patch // 4, patch // 8)
    # The published models have only a 1x1 and a 3x3 branch beside FC3.
    return Preset(name, BackboneConfig(channels, patches, blocks, sets), width=512)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "edge-s",
            BackboneConfig(
                (16, 32, 64, 128),
                (32, 16, 8, 4),
                (1, 1, 2, 1),
                (1, 2, 8, 32),
                stem=12,
                activation="relu",
            ),
            width=32,
            early_fusion=True,
        ),
        Preset(
            "edge-m",
            BackboneConfig(
                (32, 64, 128, 256),
                (32, 16, 8, 4),
                (1, 2, 4, 2),
                (1, 4, 16, 64),
                stem=16,
                refine=1,
                activation="relu",
            ),
            width=48,
            early_fusion=True,
        ),
        _paper("T224", 64, (1, 4, 16, 128), (2, 2, 6, 2), 56),
        _paper("T256", 64, (1, 4, 16, 128), (2, 2, 6, 2), 64),
        _paper("B224", 96, (1, 4, 32, 128), (2, 2, 12, 2), 56),
        _paper("B256", 96, (1, 4, 32, 128), (2, 2, 12, 2), 64),
        _paper("D256", 80, (1, 4, 16, 128), (2, 2, 18, 2), 64),
        _paper("L256", 96, (1, 4, 32, 256), (2, 2, 18, 2), 64),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of that name; ``ModelError`` lists the names there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ModelError(f"unknown preset '{name}': choose from {', '.join(PRESETS)}") from None


class Segmenter(nn.Module):
    """Normalised RGB image (N, 3, H, W) float -> logits (N, classes, H/4, W/4) float.

    ``auxiliary`` exists in training only; ``forward_train`` returns its logits too.
    """

    def __init__(
        self, backbone: RepMLPNet, head: UperNetHead, auxiliary: AuxiliaryHead | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, image: Tensor) -> Tensor:
        """Logits at stride 4. Raises ``InputShapeError`` when the image is not whole patches."""
        return self.head(self.backbone(image))  # type: ignore[no-any-return]  # nn.Module

    def forward_train(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """(logits at stride 4, auxiliary logits at stride 16 or ``None``)."""
        levels = self.backbone(image)
        auxiliary = self.auxiliary(levels[AUXILIARY_LEVEL]) if self.auxiliary else None
        return self.head(levels), auxiliary


def build_segmenter(
    preset: Preset, *, deploy: bool = False, auxiliary: bool = False, seed: int | None = None
) -> Segmenter:
    """A freshly initialised network of that preset, in train form unless ``deploy``.

    With ``seed`` the weights are the same on every call and the global generator is left alone.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = Segmenter(
            RepMLPNet(preset.backbone, deploy=deploy),
            UperNetHead(
                preset.backbone.channels,
                preset.width,
                preset.classes,
                early_fusion=preset.early_fusion,
            ),
            AuxiliaryHead(preset.backbone.channels[AUXILIARY_LEVEL], preset.width, preset.classes)
            if auxiliary
            else None,
        )
        _initialise(model)
    return model


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=_fan_in_std(module))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _fan_in_std(conv: nn.Conv2d) -> float:
    """He et al. 2015: sqrt(2 / fan_in) keeps the variance through ReLU."""
    fan_in = conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
    return float((2.0 / fan_in) ** 0.5)


class BgrFrames(nn.Module):
    """Export and evaluation wrapper: uint8 BGR frames (N, H, W, 3) -> logits at stride 4.

    The mean and deviation of ImageNet and the channel swap, done here in float32 so that the
    exported graph (where they fold into the patch embedding) has something to be compared with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        rgb = normalise(frames, self.mean, self.std)
        return self.model(rgb)  # type: ignore[no-any-return]  # nn.Module


def normalise(frames: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 BGR (N, H, W, 3) -> RGB (N, 3, H, W) of the dtype of ``mean``, which like ``std`` is
    (1, 3, 1, 1), in RGB."""
    rgb = frames.permute(0, 3, 1, 2).flip(1).to(mean.dtype)
    return (rgb - mean) / std
