"""The builder's log, read: one that TensorRT for RTX makes here, and lines as others spell them.

The TensorRT 10 lines follow the format its documentation and users' logs show; they were written
for this test.
"""

from __future__ import annotations

import onnx
import pytest

from pipeline.engines.trt_log import (
    Layer,
    LogLine,
    executed,
    fallbacks,
    first_error,
    is_out_of_memory,
    make_logger,
    node_precisions,
    read_layers,
)
from tests.qdq_graphs import conv_graph

RTX = (
    "Layers:\n"
    "Name: conv_op_myl0_1, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,32,16,32], "
    "Strides: [1,1,1,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { "
    "Name: w, Dimensions: [32,32,3,3], Datatype: Int8, Format: (NHWC) }, { Name: alpha, "
    "Dimensions: [1], Datatype: Float, Format: (Linear) }], Outputs: [ { Name: y, Dimensions: "
    "[1,32,16,32], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: "
    "__myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv_op]\x1f[ONNX Layer: xd_op]\n"
    "Name: signal_0, LayerType: signal, Inputs: [], Outputs: [], TacticName: , StreamId: 0, "
    "Metadata: \n"
    "\n"
    "I/O Tensors:\n"
    " Name: x, IOMode: Input, DataType: Float, Dimensions: [1,32,16,32], Location: Device\n"
)
TEN = (
    "Layers:\n"
    "Name: Reformatting CopyNode for Input Tensor 0 to conv_op, LayerType: Reformat, Inputs: [ { "
    "Name: (Unnamed Layer* 3) [Shuffle]_output, Location: Device, Dimensions: [1,3,8,8], "
    "Format/Datatype: Row major linear FP32 }], Outputs: [ { Name: r, Location: Device, "
    "Dimensions: [1,3,8,8], Format/Datatype: Row major Int8 format }], ParameterType: Reformat, "
    "Origin: QDQ, TacticValue: 0x3ea, StreamId: 0, Metadata: [ONNX Layer: q_op]\n"
    "Name: w + wq_op + conv_op, LayerType: CaskConvolution, Inputs: [ { Name: r, Location: Device, "
    "Dimensions: [1,3,8,8], Format/Datatype: Thirty-two wide channel vectorized row major Int8 "
    "format }], Outputs: [ { Name: y, Location: Device, Dimensions: [1,8,8,8], Format/Datatype: "
    'Row major linear FP32 }], ParameterType: Convolution, Weights: {"Type": "Int8", "Count": 216},'
    ' Bias: {"Type": "Float", "Count": 8}, Activation: RELU, TacticName: ampere_i8816, '
    "TacticValue: 0x9, StreamId: 0, Metadata: [ONNX Layer: conv_op][ONNX Layer: relu_op]\n"
    "Name: half_op, LayerType: CaskConvolution, Inputs: [ { Name: h, Location: Device, Dimensions: "
    "[1,8,8,8], Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], Outputs: [ { "
    "Name: z, Location: Device, Dimensions: [1,8,8,8], Format/Datatype: Half }], ParameterType: "
    'Convolution, Weights: {"Type": "Half", "Count": 576}, TacticName: sm80_f16, StreamId: 0, '
    "Metadata: [ONNX Layer: half_op]\n"
    "Bindings:\nx\ny\n"
)


def _verbose(text: str) -> list[LogLine]:
    return [LogLine("INFO", "building"), LogLine("VERBOSE", text)]


def test_rtx_lines_are_read() -> None:
    (conv, signal) = read_layers(_verbose(RTX))
    assert conv == Layer(
        "conv_op_myl0_1", "correlation", ("int8", "int8", "fp32"), ("fp16",),
        "__myelin_CASK_STUB", ("conv_op", "xd_op"),
    )  # fmt: skip
    assert conv.precision == "int8"
    assert signal.nodes == ()
    assert executed([conv, signal]) == {"correlation int8": 1}


