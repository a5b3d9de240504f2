"""FC3 of a RepMLP block -> ONNX nodes: a matrix product over the positions of each patch.

Spelled as a product, or as the same thing in other words: a 1x1 convolution whose channels are the
positions and whose pixels are the channels. OpenVINO's int8 products have no kernel of their own on
CPUs without VNNI and take two to three times as long there as its convolutions. Only where all
channels share one matrix: several would be a grouped convolution, whose weights nncf leaves eight
bits, of which sums overflow on those very CPUs.
"""

from __future__ import annotations

import numpy as np

from pipeline.lowering.graph import GraphWriter
from pipeline.lowering.parts import Array, Patches


def uneven(bias: Array) -> Array:
    """A bias without zeros and not the same everywhere: an untrained network's, moved by an ulp.

    OpenVINO 2026.4 removes an Add of zeros and merges an even constant into the quantization after
    it; the batched int8 MatMul before is then without its bias: garbage, another in each run
    (``docs/upstream/batched_matmul_without_bias.py``).
    """
    odd = np.arange(bias.size).reshape(bias.shape) % 2
    bias = np.where(bias == 0, 1e-9 * (1 + odd), bias)
    if np.ptp(bias) > 0:
        return bias
    return np.where(odd, np.nextafter(np.float32(bias.flat[0]), np.float32(np.inf)), bias)


def lower_fc3(
    g: GraphWriter, matrix: Array, bias: Array, channels: int, x: str, p: Patches, name: str
) -> str:
    """(P, C, h, w) -> (P, C, h*w), each channel times its share-set's matrix.

    Args:
        g: writer.
        matrix: (S, h*w out, h*w in); channel c has set c mod S.
        bias: (S, h*w).
        channels: C.
        x: the patches.
        p: how they lie.
        name: of the nodes.
    """
    sets, area, _inner = matrix.shape
    groups = channels // sets
    if g.convolve and sets == 1:
        return _convolved(g, matrix[0], bias[0], channels, x, p, name)
    bias = uneven(bias)
    # ONNX multiplies rows by (in, out).
    matrix = matrix.swapaxes(1, 2)
    if sets == 1:
        x = g.reshape(x, (p.count * groups, area), f"{name}.rows")
        x = g.op("MatMul", [x, g.const(f"{name}.weight", matrix[0])], name)
        x = g.op("Add", [x, g.const(f"{name}.bias", bias[0])], f"{name}.biased")
    else:
        x = g.reshape(x, (p.count * groups, sets, area), f"{name}.sets")
        x = g.transpose(x, (1, 0, 2), f"{name}.rows")
        x = g.op("MatMul", [x, g.const(f"{name}.weight", matrix)], name)
        x = g.op("Add", [x, g.const(f"{name}.bias", bias[:, None])], f"{name}.biased")
        x = g.transpose(x, (1, 0, 2), f"{name}.channels")
    return g.reshape(x, (p.count, channels, area), f"{name}.patches")


def _convolved(
    g: GraphWriter, matrix: Array, bias: Array, channels: int, x: str, p: Patches, name: str
) -> str:
    """(P, C, h, w) -> (P, C, h*w) by the convolution of one share-set's matrix (out, in)."""
    area = len(matrix)
    x = g.reshape(x, (p.count, channels, area, 1), f"{name}.sets")
    x = g.transpose(x, (0, 2, 1, 3), f"{name}.rows")
    x = g.conv(x, matrix[:, :, None, None], bias, name)
    x = g.transpose(x, (0, 2, 1, 3), f"{name}.channels")
    return g.reshape(x, (p.count, channels, area), f"{name}.patches")
