"""The patch embedding -> ONNX nodes: uint8 frames as they lie in memory, several pixels at a time.

The embedding is a convolution whose stride is its kernel's side s, without padding: each s x s
square of the picture, three bytes a pixel, is one product of 3 s^2 values. A convolution over three
channels is the shape that int8 kernels are worst at: they work on 4 to 64 channels at once.

A row of (H, W, 3) bytes is also a row of W/m places with 3m channels, m pixels next to each other.
So the same products are a convolution of m/s squares at once: kernel (s, 1), stride (s, 1), 3m
channels in, C m/s out, the kernel of each square at its own pixels and zero at the others'. Its
output, channels last, is again the map as it lies in memory. Nothing is moved in between, and each
output is the sum it was before, zeros apart.
"""

from __future__ import annotations

import numpy as np

from models.convolution import ConvBN
from models.segmenter import MEAN_RGB, STD_RGB
from pipeline.lowering.graph import FLOAT, GraphWriter
from pipeline.lowering.parts import Array, fold

PIXELS = 4
"""m: the stride of the backbone's first level, so it divides every row."""


def lower_embedding(
    g: GraphWriter, module: ConvBN, frames: str, batch: int, height: int, width: int
) -> str:
    """uint8 BGR (N, H, W, 3) -> the embedding of the normalised RGB, ReLU and all, (N, C, h, w)."""
    weight, bias = fold_image(module)
    channels, side = weight.shape[0], weight.shape[2]
    squares = max(1, PIXELS // side)
    pixels = side * squares
    x = g.op("Cast", [frames], "frames.float", to=FLOAT)
    x = g.reshape(x, (batch, height, width // pixels, pixels * 3), "frames.wide")
    x = g.transpose(x, (0, 3, 1, 2), "frames.nchw")
    kernel = side_by_side(weight, squares)
    x = g.conv(x, kernel, np.tile(bias, squares), "conv_embedding", stride=(side, 1))
    x = g.op("Relu", [x], "conv_embedding.relu")
    x = g.transpose(x, (0, 2, 3, 1), "conv_embedding.last")
    shape = (batch, height // side, width // side, channels)
    x = g.reshape(x, shape, "conv_embedding.squares")
    return g.transpose(x, (0, 3, 1, 2), "conv_embedding.map")


def fold_image(module: ConvBN) -> tuple[Array, Array]:
    """(kernel, bias) of the embedding on BGR bytes.

    The image's mean, deviation and channel order go into the kernel, which is exact as there is no
    padding; of preprocessing only a cast is left.
    """
    weight, bias = fold(module)
    mean, std = np.array(MEAN_RGB), np.array(STD_RGB)
    weight = weight / std[None, :, None, None]
    bias = bias - (weight * mean[None, :, None, None]).sum(axis=(1, 2, 3))
    return weight[:, ::-1], bias


def side_by_side(weight: Array, squares: int) -> Array:
    """(C, 3, s, s) -> (squares * C, squares * s * 3, s, 1): one convolution of several squares.

    Channel (q, c) of the output has the kernel of c at pixels q s to q s + s - 1; a channel of the
    input is (pixel, colour).
    """
    channels, colours, side, _side = weight.shape
    wide = np.zeros((squares, channels, squares, side, colours, side))
    for q in range(squares):
        wide[q, :, q] = weight.transpose(0, 3, 1, 2)
    return wide.reshape(squares * channels, squares * side * colours, side, 1)
