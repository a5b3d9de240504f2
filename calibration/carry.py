"""Ranges found at one size of the input, carried to the same network at another.

A range belongs to a tensor of the network, not to its height and width, and the two graphs differ
in nothing else: the shapes that Reshapes give, and the matrices of pyramid pooling, which stay in
float. So the Q/DQ graph of the small size becomes that of the large one when those constants are
the large graph's. Calibration costs memory and time by the pixel; this is how a network whose
activations at full size would not fit is quantized at all.
"""

from __future__ import annotations

import onnx

from calibration.qdq_graph import QuantizedGraphError


def carry(
    quantized: onnx.ModelProto, small: onnx.ModelProto, large: onnx.ModelProto
) -> onnx.ModelProto:
    """The Q/DQ graph at the large graph's size.

    Args:
        quantized: Q/DQ graph made from ``small``.
        small: float graph.
        large: the same network lowered at another size: nodes go by the same names.

    Raises:
        QuantizedGraphError: the graphs are not of one network, or a quantized constant depends on
            the size; names the node.
    """
    theirs = {node.name: node for node in large.graph.node}
    first = {node.name: node for node in small.graph.node}
    strange = set(first) ^ set(theirs)
    if strange:
        raise QuantizedGraphError(
            f"the two sizes are not of one network: only one of them has node '{min(strange)}'"
        )
    old = {t.name: t for t in small.graph.initializer}
    new = {t.name: t for t in large.graph.initializer}
    carried = onnx.ModelProto()
    carried.CopyFrom(quantized)
    graph = carried.graph
    for node in graph.node:
        if node.name not in first:
            continue  # a quantizer, or what belongs to one
        before, after = first[node.name], theirs[node.name]
        if (before.op_type, len(before.input)) != (after.op_type, len(after.input)):
            raise QuantizedGraphError(f"the two sizes differ in the kind of node '{node.name}'")
        for place, name in enumerate(before.input):
            if name not in old:
                continue
            if node.input[place] == name:
                node.input[place] = after.input[place]
            elif old[name].SerializeToString() != _renamed(new[after.input[place]], name):
                raise QuantizedGraphError(
                    f"node '{node.name}' has an int8 constant that depends on the input's size"
                )
    read = {name for node in graph.node for name in node.input}
    kept = {t.name: t for t in quantized.graph.initializer if t.name not in old}
    kept |= new
    del graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.initializer.extend(t for name, t in kept.items() if name in read)
    graph.input.extend(large.graph.input)
    graph.output.extend(large.graph.output)
    del carried.metadata_props[:]
    carried.metadata_props.extend(large.metadata_props)
    return onnx.shape_inference.infer_shapes(carried, data_prop=True)


def _renamed(tensor: onnx.TensorProto, name: str) -> bytes:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return bytes(copy.SerializeToString())
