"""The UperNet head -> ONNX nodes. See ``network`` for the layout and for what is folded."""

from __future__ import annotations

import numpy as np

from models.upernet import UperNetHead
from pipeline.lowering.graph import GraphWriter
from pipeline.lowering.parts import (
    Level,
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
    classifier = head.classifier
    return g.conv(x, as_float64(classifier.weight), as_float64(classifier.bias), "head.classifier")


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
    parts = []
    for bins, module in zip(head.ppm.bins, head.ppm.branches, strict=True):
        part = f"{name}.branches.{bins}"
        pool = np.kron(pooling_matrix(h, bins), pooling_matrix(w, bins)).T
        y = g.op("MatMul", [flat, g.const(f"{part}.pool.weight", pool)], f"{part}.pool")
        y = g.reshape(y, (p.batch, channels, bins, bins), f"{part}.bins")
        y = g.op("Relu", [g.conv(y, *fold(module), part)], f"{part}.relu")
        y = g.reshape(y, (p.batch, head.width, bins * bins), f"{part}.flat")
        spread = np.kron(bilinear_matrix(bins, h), bilinear_matrix(bins, w)).T
        y = g.op("MatMul", [y, g.const(f"{part}.spread.weight", spread)], f"{part}.spread")
        parts.append(g.reshape(y, (p.batch, head.width, h, w), f"{part}.map"))
    pooled = g.op("Concat", parts, f"{name}.concat", axis=1)
    weight, bias = fold(head.ppm.bottleneck)
    own, context = weight[:, :channels], weight[:, channels:]
    x = g.conv(x, own, bias, f"{name}.bottleneck.level", padding=1)
    y = g.conv(pooled, context, None, f"{name}.bottleneck.pooled", padding=1)
    x = g.op("Add", [x, y], f"{name}.bottleneck")
    return g.op("Relu", [x], f"{name}.bottleneck.relu")
