"""The head's two ways to fuse, and the stem, against formulas written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.convolution import ConvBN, Refinement
from models.errors import ModelError
from models.repmlp import RepMLPNet
from models.upernet import UperNetHead, upsample
from tests.models.helpers import TINY, randomise

CHANNELS, WIDTH, CLASSES = (3, 4, 5, 6), 4, 7


def heads(kernel_inside: bool = False) -> tuple[UperNetHead, UperNetHead, list[Tensor]]:
    """The same weights fused late and early, in float64, and four levels to read."""
    torch.manual_seed(0)
    late = randomise(UperNetHead(CHANNELS, WIDTH, CLASSES)).double().eval()
    early = UperNetHead(CHANNELS, WIDTH, CLASSES, early_fusion=True).double().eval()
    if kernel_inside:  # only the middle of the fusion kernel: a 1x1 convolution
        with torch.no_grad():
            kernel = late.fusion.conv.weight
            middle = kernel[:, :, 1, 1].clone()
            kernel.zero_()
            kernel[:, :, 1, 1] = middle
    early.load_state_dict(late.state_dict())  # one set of names for both
    generator = torch.Generator().manual_seed(1)
    levels = [
        torch.randn(2, c, 16 >> i, 24 >> i, dtype=torch.float64, generator=generator)
        for i, c in enumerate(CHANNELS)
    ]
    return late, early, levels


def outputs_before_fusion(head: UperNetHead, levels: list[Tensor]) -> list[Tensor]:
    maps = [lateral(x) for lateral, x in zip(head.laterals, levels, strict=False)]
    maps.append(head.ppm(levels[-1]))
    for i in (2, 1, 0):
        maps[i] = maps[i] + upsample(maps[i + 1], maps[i].shape[2:])
    return [conv(x) for conv, x in zip(head.fpn, maps, strict=False)] + [maps[-1]]


def rise(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x


def test_early_fusion_is_the_sum_of_each_level_convolved_at_its_own_stride() -> None:
    _late, head, levels = heads()
    outs = outputs_before_fusion(head, levels)
    kernel, norm = head.fusion.conv.weight, head.fusion.bn
    total = torch.zeros(2, WIDTH, 16, 24, dtype=torch.float64)
    for i, x in enumerate(outs):
        part = F.conv2d(x, kernel[:, i * WIDTH : (i + 1) * WIDTH], padding=1)
        total = total + rise(part, i)  # upsampling is linear: each level on its own
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    fused = (total * scale[:, None, None] + shift[:, None, None]).clamp_min(0)
    want = torch.einsum("nchw,kc->nkhw", fused, head.classifier.weight[:, :, 0, 0])
    want = want + head.classifier.bias[:, None, None]  # type: ignore[index]
    torch.testing.assert_close(head(levels), want, rtol=1e-10, atol=1e-10)


def test_with_a_1x1_kernel_early_fusion_is_the_convolution_of_the_concatenation() -> None:
    """By linearity, exactly: a 1x1 convolution and upsampling commute."""
    _late, head, levels = heads(kernel_inside=True)
    outs = outputs_before_fusion(head, levels)
    concatenated = torch.cat([rise(x, i) for i, x in enumerate(outs)], dim=1)
    want = head.classifier(head.fusion(concatenated))
    torch.testing.assert_close(head(levels), want, rtol=1e-10, atol=1e-10)


def test_an_overlapping_stem_keeps_the_stride_and_sees_across_patch_edges() -> None:
    config = replace(TINY.backbone, stem=5)
    net = randomise(RepMLPNet(config)).eval()
    assert net.stem is not None
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        before = net.stem(net.conv_embedding(image))
        assert before.shape == (1, config.channels[0], 8, 16)
        assert [level.shape[2:] for level in net(image)] == [(8, 16), (4, 8), (2, 4), (1, 2)]
        touched = image.clone()
        touched[..., 3, 3] += 1.0  # the last pixel of the first 4x4 patch
        changed = (net.stem(net.conv_embedding(touched)) - before).abs().amax(dim=(0, 1)) > 1e-6
    assert changed.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_a_refinement_is_its_formula_and_begins_as_the_identity() -> None:
    module = Refinement(4).double().eval()
    x = torch.rand(2, 4, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), x, rtol=0, atol=0)
    randomise(module)

    def conv_bn(y: Tensor, part: ConvBN) -> Tensor:
        y = F.conv2d(y, part.conv.weight, padding=1)
        stats = part.bn.state_dict()
        mean, var, scale, shift = (
            stats[key][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        normed: Tensor = (y - mean) / (var + part.bn.eps).sqrt() * scale + shift
        return normed

    want = (x + conv_bn(conv_bn(x, module.first).clamp(min=0), module.second)).clamp(min=0)
    torch.testing.assert_close(module(x), want, rtol=1e-10, atol=1e-10)


def test_a_refined_stem_stands_before_the_first_stage_and_needs_two_steps() -> None:
    plain = replace(TINY.backbone, stem=5)
    refined = RepMLPNet(replace(plain, refine=2)).eval()
    before = RepMLPNet(plain).eval()
    before.load_state_dict(refined.state_dict(), strict=False)
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for got, want in zip(refined(image), before(image), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)
        randomise(refined.refine)
        assert all((a != b).any() for a, b in zip(refined(image), before(image), strict=True))
    with pytest.raises(ModelError, match="two-step stem"):
        replace(TINY.backbone, refine=1)
