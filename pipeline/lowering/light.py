"""ONNX's own tools on a graph without its weights.

Shape inference, version conversion and the checker copy and serialise the whole model, several
times each; at 350 MB that takes most of a minute. None of them needs the weights' values, so here
they see a copy in which large constants are inputs.
"""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

# Constants up to here are kept: shapes, axes and scales of Resize are among them.
MAX_KEPT_BYTES = 4096


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every constant of more than ``MAX_KEPT_BYTES`` is an input."""
    light = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    light.opset_import.extend(model.opset_import)
    light.metadata_props.extend(model.metadata_props)
    graph, source = light.graph, model.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    for tensor in source.initializer:
        if _heavy(tensor):
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        else:
            graph.initializer.append(tensor)
    return light


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of the model converted to that opset of the standard operators."""
    converted = version_converter.convert_version(without_weights(model), opset)
    weights = [tensor for tensor in model.graph.initializer if _heavy(tensor)]
    names = {tensor.name for tensor in weights}
    inputs = [value for value in converted.graph.input if value.name not in names]
    del converted.graph.input[:]
    converted.graph.input.extend(inputs)
    converted.graph.initializer.extend(weights)
    return converted


def inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Types and shapes of everything that nodes make."""
    light = onnx.shape_inference.infer_shapes(
        without_weights(model), strict_mode=True, data_prop=True
    )
    return [*light.graph.value_info, *light.graph.output]


def check(model: onnx.ModelProto) -> None:
    """``onnx.checker`` in full, but for the weights' values. Raises what it raises."""
    onnx.checker.check_model(without_weights(model), full_check=True)


def _heavy(tensor: onnx.TensorProto) -> bool:
    return len(tensor.raw_data) > MAX_KEPT_BYTES
