"""Rules of ``qdq_lint`` that OpenVINO's CPU plugin asks for: what it gets wrong, and how to see it.

``docs/upstream`` has a small graph for each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from calibration.qdq_graph import HEAVY, TRANSPARENT, QdqGraph, Violation, label


def batched_bias(
    graph: QdqGraph, node: onnx.NodeProto, batch: tuple[int, ...]
) -> Iterator[Violation]:
    """A MatMul with ``batch`` (...) matrices of weights whose own bias does not follow it."""
    output, bias = node.output[0], None
    readers = graph.consumers.get(output, [])
    if output not in graph.outputs and len(readers) == 1 and readers[0].op_type == "Add":
        others = [name for name in readers[0].input if name != output]
        bias = graph.constant(others[0]) if len(others) == 1 else None
    name, why = label(node), ""
    if bias is None:
        why = "a batched MatMul needs a constant Add directly after it"
    elif bias.shape[:-2] != batch or bias.shape[-1] == 1:
        why = f"its bias of shape {bias.shape} is broadcast, must be stated for all"
    elif np.ptp(np.asarray(bias, np.float64)) == 0:
        why = "its bias is the same everywhere: the engine would rewrite the Add"
    if why:
        yield Violation("batched-bias", name, f"{name}: {why}")


def signed_concat(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Violation]:
    """A Concat of several tensors, one of them int8, on its way to a heavy operator."""
    pairs = [graph.quantizer_of(_unmoved(graph, name)) for name in node.input]
    signed = any(pair is not None and pair.element == TensorProto.INT8 for pair in pairs)
    if len(pairs) > 1 and signed and _reaches_heavy(graph, node):
        name = label(node)
        yield Violation(
            "signed-concat", name, f"{name}: concatenates int8 activations, must be uint8 or float"
        )


def _unmoved(graph: QdqGraph, name: str) -> str:
    """The tensor before it was moved."""
    while (maker := graph.producer.get(name)) is not None and maker.op_type in TRANSPARENT:
        name = maker.input[0]
    return name


def _reaches_heavy(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Whether a heavy operator reads the node, values only moved in between."""
    waiting = [node]
    while waiting:
        for reader in graph.consumers.get(waiting.pop().output[0], []):
            if reader.op_type in HEAVY:
                return True
            if reader.op_type in TRANSPARENT or reader.op_type == "Concat":
                waiting.append(reader)
    return False


def rounded_sum(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[Violation]:
    """An Add that reads a convolution rounded for it alone, a rounding that fusion leaves out."""
    for tensor in node.input:
        pair = graph.quantizer_of(tensor)
        if pair is None or pair.q is None:
            continue
        # What others read as well cannot be fused into the sum.
        chain = [pair.source, pair.q.output[0], tensor]
        maker = graph.producer.get(pair.source)
        if maker is not None and maker.op_type == "Relu":
            chain.append(maker.input[0])
            maker = graph.producer.get(maker.input[0])
        alone = all(len(graph.consumers.get(name, [])) == 1 for name in chain)
        if maker is not None and maker.op_type == "Conv" and alone:
            name = label(node)
            yield Violation(
                "rounded-sum", name, f"{name}: adds {label(maker)} after rounding it, must round "
                "the sum alone",
            )  # fmt: skip
