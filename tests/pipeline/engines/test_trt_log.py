"""The builder's log, read: one that TensorRT for RTX makes here, and lines as others spell them.

The TensorRT 10 lines were written for this test, in the format of users' published logs (metadata
parted by U+001E: NVIDIA/TensorRT, issue 4020).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import onnx
import pytest

from pipeline.engines.trt_log import (
    Layer,
    LogLine,
    executed,
    fallbacks,
    first_error,
    node_precisions,
    read_layers,
    shortage,
)
from pipeline.engines.trt_logger import listening
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
    "TacticValue: 0x9, StreamId: 0, Metadata: [ONNX Layer: conv_op]\x1e[ONNX Layer: relu_op]\n"
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


def test_every_node_of_a_layer_is_read_whatever_parts_them() -> None:
    """A node that is only second in a fused layer is no less accounted for."""
    for text in (RTX, TEN):
        layers = read_layers(_verbose(text))
        second = next(layer.nodes[1] for layer in layers if len(layer.nodes) > 1)
        assert node_precisions(layers, [second]) == {second: "int8"}


@pytest.mark.parametrize(
    ("activation", "residual", "weights", "inputs", "precision"),
    [
        # An int8 product to which a float map is added.
        ("Int8", "Row major linear FP32", "Int8", ("int8", "int8", "fp32"), "int8"),
        # A float product; that the map added to it is int8 makes it no other.
        ("Int8", "Int8", "Float", ("int8", "fp32", "int8"), "fp32"),
        ("Half", "Int8", "Half", ("fp16", "fp16", "int8"), "fp16"),
    ],
)
def test_a_fused_residual_is_no_factor(
    activation: str, residual: str, weights: str, inputs: tuple[str, ...], precision: str
) -> None:
    row = (
        "Name: conv + add, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, "
        f"Dimensions: [1,8,8,8], Format/Datatype: {activation} }}, {{ Name: skip, Location: "
        f"Device, Dimensions: [1,8,8,8], Format/Datatype: {residual} }}], Outputs: [ {{ Name: y, "
        "Location: Device, Dimensions: [1,8,8,8], Format/Datatype: Half }], ParameterType: "
        f'Convolution, Weights: {{"Type": "{weights}", "Count": 576}}, HasResidual: 1, TacticName: '
        "sm80, StreamId: 0, Metadata: [ONNX Layer: conv]\x1e[ONNX Layer: add]\n"
    )
    (layer,) = read_layers(_verbose("Layers:\n" + row))
    assert layer.inputs == inputs
    assert layer.precision == precision


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


NO_KERNEL = "Error Code 10: Internal Error (Could not find any implementation for node conv_op.)"
SKIPPED = "Skipping tactic 0 due to insuficient memory on requested size of 29147520 detected."


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Requested amount of GPU memory (1 bytes) could not be allocated. OutOfMemory", "memory"),
        ("Error Code 2: OutOfMemory (no further information)", "memory"),
        ("CUDA error 2 for 1024-byte allocation.", "memory"),
        ("[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
         "memory"),
        ("Error Code 1: Cuda Driver (CUDA_ERROR_OUT_OF_MEMORY)", "memory"),
        ("Requested amount of GPU memory (8589934592 bytes) could not be allocated. There may not "
         "be enough free memory for allocation to succeed.", "memory"),
        ("CUDA error 209 launching the kernel", None),
        ("Error Code 6: API Usage Error (CUDA initialization failure with error: 2. Please check",
         "memory"),
        ("createInferBuilder: Error Code 6: CUDA initialization failure with error: 35", None),
        ("createInferRuntime: Error Code 6: CUDA initialization failure with error 209", None),
        ("Tactic Selection: no tactics to implement the operation within workspace limit.",
         "workspace"),
        ("Could not find any implementation for node c due to insufficient workspace. See verbose",
         "workspace"),
        (NO_KERNEL, None),
    ],
)  # fmt: skip
def test_what_was_short_is_told_by_errors(text: str, short: str | None) -> None:
    assert shortage([LogLine("ERROR", text)]) == short
    assert shortage([LogLine("VERBOSE", text)]) is None
    # A warning but for the one of older versions that cannot start.
    assert shortage([LogLine("WARNING", text)]) == (short if "initialization" in text else None)


def test_a_warning_tells_only_where_no_kernel_was_left() -> None:
    """Kernels are left out for want of memory in many a build that fails for another reason."""
    warned = LogLine("WARNING", SKIPPED)
    assert shortage([warned, LogLine("ERROR", NO_KERNEL)]) == "memory"
    assert (
        shortage([warned, LogLine("ERROR", "node conv_op: kernel weights have wrong size")]) is None
    )


class _Trt:
    """What a logger needs of TensorRT's module."""

    class ILogger:
        pass


