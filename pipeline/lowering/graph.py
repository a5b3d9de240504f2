"""A small writer of ONNX graphs: named nodes in, a checked ``ModelProto`` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64
PRODUCER = "repmlp-edge"


class GraphWriter:
    """Collects nodes and initializers. Every method returns the name of the tensor it made.

    Node names are unique; a node's first output is called like the node.

    Attributes:
        opset: of the graph.
        convolve: whether FC3 is spelled as a convolution, see ``fc3.py``.
    """

    def __init__(self, opset: int, *, convolve: bool = False) -> None:
        self.opset, self.convolve = opset, convolve
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._names: set[str] = set()

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node of one output."""
        if name in self._names:
            raise ValueError(f"two nodes are called '{name}'")
        self._names.add(name)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add an initializer, or find the one of that name with the same value."""
        array = np.ascontiguousarray(value, dtype=dtype)
        tensor = numpy_helper.from_array(array, name)
        held = self.initializers.setdefault(name, tensor)
        if held is not tensor and held.raw_data != tensor.raw_data:
            raise ValueError(f"two different constants are called '{name}'")
        return name

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        """Reshape to fixed sizes."""
        spelled = self.const("shape_" + "x".join(map(str, shape)), list(shape), np.int64)
        return self.op("Reshape", [x, spelled], name)

    def transpose(self, x: str, order: Sequence[int], name: str) -> str:
        """Transpose."""
        return self.op("Transpose", [x], name, perm=list(order))

    def conv(
        self, x: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None, name: str, *,
        stride: int | tuple[int, int] = 1, padding: int = 0, groups: int = 1,
    ) -> str:  # fmt: skip
        """Convolution, padded alike on all sides; a stride is of both axes or (down, across)."""
        inputs = [x, self.const(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.const(f"{name}.bias", bias))
        strides = [stride, stride] if isinstance(stride, int) else list(stride)
        return self.op(
            "Conv", inputs, name, kernel_shape=list(weight.shape[-2:]), strides=strides,
            pads=[padding] * 4, group=groups,
        )  # fmt: skip

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto], metadata: dict[str, str],
    ) -> onnx.ModelProto:  # fmt: skip
        """The graph as a model, its shapes inferred and the whole checked."""
        graph = helper.make_graph(
            self.nodes, name, list(inputs), list(outputs), list(self.initializers.values())
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], producer_name=PRODUCER,
            ir_version=9,
        )  # fmt: skip
        helper.set_model_props(model, metadata)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
        return model
