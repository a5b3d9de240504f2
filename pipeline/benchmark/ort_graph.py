"""Our Q/DQ graph in a spelling that ONNX Runtime's int8 kernels run.

Its fused MatMul takes batched weights with one scale for each column only where they are spelled
its own way, and otherwise fails when it runs. To compare with the best it can do rather than with
nothing, those weights are given to it in float32, already dequantized; all else stays int8.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.qdq_graph import DEQUANTIZE, QdqGraph

_BATCHED: Final = 3  # dimensions


def float_batched_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """(a copy in which batched constant weights of MatMuls are float32, how many there were).

    The values are those that the graph's own DequantizeLinear gives: ``(w - zero point) * scale``
    in float32, so that the graph means the same.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = QdqGraph(copy)
    kept, count = [], 0
    for node in graph.nodes:
        pair = graph.quantizer(node) if node.op_type == DEQUANTIZE else None
        readers = graph.consumers.get(node.output[0], [])
        if (
            pair is None
            or pair.q is not None
            or len(graph.constant_shape(pair.source)) < _BATCHED
            or not any(reader.op_type == "MatMul" for reader in readers)
            or (values := graph.dequantized(pair)) is None
        ):
            kept.append(node)
            continue
        tensor = numpy_helper.from_array(values.astype(np.float32), node.output[0])
        copy.graph.initializer.append(tensor)
        count += 1
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy, count
