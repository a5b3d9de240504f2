"""The UperNet head -> ONNX nodes. See ``network`` for the layout and for what is folded."""

from __future__ import annotations

import numpy as np

from models.upernet import UperNetHead
from pipeline.lowering.graph import GraphWriter
from pipeline.lowering.parts import (
    Level,
    Patches,
    as_float64,
    fold,
    merge_map,
    per_channel,
    resize,
)
from pipeline.lowering.resampling import bilinear_matrix, pooling_matrix


def lower_head(g: GraphWriter, head: UperNetHead, levels: list[Level]) -> str:
    """Four levels -> the name of the logits (N, classes, H/4, W/4)."""
    width = head.width
    maps = []
    for i, (module, level) in enumerate(zip(head.laterals, levels, strict=False)):
        weight, bias = fold(module)
        bias = bias + weight[:, :, 0, 0] @ level.shift
        name = f"head.laterals.{i}"
        x = g.conv(level.tensor, weight * level.scale[None, :, None, None], bias, name)
        x = g.op("Relu", [x], f"{name}.relu")
        maps.append(merge_map(g, x, width, level.patches, f"{name}.map"))
    maps.append(_pyramid(g, head, levels[-1], "head.ppm"))
    for i in range(len(maps) - 2, -1, -1):
        up = resize(g, maps[i + 1], 2, f"head.top_down.{i}.up")
        maps[i] = g.op("Add", [maps[i], up], f"head.top_down.{i}")
    outs = []
    for i, module in enumerate(head.fpn):
        name = f"head.fpn.{i}"
        x = g.conv(maps[i], *fold(module), name, padding=1)
        outs.append(g.op("Relu", [x], f"{name}.relu"))
    outs.append(maps[-1])
    x = _fuse_early(g, head, outs) if head.early_fusion else _fuse(g, head, outs)
    return _classify(g, head, x, levels[0].patches)


def _classify(g: GraphWriter, head: UperNetHead, x: str, p: Patches) -> str:
    """The last 1x1 convolution as (classes, C) x (C, H W): its way out is planar, as logits are.

    As a convolution it makes a map channels last, and turning 19 channels around takes longer than
    making them. The transposes are free: the map before lies channels last, and a product takes
    its second factor transposed.
    """
    name, (h, w) = "head.classifier", p.size
    weight = as_float64(head.classifier.weight)[:, :, 0, 0]
    x = g.transpose(x, (0, 2, 3, 1), f"{name}.last")
    x = g.reshape(x, (p.batch, h * w, weight.shape[1]), f"{name}.pixels")
    x = g.transpose(x, (0, 2, 1), f"{name}.columns")
    x = g.op("MatMul", [g.const(f"{name}.weight", weight), x], name)
    bias = as_float64(head.classifier.bias)[:, None]
    x = g.op("Add", [x, g.const(f"{name}.bias", bias)], f"{name}.biased")
    return g.reshape(x, (p.batch, len(weight), h, w), f"{name}.map")


def _fuse(g: GraphWriter, head: UperNetHead, outs: list[str]) -> str:
    parts = [outs[0]]
    parts += [resize(g, x, 2 << i, f"head.fusion.up{i + 1}") for i, x in enumerate(outs[1:])]
    x = g.op("Concat", parts, "head.fusion.concat", axis=1)
    return g.op(
        "Relu", [g.conv(x, *fold(head.fusion), "head.fusion", padding=1)], "head.fusion.relu"
    )


def _fuse_early(g: GraphWriter, head: UperNetHead, outs: list[str]) -> str:
    """Each level's slice of the fusion kernel at its own stride, added from the coarsest up."""
    weight, bias = fold(head.fusion)
    width = head.width
    total = ""
    for i in range(len(outs) - 1, -1, -1):
        own = weight[:, i * width : (i + 1) * width]
        # One bias for the sum; it goes where the Relu follows.
        x = g.conv(outs[i], own, bias if i == 0 else None, f"head.fusion.{i}", padding=1)
        if total:
            up = resize(g, total, 2, f"head.fusion.{i}.up")
            x = g.op("Add", [x, up], f"head.fusion.{i}.sum")
        total = x
    return g.op("Relu", [total], "head.fusion.relu")


def _pyramid(g: GraphWriter, head: UperNetHead, level: Level, name: str) -> str:
    p, channels, (h, w) = level.patches, len(level.scale), level.patches.size
    x = merge_map(g, level.tensor, channels, p, f"{name}.map")
    x = g.op("Mul", [x, g.const(f"{name}.norm.scale", per_channel(level.scale))], f"{name}.scale")
    x = g.op("Add", [x, g.const(f"{name}.norm.shift", per_channel(level.shift))], f"{name}.norm")
    flat = g.reshape(x, (p.batch, channels, h * w), f"{name}.flat")
    pooled = _branches(g, head, flat, p, f"{name}.branches")
    weight, bias = fold(head.ppm.bottleneck)
    own, context = weight[:, :channels], weight[:, channels:]
    x = g.conv(x, own, bias, f"{name}.bottleneck.level", padding=1)
    y = g.conv(pooled, context, None, f"{name}.bottleneck.pooled", padding=1)
    x = g.op("Add", [x, y], f"{name}.bottleneck")
    return g.op("Relu", [x], f"{name}.bottleneck.relu")


def _branches(g: GraphWriter, head: UperNetHead, flat: str, p: Patches, name: str) -> str:
    """(N, C, H W) -> what all bins see, convolved and spread again, (N, branches * width, H, W).

    All branches are three products, as sixteen small nodes cost more than what they compute: all
    bins pooled at once; the kernels of all branches on all bins; each branch spread from its own
    bins, the rows of the others zero.
    """
    h, w = p.size
    counts = [bins * bins for bins in head.ppm.bins]
    ends = np.cumsum(counts)
    pools, kernels, biases = [], [], []
    spread = np.zeros((len(counts), ends[-1], h * w))
    for i, (bins, module) in enumerate(zip(head.ppm.bins, head.ppm.branches, strict=True)):
        pools.append(np.kron(pooling_matrix(h, bins), pooling_matrix(w, bins)).T)
        spread[i, ends[i] - counts[i] : ends[i]] = np.kron(
            bilinear_matrix(bins, h), bilinear_matrix(bins, w)
        ).T
        weight, bias = fold(module)
        kernels.append(weight[:, :, 0, 0])
        biases.append(bias)
    x = g.op("MatMul", [flat, g.const(f"{name}.pool.weight", np.hstack(pools))], f"{name}.pool")
    x = g.op("MatMul", [g.const(f"{name}.conv.weight", np.vstack(kernels)), x], f"{name}.conv")
    bias = np.concatenate(biases)[:, None]
    x = g.op("Add", [x, g.const(f"{name}.conv.bias", bias)], f"{name}.conv.biased")
    x = g.op("Relu", [x], f"{name}.relu")
    x = g.reshape(x, (p.batch, len(counts), head.width, int(ends[-1])), f"{name}.apart")
    x = g.op("MatMul", [x, g.const(f"{name}.spread.weight", spread)], f"{name}.spread")
    return g.reshape(x, (p.batch, len(counts) * head.width, h, w), f"{name}.map")
