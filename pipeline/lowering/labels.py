"""Logits at stride 4 -> labels at full size, as nodes at the end of the graph.

What the host otherwise does after every inference runs on the device instead, and one byte a
pixel comes back where 19 floats for every 16 pixels would (0.5 MB and 10 MB at 512x1024):

    logits (N, C, h, w) -> Resize x4, linear, half-pixel -> ArgMax over C -> uint8 (N, 4h, 4w)

TensorRT casts to uint8 from floats only, so the indices go through the logits' own type; 19 classes
are exact in any.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.lowering.light import check

STRIDE = 4
LABELS = "labels"
MAX_CLASSES = 255  # 255 is the ignore label


def append_labels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose only output is ``labels``, uint8 (N, H, W): train ids at the input's size.

    Args:
        model: one float output (N, C, H/4, W/4) of fixed shape, C at most 255.

    Raises:
        ValueError: it has another output.
    """
    (output,) = model.graph.output
    tensor = output.type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    if len(shape) != 4 or not all(shape) or shape[1] > MAX_CLASSES:
        raise ValueError(f"output '{output.name}' is {shape}, not logits (N, C, h, w)")
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise ValueError(f"output '{output.name}' is not float")
    longer = onnx.ModelProto()
    longer.CopyFrom(model)
    graph = longer.graph
    scales = np.array([1, 1, STRIDE, STRIDE], np.float32)
    graph.initializer.append(numpy_helper.from_array(scales, f"{LABELS}.scales"))
    up, index, number = (f"{LABELS}.{part}" for part in ("up", "argmax", "number"))
    graph.node.extend(
        [
            helper.make_node(
                "Resize", [output.name, "", f"{LABELS}.scales"], [up], name=up, mode="linear",
                coordinate_transformation_mode="half_pixel",
            ),
            helper.make_node("ArgMax", [up], [index], name=index, axis=1, keepdims=0),
            helper.make_node("Cast", [index], [number], name=number, to=tensor.elem_type),
            helper.make_node("Cast", [number], [LABELS], name=LABELS, to=TensorProto.UINT8),
        ]
    )  # fmt: skip
    del graph.output[:]
    size = [shape[0], STRIDE * shape[2], STRIDE * shape[3]]
    graph.output.append(helper.make_tensor_value_info(LABELS, TensorProto.UINT8, size))
    check(longer)
    return longer
