"""A Q/DQ graph as a torch module that learns: rounding with a straight-through gradient.

The graph is the very one that an engine is built from, node by node, so what is trained is what
will run: the same pairs in the same places, the same activation scales, sums rounded where the
engine rounds them. Rounding passes the gradient as if it were not there, clipping stops it (Bengio
et al. 2013, "Estimating or propagating gradients through stochastic neurons").

A quantized weight is held in float and rounded anew in each pass. It starts as near to the float
graph's as rounds to the step it has in the graph, which need not be the nearest (see
``calibration.rounding``). Its scale follows its greatest magnitude: scale = scale_0 * max |w| /
max |w_0|, channel by channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

from pipeline.errors import CheckFailedError

INT8 = (-128, 127)
_WITHIN = 0.49
"""Of a step: how far from a step's middle a weight may start; half of it would round either way."""
_RANGES = {onnx.TensorProto.INT8: INT8, onnx.TensorProto.UINT8: (0, 255)}


class QdqModule(nn.Module):
    """uint8 frames -> logits, as the graph computes them.

    Args:
        quantized: the Q/DQ graph; weights are int8 initializers behind a DequantizeLinear.
        floating: the float graph it was made from: where the weights start. The same model twice
            gives a float module, a teacher.

    Raises:
        CheckFailedError: an operator that is not among those the lowering writes; names the node.

    Attributes:
        weights: parameter of each quantized weight, by the name of its int8 initializer.
        biases: parameter of each float bias, by its initializer's name.
    """

    def __init__(self, quantized: onnx.ModelProto, floating: onnx.ModelProto) -> None:
        super().__init__()
        self._nodes = list(quantized.graph.node)
        for node in self._nodes:
            if node.op_type not in _OPERATORS and node.op_type not in _PAIR:
                raise CheckFailedError(f"node '{node.name}' ({node.op_type}) cannot be trained")
        self._input = quantized.graph.input[0].name
        self._output = quantized.graph.output[0].name
        values = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
        self._ranges = _quantizer_ranges(quantized)
        self._fixed = {
            name: torch.from_numpy(np.array(value))
            for name, value in values.items()
            if value.dtype in (np.float32, np.int8, np.uint8)
        }
        self._whole = {n: v.tolist() for n, v in values.items() if v.dtype == np.int64}
        self.weights = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        self._start: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._take_weights(values, floating)

    def _take_weights(self, values: dict[str, Any], floating: onnx.ModelProto) -> None:
        """Parameters, and where each scale starts: (scale, greatest magnitude, axis)."""
        held = {t.name: t for t in floating.graph.initializer}
        made = {name: node for node in self._nodes for name in node.output}
        sources = {node.name: node for node in floating.graph.node}
        for node in self._nodes:
            source = sources.get(node.name)
            if source is None:
                continue
            for name, original in zip(node.input, source.input, strict=False):
                maker = made.get(name)
                if maker is None or maker.op_type != "DequantizeLinear" or original not in held:
                    continue
                key = maker.input[0]
                weight = torch.from_numpy(np.array(numpy_helper.to_array(held[original])))
                axis = _attributes(maker).get("axis", 1) % max(weight.ndim, 1)
                scale = torch.from_numpy(np.array(values[maker.input[1]]))
                step, number = _along(scale, weight, axis), torch.from_numpy(np.array(values[key]))
                weight = (number + (weight / step - number).clamp(-_WITHIN, _WITHIN)) * step
                self._start[key] = (scale, _greatest(weight, scale, axis), axis)
                self.weights[_key(key)] = nn.Parameter(weight)
        for name, value in values.items():
            if name.endswith(".bias") and value.dtype == np.float32:
                self.biases[_key(name)] = nn.Parameter(torch.from_numpy(np.array(value)))

    def forward(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, classes, H/4, W/4) float32."""
        at: dict[str, Tensor] = {self._input: frames}
        for node in self._nodes:
            if node.op_type == "QuantizeLinear":
                found = self._quantize(node, at)
            elif node.op_type == "DequantizeLinear":
                found = self._dequantize(node, at)
            else:
                inputs = [self._operand(name, at) for name in node.input]
                found = _OPERATORS[node.op_type](inputs, _attributes(node))
            at[node.output[0]] = found
        return at[self._output]

    def scale(self, name: str) -> Tensor:
        """Today's scale of a weight, (C,) or scalar."""
        scale, greatest, axis = self._start[name]
        weight = self.weights[_key(name)].detach()
        grown = _greatest(weight, scale, axis) / greatest
        return torch.where(greatest > 0, scale * grown, scale)

    def rounded(self, name: str) -> Tensor:
        """Today's weight in steps of its scale: whole numbers, float32."""
        weight = self.weights[_key(name)]
        scale = _along(self.scale(name), weight, self._start[name][2])
        return _round((weight / scale).clamp(*INT8))

    def names(self) -> list[str]:
        """The int8 initializers that are trained, in graph order."""
        return list(self._start)

    def _operand(self, name: str, at: dict[str, Tensor]) -> Any:
        if not name:
            return None
        if name in at:
            return at[name]
        if name in self._whole:
            return self._whole[name]
        key = _key(name)
        return self.biases[key] if key in self.biases else self._fixed[name]

    def _quantize(self, node: onnx.NodeProto, at: dict[str, Tensor]) -> Tensor:
        x = self._operand(node.input[0], at)
        scale, zero = (self._fixed[name] for name in node.input[1:3])
        low, high = self._ranges[node.output[0]]
        return (_round(x / scale) + zero.float()).clamp(low, high)

    def _dequantize(self, node: onnx.NodeProto, at: dict[str, Tensor]) -> Tensor:
        name = node.input[0]
        if name in self._start:
            steps = self.rounded(name)
            return steps * _along(self.scale(name), steps, self._start[name][2])
        scale, zero = (self._fixed[each] for each in node.input[1:3])
        values: Tensor = self._operand(name, at).float()
        if scale.ndim:
            axis = _attributes(node).get("axis", 1)
            scale, zero = _along(scale, values, axis), _along(zero, values, axis)
        return (values - zero.float()) * scale