def test_tensorrt_10_lines_are_read() -> None:
    copy, conv, half = read_layers(_verbose(TEN))
    assert copy.inputs == ("fp32",)
    assert copy.outputs == ("int8",)
    assert conv.inputs == ("int8", "int8")
    assert conv.precision == "int8"
    assert conv.tactic == "ampere_i8816"
    assert conv.nodes == ("conv_op", "relu_op")
    assert half.inputs == ("fp16", "fp16")
    assert half.precision == "fp16"
    assert node_precisions([copy, conv, half], ["conv_op", "half_op", "gone_op"]) == {
        "conv_op": "int8", "half_op": "fp16", "gone_op": "unknown",
    }  # fmt: skip


def _layer(kind: str, inputs: tuple[str, ...], *nodes: str) -> Layer:
    return Layer("x", kind, inputs, ("fp32",), "", nodes)


def test_the_multiplying_layer_decides_not_its_epilogue() -> None:
    layers = [
        _layer("gemm", ("int8", "int8", "fp32"), "mm"),
        _layer("kgen", ("fp32", "fp32"), "mm", "bias"),
    ]
    assert node_precisions(layers, ["mm"]) == {"mm": "int8"}


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        # Operands turned to float inside a fused kernel: its inputs are integers, its product not.
        (_layer("runtime_fusion", ("int8", "fp32", "int8"), "mm"), "fp32"),
        # A product so small that it lies in generated code.
        (_layer("kgen", ("fp32", "fp32"), "mm"), "fp32"),
        # One operand in int8 is not an int8 product.
        (_layer("gemm", ("int8", "fp16"), "mm"), "fp16"),
        (_layer("correlation", ("fp16", "fp16", "fp32"), "mm"), "fp16"),
    ],
)  # fmt: skip
def test_what_is_not_an_int8_product(layer: Layer, precision: str) -> None:
    assert node_precisions([layer], ["mm"]) == {"mm": precision}
    assert fallbacks({"mm": precision}, []) == ["mm"]
    assert fallbacks({"mm": precision}, ["mm"]) == []


def test_without_a_table_nothing_is_claimed() -> None:
    assert read_layers([LogLine("VERBOSE", "After Myelin optimization: 1 layers")]) == []
    assert node_precisions([], ["mm"]) == {"mm": "unknown"}
    assert fallbacks({"mm": "unknown"}, []) == ["mm"]


def test_the_last_table_counts_and_a_cut_line_is_harmless() -> None:
    lines = [LogLine("VERBOSE", TEN), LogLine("VERBOSE", RTX)]
    assert len(read_layers(lines)) == 2
    for end in range(len(RTX)):
        read_layers(_verbose(RTX[:end]))


@pytest.mark.parametrize(
    "text",
    [
        "Requested amount of GPU memory (1 bytes) could not be allocated. OutOfMemory",
        "Tactic Selection: no tactics to implement the operation within workspace limit.",
        "Error Code 2: OutOfMemory (no further information)",
        "CUDA error 2 for 1024-byte allocation.",
    ],
)
def test_memory_running_out_is_recognised(text: str) -> None:
    assert is_out_of_memory([LogLine("ERROR", text)])
    assert not is_out_of_memory([LogLine("VERBOSE", text)])


def test_the_first_telling_error_is_one_line() -> None:
    lines = [
        LogLine("WARNING", "beware"),
        LogLine("ERROR", "ModelImporter.cpp:140: While parsing node number 0"),
        LogLine("ERROR", "ModelImporter.cpp:151: ERROR: cannot\n import"),
    ]
    assert first_error(lines) == "ModelImporter.cpp:151: ERROR: cannot import"
    assert first_error([]) == "no reason given"


def test_a_real_build_names_every_node_and_its_precision() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    model = conv_graph()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None
    layers = read_layers(logger.lines)
    assert node_precisions(layers, ["conv_op"]) == {"conv_op": "int8"}
    assert {n for layer in layers for n in layer.nodes} == _names(model)


def _names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node}
