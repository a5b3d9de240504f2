"""Where a Q/DQ pair stands: before the moves of a tensor rather than after them.

nncf puts the pair of a stage's input after the map was cut into patches, and lets some readers have
the float tensor. So the largest maps of the network are cut, reordered and written in float32, four
bytes a value for what is a byte a moment later. A pair works on single values and Reshape and
Transpose move single values, so the pair may stand before them; then every reader has the rounded
tensor, and the moves are of bytes.
"""

from __future__ import annotations

from collections import Counter

import onnx

MOVES = ("Reshape", "Transpose")


def quantize_before_moves(graph: onnx.GraphProto) -> int:
    """Move Q/DQ pairs up through chains of moves that have one reader each, in place.

    A tensor with several pairs on it (other scales for other readers) is left as it is. Returns how
    many pairs were moved.
    """
    moved = 0
    while _move_one(graph):
        moved += 1
    return moved


def _move_one(graph: onnx.GraphProto) -> bool:
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for quantizer in graph.node:
        if quantizer.op_type != "QuantizeLinear":
            continue
        chain = _chain(quantizer.input[0], producers, readers)
        if not chain:
            continue
        end = quantizer.input[0]
        others = [
            n
            for n in graph.node
            if n.op_type == "QuantizeLinear" and n.input[0] == end and n is not quantizer
        ]
        pair = [
            n
            for n in graph.node
            if n.op_type == "DequantizeLinear" and n.input[0] == quantizer.output[0]
        ]
        if others or len(pair) != 1:
            continue
        _place(graph, quantizer, pair[0], chain, end)
        return True
    return False


def _chain(
    name: str, producers: dict[str, onnx.NodeProto], readers: Counter[str]
) -> list[onnx.NodeProto]:
    """The moves that end in ``name``, last first; each but the last feeds only the next."""
    chain: list[onnx.NodeProto] = []
    while (node := producers.get(name)) is not None and node.op_type in MOVES:
        if chain and readers[name] != 1:
            break
        chain.append(node)
        name = node.input[0]
    # Something else may read what the chain begins with: then it would be rounded for one reader
    # and not for the other, and the pair would stand on a branch of its own, which is as good.
    return chain


def _place(
    graph: onnx.GraphProto, quantizer: onnx.NodeProto, dequantizer: onnx.NodeProto,
    chain: list[onnx.NodeProto], end: str,
) -> None:  # fmt: skip
    """Let the pair read what the chain read, the chain the pair, and all readers the chain."""
    after = dequantizer.output[0]
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == after:
                node.input[i] = end
    first = chain[-1]
    quantizer.input[0] = first.input[0]
    first.input[0] = after
    kept = [n for n in graph.node if n is not quantizer and n is not dequantizer]
    at = next(i for i, n in enumerate(kept) if n is first)
    kept[at:at] = [quantizer, dequantizer]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
    del graph.node[:]
    graph.node.extend(copies)
