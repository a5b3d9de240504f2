"""Pieces that the backbone and the head are lowered with: patches, folding, resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from models.convolution import ConvBN
from models.errors import ModelError
from models.locality import batchnorm_affine
from pipeline.lowering.graph import GraphWriter

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Patches:
    """How a map of (N, C, H, W) lies as patches: (N * rows * cols, C, h, w)."""

    batch: int
    rows: int
    cols: int
    side: int

    @property
    def count(self) -> int:
        """P: patches of the whole batch."""
        return self.batch * self.rows * self.cols

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the map."""
        return self.rows * self.side, self.cols * self.side


@dataclass(frozen=True)
class Level:
    """One backbone output: the tensor, and how its patches lie."""

    tensor: str
    patches: Patches
    scale: Array
    shift: Array


def split_map(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    """(N, C, H, W) -> (P, C, h, w), through channels-last: see ``merge_map``."""
    x = g.transpose(x, (0, 2, 3, 1), f"{name}.last")
    x = g.reshape(x, (p.batch * p.rows, p.side, p.cols, p.side * channels), f"{name}.cut")
    x = g.transpose(x, (0, 2, 1, 3), f"{name}.order")
    x = g.reshape(x, (p.count, p.side, p.side, channels), f"{name}.whole")
    return g.transpose(x, (0, 3, 1, 2), name)


def merge_map(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    """(P, C, h, w) -> (N, C, H, W).

    The move is spelled channels-last, where a patch's row is one run of w * C values. An int8
    convolution keeps its maps like that in memory, so the outer two Transposes cost nothing and
    the inner one copies whole runs; spelled channels-first it is three passes over single values.
    """
    x = g.transpose(x, (0, 2, 3, 1), f"{name}.last")
    x = g.reshape(x, (p.batch * p.rows, p.cols, p.side, p.side * channels), f"{name}.cut")
    x = g.transpose(x, (0, 2, 1, 3), f"{name}.order")
    x = g.reshape(x, (p.batch, *p.size, channels), f"{name}.whole")
    return g.transpose(x, (0, 3, 1, 2), name)


def positions(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    """(P, C, h, w) -> (P, C, h*w)."""
    return g.reshape(x, (p.count, channels, p.side * p.side), name)


def mean_of_patches(g: GraphWriter, x: str, p: Patches, name: str, *, cut: bool) -> str:
    """(P, C, h, w) -> (P, C, 1, 1).

    A pooling window as large as the patch: OpenVINO makes a reduction of GlobalAveragePool, which
    takes five times as long where a map lies channels last. What was just ``cut`` from a map lies
    channels first, and in bytes: there the reduction is as fast, and OpenVINO would round what a
    pooling of bytes gives to bytes.
    """
    if cut:
        return g.op("GlobalAveragePool", [x], name)
    side = [p.side, p.side]
    return g.op("AveragePool", [x], name, kernel_shape=side, strides=side)


def gelu(g: GraphWriter, x: str, name: str) -> str:
    """x/2 (1 + erf(x / sqrt 2)), in the five nodes that every back end fuses into one."""
    y = g.op("Div", [x, g.const("sqrt2", np.sqrt(2.0))], f"{name}.div")
    y = g.op("Erf", [y], f"{name}.erf")
    y = g.op("Add", [y, g.const("one", 1.0)], f"{name}.add")
    y = g.op("Mul", [x, y], f"{name}.mul")
    return g.op("Mul", [y, g.const("half", 0.5)], name)


def resize(g: GraphWriter, x: str, factor: int, name: str) -> str:
    """Half-pixel bilinear upsampling by a whole factor."""
    scales = g.const(f"scales_{factor}", [1, 1, factor, factor])
    return g.op(
        "Resize", [x, "", scales], name, mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip


def fold(module: nn.Module) -> tuple[Array, Array]:
    """(kernel, bias) in float64 of a ConvBN as one convolution."""
    if not isinstance(module, ConvBN):
        raise ModelError("only a convolution with BatchNorm can be folded")
    scale, shift = affine(module.bn)
    return as_float64(module.conv.weight) * scale[:, None, None, None], shift


def affine(norm: nn.Module) -> tuple[Array, Array]:
    """(scale, shift) of a BatchNorm in evaluation, float64 (C,)."""
    scale, shift = batchnorm_affine(norm)
    return scale.numpy(), shift.numpy()


def per_channel(values: Array) -> Array:
    """(C,) -> (1, C, 1, 1)."""
    return values[None, :, None, None]


def as_float64(tensor: Tensor | None) -> Array:
    """A weight as a float64 array. Raises ``ModelError`` when there is none."""
    if tensor is None:
        raise ModelError("a bias is missing")
    value: Any = tensor.detach().double().cpu().numpy()
    return np.asarray(value, np.float64)
