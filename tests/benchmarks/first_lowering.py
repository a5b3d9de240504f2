"""Each rewrite of the lowering undone: how the graph was first spelled, for what it is worth today.

    with undone("moves", "planar"):
        graph = lower(...)          # as it was before those two rewrites

========== =====================================================================================
moves      maps are cut into patches and put together channels first, as the mathematics is written
positions  a block's convolution is added to FC3 in one shape, so both are summed in float
planar     the logits leave the last convolution without a spelled transpose
placement  Q/DQ pairs stay where nncf puts them, behind the moves of a tensor
rounding   what enters a residual sum is rounded on its own too
========== =====================================================================================

The first three are exact in float32. The last two change the Q/DQ graph only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from calibration import quantize
from models.repmlp import RepMLPBlock
from pipeline.lowering import head, network, parts
from pipeline.lowering.fc3 import lower_fc3
from pipeline.lowering.graph import GraphWriter
from pipeline.lowering.parts import Patches, affine, as_float64, per_channel

REWRITES = ("moves", "positions", "planar", "placement", "rounding")
EXACT = ("moves", "positions", "planar")


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
    g: GraphWriter, block: RepMLPBlock, norm: Any, x: str, p: Patches, name: str
) -> str:
    if p.batch > 1:
        raise ValueError("the first spelling is written for one image")
    scale, shift = affine(norm)
    shape = (p.count, block.channels, p.side, p.side)
    gate = network._gate(g, block, scale, shift, x, p, f"{name}.gp")
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
    "planar": [(network, "_planar", lambda _g, x, _shape, _name: x)],
    "placement": [(quantize, "quantize_before_moves", lambda _graph: 0)],
    "rounding": [(quantize, "UNROUNDED", ())],
}
