"""Some layers of a Q/DQ graph quantized, the others in float: what a single layer costs.

A *layer* is a node that reads dequantized operands, seen through whatever only moves values
(``qdq_graph.TRANSPARENT``, and Concat). To quantize some layers and no others, the float graph is
taken and each of those nodes replaced by its quantized self, with the Q/DQ pairs of its own
operands. A tensor that several layers read in int8 is so rounded for the chosen ones alone: the
other readers get it as it is. All layers chosen is the Q/DQ graph itself, none is the float graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from calibration.qdq_graph import (
    DEQUANTIZE,
    QUANTIZE,
    TRANSPARENT,
    QdqGraph,
    QuantizedGraphError,
    drop_unused,
)

_SEEN_THROUGH = TRANSPARENT | {"Concat"}
_PAIR = frozenset({QUANTIZE, DEQUANTIZE})
_SUFFIX = ".quantized"


class Ablation:
    """A Q/DQ graph beside the float graph it was made from.

    Args:
        quantized: Q/DQ graph in any spelling.
        floating: the same network in float; nodes and tensors go by the same names.

    Raises:
        QuantizedGraphError: the two are not of one network; names the node.

    Attributes:
        layers: operator of each quantized layer by name, in graph order.
    """

    def __init__(self, quantized: onnx.ModelProto, floating: onnx.ModelProto) -> None:
        self._floating = floating
        self._graph = QdqGraph(quantized)
        self._tensors = {t.name: t for t in quantized.graph.initializer}
        self._nodes = {node.name: node for node in quantized.graph.node}
        self._opset = {entry.domain: entry.version for entry in quantized.opset_import}
        if self._opset != {entry.domain: entry.version for entry in floating.opset_import}:
            raise QuantizedGraphError("the Q/DQ graph and the float graph have different opsets")
        self._float_names = frozenset(node.name for node in floating.graph.node)
        self._check_same_network()
        self._quantized_tensors: dict[str, bool] = {}
        self.layers: Mapping[str, str] = {
            node.name: node.op_type
            for node in floating.graph.node
            if node.op_type not in _SEEN_THROUGH
            and any(self._is_quantized(name) for name in self._nodes[node.name].input)
        }

    def only(self, layers: Collection[str]) -> onnx.ModelProto:
        """The network with those layers quantized as in the Q/DQ graph, and all others in float.

        Raises ``QuantizedGraphError`` naming a layer that the graph does not quantize.
        """
        unknown = sorted(set(layers) - set(self.layers))
        if unknown:
            raise QuantizedGraphError(f"the graph quantizes no layer called '{unknown[0]}'")
        mixed = onnx.ModelProto()
        mixed.CopyFrom(self._floating)
        graph = mixed.graph
        held = {t.name: t.SerializeToString() for t in graph.initializer}
        taken = {name for node in graph.node for name in node.output} | set(held)
        nodes: list[onnx.NodeProto] = []
        done: dict[str, str] = {}

        def free(name: str) -> str:
            while name in taken:
                name += _SUFFIX
            taken.add(name)
            return name

        def constant(name: str) -> str:
            tensor = self._tensors[name]
            if held.get(name) == tensor.SerializeToString():
                return name
            own = onnx.TensorProto()
            own.CopyFrom(tensor)
            own.name = free(name)
            graph.initializer.append(own)
            return str(own.name)

        def operand(name: str) -> str:
            """The tensor's name in the mixed graph, its quantizer written where it has one."""
            if name not in done:
                maker = self._graph.producer.get(name)
                if name in self._tensors:
                    done[name] = constant(name)
                elif maker is None or not self._is_quantized(name):
                    done[name] = name
                else:
                    copied = onnx.NodeProto()
                    copied.CopyFrom(maker)
                    copied.input[:] = [operand(each) for each in maker.input]
                    copied.output[:] = [free(each) for each in maker.output]
                    if copied.output[0] != maker.output[0]:
                        copied.name = f"{maker.name}{_SUFFIX}"
                    nodes.append(copied)
                    done[name] = str(copied.output[0])
            return done[name]

        for node in self._floating.graph.node:
            own = onnx.NodeProto()
            own.CopyFrom(node)
            if node.name in layers:
                own.CopyFrom(self._nodes[node.name])
                own.input[:] = [operand(name) if name else "" for name in own.input]
            nodes.append(own)
        _replace_nodes(graph, nodes)
        return onnx.shape_inference.infer_shapes(mixed, data_prop=True)

    def without(self, layers: Collection[str]) -> onnx.ModelProto:
        """The Q/DQ graph with those layers in float."""
        return self.only([name for name in self.layers if name not in set(layers)])

    def _check_same_network(self) -> None:
        for node in self._floating.graph.node:
            other = self._nodes.get(node.name)
            if other is None or (other.op_type, list(other.output)) != (
                node.op_type,
                list(node.output),
            ):
                raise QuantizedGraphError(
                    f"the Q/DQ graph was not made from this float graph: node '{node.name}' of the "
                    "one is not in the other"
                )

    def _is_quantized(self, name: str) -> bool:
        """Whether the tensor is a DQ's, or one that was only moved since, or made for one.

        Nodes that the float graph does not have (an image moved into int8's range) belong to the
        quantizer that reads them.
        """
        if name not in self._quantized_tensors:
            maker = self._graph.producer.get(name)
            if maker is None:
                found = False
            elif maker.op_type in _PAIR or maker.name not in self._float_names:
                found = True
            else:
                found = maker.op_type in _SEEN_THROUGH and any(map(self._is_quantized, maker.input))
            self._quantized_tensors[name] = found
        return self._quantized_tensors[name]


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Put in the nodes that an output depends on, and keep the constants that they read."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    kept.reverse()
    _give_back_names(kept)
    del graph.node[:]
    graph.node.extend(kept)
    drop_unused(graph)
    del graph.value_info[:]


def _give_back_names(nodes: list[onnx.NodeProto]) -> None:
    """A moved tensor's copy takes the original's names where nothing reads the original."""
    made = {name for node in nodes for name in node.output}
    short: dict[str, str] = {}
    for node in nodes:
        tensor = node.output[0]
        original = tensor.removesuffix(_SUFFIX)
        if original != tensor and original not in made and node.op_type not in _PAIR:
            short[tensor] = original
            node.name = node.name.removesuffix(_SUFFIX)
    for node in nodes:
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