def test_verbose_chatter_never_displaces_the_table_or_an_error() -> None:
    with closing(listening(_Trt)) as heard:
        for i in range(1000):
            heard.logger.log("Severity.VERBOSE", f"Tactic {i} Time: 0.1")
        heard.logger.log("Severity.VERBOSE", TEN)
        heard.logger.log("Severity.ERROR", "the reason")
    assert [line.severity for line in heard.lines] == ["VERBOSE", "ERROR"]
    assert len(read_layers(heard.lines)) == 3
    assert first_error(heard.lines) == "the reason"


def test_a_listener_that_is_bounded_keeps_what_is_newest() -> None:
    with closing(listening(_Trt, most=2)) as heard:
        for text in ("first", "second", "third"):
            heard.logger.log("Severity.ERROR", text)
    assert [line.text for line in heard.lines] == ["second", "third"]


def test_there_is_one_logger_for_all_who_listen_and_each_hears_its_time() -> None:
    """TensorRT keeps the first it is given, for the rest of the process."""
    with closing(listening(_Trt)) as engine:
        engine.logger.log("Severity.WARNING", "before")
        with closing(listening(_Trt)) as build:
            assert build.logger is engine.logger
            build.logger.log("Severity.WARNING", "both")
        build.close()
        engine.logger.log("Severity.WARNING", "after")
    engine.logger.log("Severity.WARNING", "nobody")
    assert [line.text for line in engine.lines] == ["before", "both", "after"]
    assert [line.text for line in build.lines] == ["both"]


def test_that_there_is_another_logger_is_no_warning_of_a_build() -> None:
    with closing(listening(_Trt)) as heard:
        heard.logger.log(
            "Severity.WARNING",
            "WARNING The logger passed into createInferBuilder differs from one already registered "
            "for an existing builder, runtime, or refitter.",
        )
    assert heard.lines == []


def test_threads_may_log_while_others_begin_and_cease_to_listen() -> None:
    with closing(listening(_Trt)) as heard, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: listening(_Trt).close(), range(200)):
            heard.logger.log("Severity.INFO", "said")
            assert heard.lines[-1].text == "said"
    assert heard.logger.heard_by == ()


def test_the_first_telling_error_is_one_line() -> None:
    lines = [
        LogLine("WARNING", "beware"),
        LogLine("ERROR", "ModelImporter.cpp:140: While parsing node number 0"),
        LogLine("ERROR", "ModelImporter.cpp:151: ERROR: cannot\n import"),
    ]
    assert first_error(lines) == "ModelImporter.cpp:151: ERROR: cannot import"
    assert first_error([]) == "no reason given"
    assert first_error(lines[:1]) == "no reason given"
    start = LogLine("WARNING", "CUDA initialization failure with error: 35")
    assert first_error([lines[0], start]) == start.text
    assert first_error([start, *lines]) == "ModelImporter.cpp:151: ERROR: cannot import"


def test_a_real_build_names_every_node_and_its_precision() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    model = conv_graph()
    with closing(listening(trt)) as heard:
        builder = trt.Builder(heard.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        assert trt.OnnxParser(network, heard.logger).parse(model.SerializeToString())
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        assert builder.build_serialized_network(network, config) is not None
    layers = read_layers(heard.lines)
    assert node_precisions(layers, ["conv_op"]) == {"conv_op": "int8"}
    assert {n for layer in layers for n in layer.nodes} == _names(model)


def _names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node}
