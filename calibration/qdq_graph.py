"""Looking things up in a Q/DQ ONNX graph: who makes a tensor, who reads it, what quantizes it.

A *quantizer* is what turns one tensor into integers and back. It is spelled in one of two ways:

* ``x -> QuantizeLinear -> DequantizeLinear``: of an activation, or of a constant kept in float;
* ``int8 constant -> DequantizeLinear``: of a constant already rounded, as nncf writes weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# What moves between the dequantization and the operator without costing the int8 kernel, as
# observed: TensorRT carries the integers through these. Relu and a real Resize are not among them.
TRANSPARENT = frozenset(
    {"Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool"}
)
_DEFAULT_AXIS = 1


class QuantizedGraphError(ValueError):
    """A Q/DQ graph is not of a form that can be rewritten. One line, naming the node."""


@dataclass(frozen=True)
class Violation:
    """One broken rule: its name in ``qdq_lint``'s table, the node at fault, a line for people."""

    rule: str
    node: str
    message: str


@dataclass(frozen=True)
class Quantizer:
    """One dequantized tensor.

    Attributes:
        source: the float tensor that is quantized, or the integer constant that is dequantized.
        constant: whether ``source`` is a constant: a weight or bias, not an activation.
        q: the ``QuantizeLinear``; ``None`` where a constant is stored as integers.
        dq: the ``DequantizeLinear``.
        element: ONNX ``TensorProto`` type of the integers.
        scale: the scale as stored: rank 0, or rank 1; ``None`` when it is not a constant.
        zero_point: likewise; ``None`` when it is absent, which means zero.
        axis: the axis a rank-1 scale runs along, as written (may be negative).
    """

    source: str
    constant: bool
    q: onnx.NodeProto | None
    dq: onnx.NodeProto
    element: int
    scale: npt.NDArray[np.floating] | None
    zero_point: npt.NDArray[np.generic] | None
    axis: int

    @property
    def per_tensor(self) -> bool:
        """Whether one scale serves the whole tensor."""
        return self.scale is not None and self.scale.size == 1


