"""Each rewrite of the lowering undone: how the graph was first spelled, for what it is worth today.

    with undone("moves", "planar"):
        graph = lower(...)          # as it was before those two rewrites

========== =====================================================================================
moves      maps are cut into patches and put together channels first, as the mathematics is written
positions  a block's convolution is added to FC3 in one shape, so both are summed in float
planar     the logits are made by a convolution, channels last, and turned around
embedding  the patch embedding is a convolution of three channels, one pixel at a time
means      the gates' means are GlobalAveragePool everywhere
pyramid    each bin of the pyramid is pooled, convolved and spread on its own
gates      gates are rounded before they multiply
placement  Q/DQ pairs stay where nncf puts them, behind the moves of a tensor
rounding   what enters a residual sum is rounded on its own too
========== =====================================================================================

All down to ``pyramid`` are exact in float32. The last three change the Q/DQ graph only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from calibration import quantize
from models.convolution import ConvBN
from models.repmlp import RepMLPBlock
from models.upernet import UperNetHead
from pipeline.lowering import head, network, parts
from pipeline.lowering.embedding import fold_image
from pipeline.lowering.fc3 import lower_fc3
from pipeline.lowering.graph import FLOAT, GraphWriter
from pipeline.lowering.parts import Patches, affine, as_float64, fold, per_channel
from pipeline.lowering.resampling import bilinear_matrix, pooling_matrix

EXACT = ("moves", "positions", "planar", "embedding", "means", "pyramid")
REWRITES = (*EXACT, "gates", "placement", "rounding")


@contextmanager
def undone(*names: str) -> Iterator[None]:
    """The lowering and quantization without those rewrites."""
    with ExitStack() as stack:
        for name in names:
            for target, attribute, value in _UNDO[name]:
                stack.enter_context(patch.object(target, attribute, value))
        yield


def _split_first(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    shape = (p.batch, channels, p.rows, p.side, p.cols, p.side)
    x = g.reshape(x, shape, f"{name}.cut")
    x = g.transpose(x, (0, 2, 4, 1, 3, 5), f"{name}.order")
    return g.reshape(x, (p.count, channels, p.side, p.side), name)


def _merge_first(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    shape = (p.batch, p.rows, p.cols, channels, p.side, p.side)
    x = g.reshape(x, shape, f"{name}.cut")
    x = g.transpose(x, (0, 3, 1, 4, 2, 5), f"{name}.order")
    return g.reshape(x, (p.batch, channels, *p.size), name)


def _block_in_one_shape(
    g: GraphWriter, block: RepMLPBlock, norm: Any, x: str, p: Patches, name: str, cut: bool
) -> str:
    if p.batch > 1:
        raise ValueError("the first spelling is written for one image")
    scale, shift = affine(norm)
    shape = (p.count, block.channels, p.side, p.side)
    mean = parts.mean_of_patches(g, x, p, f"{name}.gp.mean", cut=cut)
    gate = network._gate(g, block, scale, shift, mean, p, f"{name}.gp")
    gate = g.reshape(gate, (1, block.channels, 1, 1), f"{name}.gate")
    scaled = g.op("Mul", [x, g.const(f"{name}.prebn.scale", per_channel(scale))], f"{name}.scale")
    shifted = g.const(f"{name}.prebn.shift", per_channel(shift))
    x = g.op("Add", [scaled, shifted], f"{name}.prebn")
    matrix = as_float64(block.fc3_matrix())
    bias = as_float64(block.fc3.bias).reshape(block.sets, -1)
    y = lower_fc3(g, matrix, bias, block.channels, x, p, f"{name}.fc3")
    y = g.reshape(y, shape, f"{name}.fc3.images")
    if block.local is not None:
        groups = block.channels // block.sets
        weight = np.tile(as_float64(block.local.weight), (groups, 1, 1, 1))
        offset = np.tile(as_float64(block.local.bias), groups)
        local = g.conv(
            x, weight, offset, f"{name}.local", padding=weight.shape[-1] // 2,
            groups=block.channels,
        )  # fmt: skip
        y = g.op("Add", [y, local], f"{name}.sum")
    return g.op("Mul", [y, gate], name)


def _classify_by_convolution(g: GraphWriter, module: UperNetHead, x: str, _p: Patches) -> str:
    last = module.classifier
    return g.conv(x, as_float64(last.weight), as_float64(last.bias), "head.classifier")


def _embedding_by_pixels(
    g: GraphWriter, module: ConvBN, frames: str, _batch: int, _height: int, _width: int
) -> str:
    weight, bias = fold_image(module)
    x = g.op("Cast", [frames], "frames.float", to=FLOAT)
    x = g.transpose(x, (0, 3, 1, 2), "frames.nchw")
    x = g.conv(x, weight, bias, "conv_embedding", stride=module.conv.stride[0])
    return g.op("Relu", [x], "conv_embedding.relu")


def _reduce(g: GraphWriter, x: str, _p: Patches, name: str, *, cut: bool) -> str:
    return g.op("GlobalAveragePool", [x], name)


def _branches_apart(g: GraphWriter, module: UperNetHead, flat: str, p: Patches, name: str) -> str:
    (h, w), parts_ = p.size, []
    for bins, branch in zip(module.ppm.bins, module.ppm.branches, strict=True):
        part = f"{name}.{bins}"
        weight, bias = fold(branch)
        pool = np.kron(pooling_matrix(h, bins), pooling_matrix(w, bins)).T
        y = g.op("MatMul", [flat, g.const(f"{part}.pool.weight", pool)], f"{part}.pool")
        y = g.reshape(y, (p.batch, weight.shape[1], bins, bins), f"{part}.bins")
        y = g.op("Relu", [g.conv(y, weight, bias, part)], f"{part}.relu")
        y = g.reshape(y, (p.batch, module.width, bins * bins), f"{part}.flat")
        spread = np.kron(bilinear_matrix(bins, h), bilinear_matrix(bins, w)).T
        y = g.op("MatMul", [y, g.const(f"{part}.spread.weight", spread)], f"{part}.spread")
        parts_.append(g.reshape(y, (p.batch, module.width, h, w), f"{part}.map"))
    return g.op("Concat", parts_, f"{name}.concat", axis=1)


_UNDO: dict[str, list[tuple[Any, str, Any]]] = {
    "moves": [
        (network, "split_map", _split_first),
        (network, "merge_map", _merge_first),
        (head, "merge_map", _merge_first),
        (parts, "merge_map", _merge_first),
    ],
    "positions": [
        (network, "_block", _block_in_one_shape),
        # Rounded or not, the engine fuses the sum into the convolution.
        (quantize, "UNROUNDED", (*quantize.UNROUNDED, "*.local")),
    ],
    "planar": [(head, "_classify", _classify_by_convolution)],
    "embedding": [(network, "lower_embedding", _embedding_by_pixels)],
    "means": [(network, "mean_of_patches", _reduce)],
    "pyramid": [(head, "_branches", _branches_apart)],
    "gates": [(quantize, "UNROUNDED", tuple(n for n in quantize.UNROUNDED if n != "*.gp"))],
    "placement": [(quantize, "quantize_before_moves", lambda _graph: 0)],
    "rounding": [(quantize, "UNROUNDED", ())],
}
