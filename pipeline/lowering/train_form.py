"""A RepMLP block in training form -> ONNX nodes: FC3 and its parallel convolutions apart.

For study only: it is what a network costs, and loses in INT8, without locality injection. Each
branch has its BatchNorm folded into it, exactly; sums follow in the order of the kernels' sizes:

    y = (g W p + b) + conv_1(p) + conv_3(p) + ...
"""

from __future__ import annotations

import numpy as np

from models.repmlp import RepMLPBlock
from pipeline.lowering.fc3 import lower_fc3
from pipeline.lowering.graph import GraphWriter
from pipeline.lowering.parts import Patches, affine, as_float64, fold, positions


def lower_branches(g: GraphWriter, block: RepMLPBlock, x: str, p: Patches, name: str) -> str:
    """(P, C, h, w) -> (P, C, h*w): everything in the block but its gate.

    Raises ``ModelError`` where a branch is not a convolution with BatchNorm.
    """
    scale, shift = affine(block.fc3_bn)
    matrix = as_float64(block.fc3_matrix()) * scale[:, None, None]
    bias = np.repeat(shift[:, None], block.h * block.w, axis=1)
    y = lower_fc3(g, matrix, bias, block.channels, x, p, f"{name}.fc3")
    groups = block.channels // block.sets
    for kernel in block.kernels:
        weight, offset = fold(block.branch(kernel))
        # Set s serves channels s, S + s, 2S + s...: kernel and bias repeat over the groups.
        branch = g.conv(
            x, np.tile(weight, (groups, 1, 1, 1)), np.tile(offset, groups),
            f"{name}.repconv{kernel}", padding=kernel // 2, groups=block.channels,
        )  # fmt: skip
        branch = positions(g, branch, block.channels, p, f"{name}.repconv{kernel}.positions")
        y = g.op("Add", [y, branch], f"{name}.sum{kernel}")
    return y
