"""The head's two ways to fuse, and the stem, against formulas written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convolution import ConvBN, Refinement
from models.errors import ModelError
from models.repmlp import RepMLPNet
from models.upernet import UperNetHead
from tests.models.helpers import TINY, randomise

CHANNELS, WIDTH, CLASSES = (3, 4, 5, 6), 4, 7


def make_head(*, early_fusion: bool, kernel_inside: bool = False) -> UperNetHead:
    """One set of weights for both ways to fuse, in float64."""
    torch.manual_seed(0)
    head = UperNetHead(CHANNELS, WIDTH, CLASSES, early_fusion=early_fusion)
    randomise(head).double().eval()
    if kernel_inside:  # only the middle of the fusion kernel: a 1x1 convolution
        with torch.no_grad():
            kernel = head.fusion.conv.weight
            middle = kernel[:, :, 1, 1].clone()
            kernel.zero_()
            kernel[:, :, 1, 1] = middle
    return head


def make_levels() -> list[Tensor]:
    """Maps at strides 4, 8, 16 and 32 of a 64x96 image."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, c, 16 >> i, 24 >> i, dtype=torch.float64, generator=generator)
        for i, c in enumerate(CHANNELS)
    ]


def norm(y: Tensor, stats: dict[str, Tensor], eps: float) -> Tensor:
    mean, var, scale, shift = (
        stats[key][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    normed: Tensor = (y - mean) / (var + eps).sqrt() * scale + shift
    return normed


def conv_bn(y: Tensor, part: ConvBN) -> Tensor:
    weight = part.conv.weight
    y = F.conv2d(y, weight, padding=weight.shape[2] // 2)
    return norm(y, part.bn.state_dict(), part.bn.eps)


def unit(y: Tensor, part: nn.Module) -> Tensor:
    """Convolution, BatchNorm, ReLU."""
    assert isinstance(part, ConvBN)
    return conv_bn(y, part).clamp_min(0)


def resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def published_pyramid(head: UperNetHead, levels: list[Tensor]) -> list[Tensor]:
    """P2 to P5 of UPerNet (Xiao et al., ECCV 2018, figure 4 and section 3.1), level by level.

    On C5 the pyramid pooling module of PSPNet (Zhao et al., CVPR 2017): means over 1, 2, 3 and 6
    bins a side, a 1x1 convolution each, resized to C5 and concatenated behind it, 3x3. Then the
    feature pyramid from the top down: a 1x1 convolution of each level plus the level above,
    resized. Every level but the pooled one is smoothed by a 3x3 convolution, but only after its
    sum went on down.
    """
    c2, c3, c4, c5 = levels
    pools = [
        resize(unit(F.adaptive_avg_pool2d(c5, bins), branch), c5)
        for bins, branch in zip((1, 2, 3, 6), head.ppm.branches, strict=True)
    ]
    m5 = unit(torch.cat([c5, *pools], dim=1), head.ppm.bottleneck)
    m4 = unit(c4, head.laterals[2]) + resize(m5, c4)
    m3 = unit(c3, head.laterals[1]) + resize(m4, c3)
    m2 = unit(c2, head.laterals[0]) + resize(m3, c2)
    return [unit(m2, head.fpn[0]), unit(m3, head.fpn[1]), unit(m4, head.fpn[2]), m5]


def classify(fused: Tensor, head: UperNetHead) -> Tensor:
    assert head.classifier.bias is not None
    want = torch.einsum("nchw,kc->nkhw", fused, head.classifier.weight[:, :, 0, 0])
    return want + head.classifier.bias[:, None, None]


def rise(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x


def test_late_fusion_is_the_published_head() -> None:
    """Each level resized at once to the finest, concatenated from the finest on, 3x3, 1x1."""
    head, levels = make_head(early_fusion=False), make_levels()
    p2, p3, p4, p5 = published_pyramid(head, levels)
    concatenated = torch.cat([p2, resize(p3, p2), resize(p4, p2), resize(p5, p2)], dim=1)
    want = classify(unit(concatenated, head.fusion), head)
    torch.testing.assert_close(head(levels), want, rtol=1e-10, atol=1e-10)


def test_early_fusion_is_the_sum_of_each_level_convolved_at_its_own_stride() -> None:
    head, levels = make_head(early_fusion=True), make_levels()
    kernel = head.fusion.conv.weight
    total = torch.zeros(2, WIDTH, 16, 24, dtype=torch.float64)
    for i, x in enumerate(published_pyramid(head, levels)):
        part = F.conv2d(x, kernel[:, i * WIDTH : (i + 1) * WIDTH], padding=1)
        total = total + rise(part, i)  # upsampling is linear: each level on its own
    fused = norm(total, head.fusion.bn.state_dict(), head.fusion.bn.eps).clamp_min(0)
    torch.testing.assert_close(head(levels), classify(fused, head), rtol=1e-10, atol=1e-10)


def test_with_a_1x1_kernel_early_fusion_is_the_convolution_of_the_concatenation() -> None:
    """By linearity, exactly: a 1x1 convolution and upsampling commute."""
    head, levels = make_head(early_fusion=True, kernel_inside=True), make_levels()
    pyramid = published_pyramid(head, levels)
    concatenated = torch.cat([rise(x, i) for i, x in enumerate(pyramid)], dim=1)
    want = classify(unit(concatenated, head.fusion), head)
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
