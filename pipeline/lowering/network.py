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

import numpy as np
import onnx
from onnx import helper
from torch import nn

from models.convolution import Downsample, Refinement
from models.errors import ModelError
from models.repmlp import FFNBlock, RepMLPBlock, RepMLPUnit, check_input_size, units_of
from models.segmenter import Segmenter
from pipeline.lowering.embedding import lower_embedding
from pipeline.lowering.fc3 import lower_fc3
from pipeline.lowering.graph import FLOAT, UINT8, GraphWriter
from pipeline.lowering.head import lower_head
from pipeline.lowering.parts import (
    Array,
    Level,
    Patches,
    affine,
    as_float64,
    fold,
    gelu,
    mean_of_patches,
    merge_map,
    per_channel,
    positions,
    split_map,
)
from pipeline.lowering.train_form import lower_branches

INPUT, OUTPUT = "frames", "logits"


def lower(
    model: Segmenter, *, batch: int, height: int, width: int, opset: int, metadata: dict[str, str],
    apart: bool = False, convolve: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """The network at a fixed shape, from uint8 BGR frames (N, H, W, 3) to float32 logits.

    Args:
        model: in evaluation mode, and in deploy form unless ``apart``.
        batch: frames in one input.
        height: of the input in pixels; whole patches.
        width: likewise.
        opset: 17 to 19.
        metadata: strings kept in the model.
        apart: take blocks in training form too, their branches apart: for study.
        convolve: spell FC3 as a convolution, for CPUs without VNNI: see ``fc3.py``.

    Returns:
        A checked model: ``frames`` uint8 (N, H, W, 3) -> ``logits`` float32 (N, classes, H/4, W/4).

    Raises:
        InputShapeError: the size is not whole patches.
        ModelError: a block is still in train form, or the opset is out of range.
    """
    if not 17 <= opset <= 19:
        raise ModelError(f"opset must be 17, 18 or 19, got {opset}")
    check_input_size(height, width, model.backbone.config.unit)
    for name, block in model.backbone.repmlp_blocks():
        if not (block.deploy or apart):
            raise ModelError(f"{name} is in train form: inject locality first")
    writer = GraphWriter(opset, convolve=convolve)
    levels = _backbone(writer, model, batch, height, width)
    shape = [batch, model.head.classes, height // 4, width // 4]
    writer.op("Identity", [lower_head(writer, model.head, levels)], OUTPUT)
    return writer.model(
        "repmlpnet_upernet",
        [helper.make_tensor_value_info(INPUT, UINT8, [batch, height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT, FLOAT, shape)],
        metadata,
    )


def _backbone(g: GraphWriter, model: Segmenter, batch: int, height: int, width: int) -> list[Level]:
    net = model.backbone
    x = lower_embedding(g, net.conv_embedding, INPUT, batch, height, width)
    if net.stem is not None:
        x = g.conv(x, *fold(net.stem), "stem", stride=2, padding=1)
        x = g.op("Relu", [x], "stem.relu")
    for i, module in enumerate(net.refine):
        x = _refine(g, module, x, f"refine.{i}")
    levels: list[Level] = []
    for i, stage in enumerate(net.stages):
        side = net.config.patches[i]
        stride = 4 << i
        patches = Patches(batch, height // stride // side, width // stride // side, side)
        name = f"stages.{i}"
        x = split_map(g, x, net.config.channels[i], patches, f"{name}.split")
        for j, unit in enumerate(units_of(stage)):
            x = _unit(g, unit, x, patches, f"{name}.{j}", cut=j == 0)
        scale, shift = affine(net.norms[i])
        levels.append(Level(x, patches, scale, shift))
        if i + 1 < len(net.stages):
            x = _downsample(g, net.downsample[i], x, patches, f"downsample.{i}")
    return levels


def _refine(g: GraphWriter, module: nn.Module, x: str, name: str) -> str:
    if not isinstance(module, Refinement):
        raise ModelError(f"{name} is not a refinement")
    y = g.conv(x, *fold(module.first), f"{name}.first", padding=1)
    y = g.op("Relu", [y], f"{name}.first.relu")
    y = g.conv(y, *fold(module.second), f"{name}.second", padding=1)
    return g.op("Relu", [g.op("Add", [x, y], f"{name}.sum")], f"{name}.relu")


def _unit(g: GraphWriter, unit: RepMLPUnit, x: str, p: Patches, name: str, *, cut: bool) -> str:
    y = _block(g, unit.repmlp_block, unit.prebn1, x, p, f"{name}.repmlp_block", cut)
    x = g.op("Add", [x, y], f"{name}.add1")
    y = _ffn(g, unit.ffn_block, unit.prebn2, x, f"{name}.ffn_block")
    return g.op("Add", [x, y], f"{name}.add2")


def _block(
    g: GraphWriter, block: RepMLPBlock, norm: nn.Module, x: str, p: Patches, name: str, cut: bool
) -> str:
    scale, shift = affine(norm)
    mean = mean_of_patches(g, x, p, f"{name}.gp.mean", cut=cut)
    gate = _gate(g, block, scale, shift, mean, p, f"{name}.gp")
    scaled = g.op("Mul", [x, g.const(f"{name}.prebn.scale", per_channel(scale))], f"{name}.scale")
    shifted = g.const(f"{name}.prebn.shift", per_channel(shift))
    x = g.op("Add", [scaled, shifted], f"{name}.prebn")
    y = (_merged if block.deploy else lower_branches)(g, block, x, p, name)
    if p.batch > 1:
        y = g.reshape(y, (p.batch, p.rows * p.cols, block.channels, p.side**2), f"{name}.images")
    y = g.op("Mul", [y, gate], f"{name}.gated")
    return g.reshape(y, (p.count, block.channels, p.side, p.side), name)


def _merged(g: GraphWriter, block: RepMLPBlock, x: str, p: Patches, name: str) -> str:
    matrix = as_float64(block.fc3_matrix())
    bias = as_float64(block.fc3.bias).reshape(block.sets, -1)
    y = lower_fc3(g, matrix, bias, block.channels, x, p, f"{name}.fc3")
    if block.local is None:
        return y
    # Set s serves channels s, S + s, 2S + s...: the kernel repeats over the groups.
    groups = block.channels // block.sets
    weight = np.tile(as_float64(block.local.weight), (groups, 1, 1, 1))
    bias = np.tile(as_float64(block.local.bias), groups)
    local = g.conv(
        x, weight, bias, f"{name}.local", padding=weight.shape[-1] // 2, groups=block.channels
    )
    # Summed as FC3 lays its output out, (P, C, h*w): the convolution's is then rounded to bytes
    # before it is reordered. In one shape the back end would fuse the sum and move floats.
    local = positions(g, local, block.channels, p, f"{name}.local.positions")
    return g.op("Add", [y, local], f"{name}.sum")


def _gate(
    g: GraphWriter, block: RepMLPBlock, scale: Array, shift: Array, mean: str, p: Patches, name: str
) -> str:
    """(P, C, 1, 1) -> (1, C, 1), or (N, 1, C, 1) for a batch, to multiply patches' positions with.

    Args:
        g: writer.
        block: whose gate it is.
        scale: of the BatchNorm before the block (C,).
        shift: likewise.
        mean: of each patch and channel, before that BatchNorm.
        p: the patches.
        name: of the nodes.
    """
    c = block.channels
    first = as_float64(block.gp.fc1.weight)[:, :, 0, 0]
    first_bias = as_float64(block.gp.fc1.bias) + first @ shift
    second = as_float64(block.gp.fc2.weight)[:, :, 0, 0]
    x = g.reshape(mean, (p.batch, p.rows * p.cols, c), f"{name}.patches")
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
        "Add", [x, g.const(f"{name}.fc2.bias", as_float64(block.gp.fc2.bias))], f"{name}.fc2.biased"
    )
    x = g.op("Sigmoid", [x], f"{name}.sigmoid")
    shape = (1, c, 1) if p.batch == 1 else (p.batch, 1, c, 1)
    return g.reshape(x, shape, name)


def _ffn(g: GraphWriter, ffn: FFNBlock, norm: nn.Module, x: str, name: str) -> str:
    scale, shift = affine(norm)
    weight, bias = fold(ffn.ffn_fc1)
    bias = bias + weight[:, :, 0, 0] @ shift
    x = g.conv(x, weight * scale[None, :, None, None], bias, f"{name}.ffn_fc1")
    if ffn.activation == "relu":
        x = g.op("Relu", [x], f"{name}.relu")
    else:
        x = gelu(g, x, f"{name}.gelu")
    return g.conv(x, *fold(ffn.ffn_fc2), f"{name}.ffn_fc2")


def _downsample(g: GraphWriter, module: nn.Module, x: str, p: Patches, name: str) -> str:
    if not isinstance(module, Downsample):
        raise ModelError(f"{name} is not a downsampling")
    channels = module.expand.conv.out_channels
    x = g.op("Relu", [g.conv(x, *fold(module.expand), f"{name}.expand")], f"{name}.expand.relu")
    x = merge_map(g, x, channels, p, f"{name}.map")
    x = g.conv(x, *fold(module.reduce), f"{name}.reduce", stride=2, padding=1, groups=channels)
    return g.op("Relu", [x], f"{name}.reduce.relu")