class QdqGraph:
    """Indexes over ``model.graph``. Built once; not updated when the model is changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.outputs = {output.name for output in graph.output}
        self.inputs = {value.name for value in graph.input}
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self._tensors: dict[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        self._arrays: dict[str, npt.NDArray[np.generic]] = {}
        for node in self.nodes:
            for name in node.input:
                if name:
                    self.consumers.setdefault(name, []).append(node)
            for name in node.output:
                self.producer[name] = node
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self._tensors[node.output[0]] = attribute.t

    def is_constant(self, name: str) -> bool:
        """Whether the tensor is an initializer or the output of a ``Constant`` node."""
        return name in self._tensors

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """The constant's value, read-only; ``None`` when the tensor is not a constant."""
        if name not in self._tensors:
            return None
        if name not in self._arrays:
            array = np.asarray(numpy_helper.to_array(self._tensors[name]))
            array.setflags(write=False)
            self._arrays[name] = array
        return self._arrays[name]

    def element_type(self, name: str) -> int | None:
        """ONNX type of a constant's elements; ``None`` when the tensor is not a constant."""
        tensor = self._tensors.get(name)
        return None if tensor is None else int(tensor.data_type)

    def constant_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a constant, without decoding it."""
        return tuple(self._tensors[name].dims)

    def quantizer(self, dq: onnx.NodeProto) -> Quantizer | None:
        """What a ``DequantizeLinear`` belongs to; ``None`` when nothing quantizes its input."""
        given = dq.input[0]
        scale, zero_point = self._parameters(dq)
        q: onnx.NodeProto | None = None
        source = given
        if not self.is_constant(given):
            q = self.producer.get(given)
            if q is None or q.op_type != QUANTIZE:
                return None
            source = q.input[0]
        return Quantizer(
            source=source,
            constant=self.is_constant(source),
            q=q,
            dq=dq,
            element=self._element(dq),
            scale=scale,
            zero_point=zero_point,
            axis=axis_of(dq),
        )

    def quantizer_of(self, name: str) -> Quantizer | None:
        """The quantizer whose ``DequantizeLinear`` makes this tensor, if one does."""
        node = self.producer.get(name)
        return self.quantizer(node) if node is not None and node.op_type == DEQUANTIZE else None

    def dequantized(self, pair: Quantizer) -> npt.NDArray[np.float64] | None:
        """A quantized constant as its operator sees it; ``None`` where it is no constant.

        In float64, in which a product of such an integer and a float32 scale is exact: rounded to
        float32 it is what ``DequantizeLinear`` gives.
        """
        stored = self.constant(pair.source)
        if stored is None or pair.scale is None:
            return None
        zero = np.zeros((), np.int8) if pair.zero_point is None else pair.zero_point
        scale, zero = (_along(each, pair.axis, stored.ndim) for each in (pair.scale, zero))
        if pair.q is None:
            integers = stored.astype(np.float64)
        else:
            # In float32, as the standard's QuantizeLinear divides; ties to even.
            rounded = np.rint(stored.astype(np.float32) / scale.astype(np.float32)) + zero
            limits = np.iinfo(np.int8 if pair.element == onnx.TensorProto.INT8 else np.uint8)
            integers = np.clip(rounded, limits.min, limits.max).astype(np.float64)
        return np.asarray((integers - zero.astype(np.float64)) * scale.astype(np.float64))

    def same_parameters(self, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
        """Whether two Q or DQ nodes have equal types, scales, zero points and axes."""
        if self._element(first) != self._element(second):
            return False
        (scale, zero), (other_scale, other_zero) = map(self._parameters, (first, second))
        if scale is None or other_scale is None or not np.array_equal(scale, other_scale):
            return False
        zeros = [np.zeros((), np.int8) if z is None else z for z in (zero, other_zero)]
        if any(np.any(z != 0) for z in zeros) and not np.array_equal(zeros[0], zeros[1]):
            return False
        return scale.size == 1 or axis_of(first) == axis_of(second)

    def _parameters(
        self, node: onnx.NodeProto
    ) -> tuple[npt.NDArray[np.floating] | None, npt.NDArray[np.generic] | None]:
        scale = self.constant(node.input[1])
        zero = self.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        floats = scale is not None and np.issubdtype(scale.dtype, np.floating)
        return (scale if floats else None), zero  # type: ignore[return-value]  # checked above

    def _element(self, node: onnx.NodeProto) -> int:
        """Of the zero point; of the constant; else uint8, the standard's default below opset 21."""
        if len(node.input) > 2 and node.input[2]:
            element = self.element_type(node.input[2])
            if element is not None:
                return element
        if node.op_type == DEQUANTIZE:
            element = self.element_type(node.input[0])
            if element is not None:
                return element
            q = self.producer.get(node.input[0])
            if q is not None and q.op_type == QUANTIZE:
                return self._element(q)
        return int(onnx.TensorProto.UINT8)


def axis_of(node: onnx.NodeProto) -> int:
    """The ``axis`` attribute of a Q or DQ node; 1 when absent, as the standard says."""
    return next((int(a.i) for a in node.attribute if a.name == "axis"), _DEFAULT_AXIS)


def label(node: onnx.NodeProto) -> str:
    """The node's name, or where it has none its operator and output."""
    return node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}"


def drop_axis(node: onnx.NodeProto) -> None:
    """Take ``axis`` from a Q or DQ node, in place: of one scale per tensor it says nothing."""
    kept = [attribute for attribute in node.attribute if attribute.name != "axis"]
    del node.attribute[:]
    node.attribute.extend(kept)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove initializers that nothing reads, in place."""
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _along(values: npt.NDArray[np.generic], axis: int, rank: int) -> npt.NDArray[np.generic]:
    """Parameters as they broadcast over a tensor of that rank: one, or one along the axis."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)