def write_back(module: QdqModule, quantized: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the Q/DQ graph with the module's weights, their scales and its biases."""
    tuned = onnx.ModelProto()
    tuned.CopyFrom(quantized)
    new: dict[str, Any] = {}
    with torch.no_grad():
        for node in tuned.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in module.names():
                name = node.input[0]
                new[name] = module.rounded(name).numpy().astype(np.int8)
                new[node.input[1]] = module.scale(name).numpy()
        for tensor in tuned.graph.initializer:
            if _key(tensor.name) in module.biases:
                new[tensor.name] = module.biases[_key(tensor.name)].detach().numpy()
            if tensor.name in new:
                tensor.CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))
    return tuned


def _quantizer_ranges(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """(low, high) of each quantizer's integers, from the type of its zero point."""
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    return {
        node.output[0]: _RANGES[kinds[node.input[2]]]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def _round(x: Tensor) -> Tensor:
    """Half to even, as ONNX has it; the gradient is the identity's."""
    return x + (x.round() - x).detach()


def _greatest(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """max |w| along the scale's axis, of the scale's shape."""
    if not scale.ndim:
        return weight.abs().max()
    return weight.abs().movedim(axis, 0).flatten(1).amax(1)


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """(C,) shaped so that it multiplies ``like`` along ``axis``."""
    if not values.ndim:
        return values
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _key(name: str) -> str:
    """ParameterDict takes no dots."""
    return name.replace(".", "/")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _conv(inputs: list[Any], a: dict[str, Any]) -> Tensor:
    x, weight, *bias = inputs
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(
        x, weight, bias[0] if bias else None, stride=a.get("strides", (1, 1)),
        padding=(top, left), groups=a.get("group", 1),
    )  # fmt: skip


def _resize(inputs: list[Any], a: dict[str, Any]) -> Tensor:
    scales = inputs[2].tolist()
    return F.interpolate(inputs[0], scale_factor=scales[2:], mode="bilinear", align_corners=False)


def _reduce_mean(inputs: list[Any], a: dict[str, Any]) -> Tensor:
    axes = inputs[1] if len(inputs) > 1 else a["axes"]
    return inputs[0].mean(dim=tuple(axes), keepdim=bool(a.get("keepdims", 1)))  # type: ignore[no-any-return]  # untyped operand


def _average_pool(inputs: list[Any], a: dict[str, Any]) -> Tensor:
    return F.avg_pool2d(inputs[0], tuple(a["kernel_shape"]), tuple(a["strides"]))


_PAIR = ("QuantizeLinear", "DequantizeLinear")
_OPERATORS: dict[str, Callable[[list[Any], dict[str, Any]], Tensor]] = {
    "Add": lambda x, a: x[0] + x[1],
    "AveragePool": _average_pool,
    "Cast": lambda x, a: x[0].float(),
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Conv": _conv,
    "Div": lambda x, a: x[0] / x[1],
    "Erf": lambda x, a: torch.erf(x[0]),
    "GlobalAveragePool": lambda x, a: x[0].mean(dim=(2, 3), keepdim=True),
    "Identity": lambda x, a: x[0],
    "MatMul": lambda x, a: x[0] @ x[1],
    "Mul": lambda x, a: x[0] * x[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda x, a: F.relu(x[0]),
    "Reshape": lambda x, a: x[0].reshape(x[1]),
    "Resize": _resize,
    "Sigmoid": lambda x, a: torch.sigmoid(x[0]),
    "Sub": lambda x, a: x[0] - x[1],
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
}
