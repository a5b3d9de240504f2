"""RepMLPNet + UperNet in deploy form -> ONNX.

Layout. Within a stage everything but FC3 and the gate works on single positions, so a stage runs
with its patches as the batch: (P, C, h, w), P = N * rows * columns. A map is cut into patches once
at the start of a stage and put together once at its end, after the 1x1 convolution that follows.
FC3 then is

    S = 1:   (P*C, h*w) x (h*w, h*w)                       no transpose at all
    S > 1:   (P, C/S, S, h*w) -> (S, P*C/S, h*w) x (S, h*w, h*w)

each with its bias added directly after it: OpenVINO 2026.4 computes garbage for a batched int8
MatMul that is followed by anything else.

Folding, all exact: the image's mean, deviation and channel order into the patch embedding (it has
no padding); BatchNorm after a convolution into it; prebn2 into ffn_fc1 and the norms of the first
levels into their lateral convolutions (1x1); prebn1 into the gate's first FC (the mean of an affine
map is the affine map of the mean).

Adaptive average pooling to b bins is a matrix at fixed shapes: bin i covers positions floor(i n/b)
to ceil((i+1) n/b) - 1. All bins are one MatMul over the flattened map; half-pixel bilinear
upsampling back is another. The convolution after it reads the level and its pooled maps as two
convolutions and a sum, the same by linearity: the level is signed and the pooled maps are small
and not, so one INT8 scale for their concatenation would serve neither (and OpenVINO 2026.4
computes that signed concatenation wrongly).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from torch import Tensor, nn

from models.errors import ModelError
from models.locality import batchnorm_affine
from models.repmlp import (
    ConvBN,
    Downsample,
    FFNBlock,
    RepMLPBlock,
    RepMLPUnit,
    check_input_size,
    units_of,
)
from models.segmenter import MEAN_RGB, STD_RGB, Segmenter
from models.upernet import UperNetHead
from pipeline.lowering.graph import FLOAT, UINT8, GraphWriter
from pipeline.lowering.resampling import bilinear_matrix, pooling_matrix

Array = npt.NDArray[np.float64]
INPUT, OUTPUT = "frames", "logits"


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


def lower(
    model: Segmenter, *, batch: int, height: int, width: int, opset: int, metadata: dict[str, str]
) -> onnx.ModelProto:
    """The network at a fixed shape, from uint8 BGR frames (N, H, W, 3) to float32 logits.

    Args:
        model: in deploy form and evaluation mode.
        batch: frames in one input.
        height: of the input in pixels; whole patches.
        width: likewise.
        opset: 17 to 19.
        metadata: strings kept in the model.

    Returns:
        A checked model: ``frames`` uint8 (N, H, W, 3) -> ``logits`` float32 (N, classes, H/4, W/4).

    Raises:
        InputShapeError: the size is not whole patches.
        ModelError: a block is still in train form, or the opset is out of range.
    """
    if not 17 <= opset <= 19:
        raise ModelError(f"opset must be 17, 18 or 19, got {opset}")
    check_input_size(height, width, model.backbone.config.unit)
    writer = GraphWriter(opset)
    levels = _backbone(writer, model, batch, height, width)
    logits = _head(writer, model.head, levels)
    writer.op("Identity", [logits], OUTPUT)
    classes = model.head.classes
    return writer.model(
        "repmlpnet_upernet",
        [helper.make_tensor_value_info(INPUT, UINT8, [batch, height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT, FLOAT, [batch, classes, height // 4, width // 4])],
        metadata,
    )


@dataclass(frozen=True)
class _Level:
    """One backbone output: the tensor, and how its patches lie."""

    tensor: str
    patches: Patches
    scale: Array
    shift: Array


def _backbone(
    g: GraphWriter, model: Segmenter, batch: int, height: int, width: int
) -> list[_Level]:
    net = model.backbone
    x = _embedding(g, net.conv_embedding)
    levels: list[_Level] = []
    for i, stage in enumerate(net.stages):
        side = net.config.patches[i]
        stride = 4 << i
        patches = Patches(batch, height // stride // side, width // stride // side, side)
        name = f"stages.{i}"
        x = split_map(g, x, net.config.channels[i], patches, f"{name}.split")
        for j, unit in enumerate(units_of(stage)):
            x = _unit(g, unit, x, patches, f"{name}.{j}")
        scale, shift = _affine(net.norms[i])
        levels.append(_Level(x, patches, scale, shift))
        if i + 1 < len(net.stages):
            x = _downsample(g, net.downsample[i], x, patches, f"downsample.{i}")
    return levels


def _embedding(g: GraphWriter, module: ConvBN) -> str:
    """uint8 NHWC BGR -> conv_embedding of the normalised RGB: folded, so only a cast is left."""
    weight, bias = fold(module)
    mean, std = np.array(MEAN_RGB), np.array(STD_RGB)
    weight = weight / std[None, :, None, None]
    bias = bias - (weight * mean[None, :, None, None]).sum(axis=(1, 2, 3))
    x = g.op("Cast", [INPUT], "frames.float", to=FLOAT)
    x = g.transpose(x, (0, 3, 1, 2), "frames.nchw")
    x = g.conv(x, weight[:, ::-1], bias, "conv_embedding", stride=module.conv.stride[0])
    return g.op("Relu", [x], "conv_embedding.relu")


def split_map(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    """(N, C, H, W) -> (P, C, h, w)."""
    x = g.reshape(x, (p.batch * channels, p.rows, p.side, p.cols, p.side), f"{name}.cut")
    if p.batch == 1:
        x = g.transpose(x, (1, 3, 0, 2, 4), f"{name}.order")
    else:
        x = g.reshape(x, (p.batch, channels, p.rows, p.side, p.cols, p.side), f"{name}.batch")
        x = g.transpose(x, (0, 2, 4, 1, 3, 5), f"{name}.order")
    return g.reshape(x, (p.count, channels, p.side, p.side), name)


def merge_map(g: GraphWriter, x: str, channels: int, p: Patches, name: str) -> str:
    """(P, C, h, w) -> (N, C, H, W)."""
    if p.batch == 1:
        x = g.reshape(x, (p.rows, p.cols, channels, p.side, p.side), f"{name}.cut")
        x = g.transpose(x, (2, 0, 3, 1, 4), f"{name}.order")
    else:
        shape = (p.batch, p.rows, p.cols, channels, p.side, p.side)
        x = g.reshape(x, shape, f"{name}.cut")
        x = g.transpose(x, (0, 3, 1, 4, 2, 5), f"{name}.order")
    return g.reshape(x, (p.batch, channels, *p.size), name)


def _unit(g: GraphWriter, unit: RepMLPUnit, x: str, p: Patches, name: str) -> str:
    y = _block(g, unit.repmlp_block, unit.prebn1, x, p, f"{name}.repmlp_block")
    x = g.op("Add", [x, y], f"{name}.add1")
    y = _ffn(g, unit.ffn_block, unit.prebn2, x, f"{name}.ffn_block")
    return g.op("Add", [x, y], f"{name}.add2")


def _block(
    g: GraphWriter, block: RepMLPBlock, norm: nn.Module, x: str, p: Patches, name: str
) -> str:
    if not block.deploy:
        raise ModelError(f"{name} is in train form: inject locality first")
    scale, shift = _affine(norm)
    gate = _gate(g, block, scale, shift, x, p, f"{name}.gp")
    scaled = g.op("Mul", [x, g.const(f"{name}.prebn.scale", _per_channel(scale))], f"{name}.scale")
    shifted = g.const(f"{name}.prebn.shift", _per_channel(shift))
    x = g.op("Add", [scaled, shifted], f"{name}.prebn")
    y = _fc3(g, block, x, p, f"{name}.fc3")
    if block.local is not None:
        # Set s serves channels s, S + s, 2S + s...: the kernel repeats over the groups.
        groups = block.channels // block.sets
        weight = np.tile(_numpy(block.local.weight), (groups, 1, 1, 1))
        bias = np.tile(_numpy(block.local.bias), groups)
        local = g.conv(
            x, weight, bias, f"{name}.local", padding=weight.shape[-1] // 2, groups=block.channels
        )
        y = g.op("Add", [y, local], f"{name}.sum")
    if p.batch == 1:
        return g.op("Mul", [y, gate], name)
    y = g.reshape(y, (p.batch, p.rows * p.cols, block.channels, p.side, p.side), f"{name}.images")
    y = g.op("Mul", [y, gate], f"{name}.gated")
    return g.reshape(y, (p.count, block.channels, p.side, p.side), name)


def _fc3(g: GraphWriter, block: RepMLPBlock, x: str, p: Patches, name: str) -> str:
    sets, area = block.sets, block.h * block.w
    groups = block.channels // sets
    # ONNX multiplies rows by (in, out).
    matrix = np.swapaxes(_numpy(block.fc3_matrix()), 1, 2)
    bias = _numpy(block.fc3.bias).reshape(sets, area)
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
    return g.reshape(x, (p.count, block.channels, block.h, block.w), f"{name}.patches")


def _gate(
    g: GraphWriter, block: RepMLPBlock, scale: Array, shift: Array, x: str, p: Patches, name: str
) -> str:
    """(1, C, 1, 1), or (N, 1, C, 1, 1) for a batch, to multiply the patches with."""
    c = block.channels
    first = _numpy(block.gp.fc1.weight)[:, :, 0, 0]
    first_bias = _numpy(block.gp.fc1.bias) + first @ shift
    second = _numpy(block.gp.fc2.weight)[:, :, 0, 0]
    x = g.op("GlobalAveragePool", [x], f"{name}.mean")
    x = g.reshape(x, (p.batch, p.rows * p.cols, c), f"{name}.patches")
    axes = [1]
    if g.opset >= 18:
        spelled = g.const("axis_1", axes, np.int64)
        x = g.op("ReduceMean", [x, spelled], f"{name}.map", keepdims=0)
    else:
        x = g.op("ReduceMean", [x], f"{name}.map", axes=axes, keepdims=0)
    x = g.op("MatMul", [x, g.const(f"{name}.fc1.weight", (first * scale).T)], f"{name}.fc1")
    x = g.op("Add", [x, g.const(f"{name}.fc1.bias", first_bias)], f"{name}.fc1.biased")
    x = g.op("Relu", [x], f"{name}.relu")
    x = g.op("MatMul", [x, g.const(f"{name}.fc2.weight", second.T)], f"{name}.fc2")
    x = g.op(
        "Add", [x, g.const(f"{name}.fc2.bias", _numpy(block.gp.fc2.bias))], f"{name}.fc2.biased"
    )
    x = g.op("Sigmoid", [x], f"{name}.sigmoid")
    shape = (1, c, 1, 1) if p.batch == 1 else (p.batch, 1, c, 1, 1)
    return g.reshape(x, shape, name)


def _ffn(g: GraphWriter, ffn: FFNBlock, norm: nn.Module, x: str, name: str) -> str:
    scale, shift = _affine(norm)
    weight, bias = fold(ffn.ffn_fc1)
    bias = bias + weight[:, :, 0, 0] @ shift
    x = g.conv(x, weight * scale[None, :, None, None], bias, f"{name}.ffn_fc1")
    x = gelu(g, x, f"{name}.gelu")
    return g.conv(x, *fold(ffn.ffn_fc2), f"{name}.ffn_fc2")


def gelu(g: GraphWriter, x: str, name: str) -> str:
    """x/2 (1 + erf(x / sqrt 2)), in the five nodes that every back end fuses into one."""
    y = g.op("Div", [x, g.const("sqrt2", np.sqrt(2.0))], f"{name}.div")
    y = g.op("Erf", [y], f"{name}.erf")
    y = g.op("Add", [y, g.const("one", 1.0)], f"{name}.add")
    y = g.op("Mul", [x, y], f"{name}.mul")
    return g.op("Mul", [y, g.const("half", 0.5)], name)


def _downsample(g: GraphWriter, module: nn.Module, x: str, p: Patches, name: str) -> str:
    if not isinstance(module, Downsample):
        raise ModelError(f"{name} is not a downsampling")
    channels = module.expand.conv.out_channels
    x = g.op("Relu", [g.conv(x, *fold(module.expand), f"{name}.expand")], f"{name}.expand.relu")
    x = merge_map(g, x, channels, p, f"{name}.map")
    x = g.conv(x, *fold(module.reduce), f"{name}.reduce", stride=2, padding=1, groups=channels)
    return g.op("Relu", [x], f"{name}.reduce.relu")


def _head(g: GraphWriter, head: UperNetHead, levels: list[_Level]) -> str:
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
    parts = [outs[0]]
    parts += [resize(g, x, 2 << i, f"head.fusion.up{i + 1}") for i, x in enumerate(outs[1:])]
    x = g.op("Concat", parts, "head.fusion.concat", axis=1)
    x = g.op("Relu", [g.conv(x, *fold(head.fusion), "head.fusion", padding=1)], "head.fusion.relu")
    classifier = head.classifier
    return g.conv(x, _numpy(classifier.weight), _numpy(classifier.bias), "head.classifier")


def _pyramid(g: GraphWriter, head: UperNetHead, level: _Level, name: str) -> str:
    p, channels, (h, w) = level.patches, len(level.scale), level.patches.size
    x = merge_map(g, level.tensor, channels, p, f"{name}.map")
    x = g.op("Mul", [x, g.const(f"{name}.norm.scale", _per_channel(level.scale))], f"{name}.scale")
    x = g.op("Add", [x, g.const(f"{name}.norm.shift", _per_channel(level.shift))], f"{name}.norm")
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
    scale, shift = _affine(module.bn)
    return _numpy(module.conv.weight) * scale[:, None, None, None], shift


def _affine(norm: nn.Module) -> tuple[Array, Array]:
    scale, shift = batchnorm_affine(norm)
    return scale.numpy(), shift.numpy()


def _per_channel(values: Array) -> Array:
    return values[None, :, None, None]


def _numpy(tensor: Tensor | None) -> Array:
    if tensor is None:
        raise ModelError("a bias is missing")
    value: Any = tensor.detach().double().cpu().numpy()
    return np.asarray(value, np.float64)
