"""The shipped presets and a paper one, built by TensorRT for RTX: no heavy layer falls back.

The networks have random weights and the graphs made-up ranges: which kernels are chosen depends on
neither.
"""

from __future__ import annotations

from functools import cache

import onnx
import pytest

from calibration.qdq_lint import heavy_nodes, lint
from calibration.quantize import FLOAT_PATTERNS, float_nodes
from calibration.spelling import shift_images
from models.locality import inject_locality
from models.segmenter import build_segmenter, find_preset
from pipeline.engines.trt_builder import BuilderOptions, Built, build_plan
from pipeline.engines.trt_log import fallbacks, node_precisions
from pipeline.engines.trt_modules import import_flavour
from pipeline.lowering.half import to_half
from pipeline.lowering.labels import append_labels
from pipeline.lowering.network import lower
from tests.qdq_graphs import with_made_up_ranges

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)

CAPABILITIES = ("8.6", "8.9", "12.0")


@cache
def _graph(preset: str, form: str = "split") -> onnx.ModelProto:
    found = find_preset(preset)
    if form == "full":
        model = build_segmenter(found, deploy=True, seed=0).eval()
    else:
        model = inject_locality(build_segmenter(found, seed=0).eval(), form).model
    return lower(model, batch=1, height=found.unit, width=found.unit, opset=17, metadata={})


def _quantized(preset: str, form: str = "split") -> onnx.ModelProto:
    graph = _graph(preset, form)
    return with_made_up_ranges(graph, float_nodes(graph, FLOAT_PATTERNS))


def _build(model: onnx.ModelProto, *capabilities: str) -> Built:
    return build_plan(
        import_flavour("tensorrt-rtx", why="this test"), "tensorrt-rtx",
        model.SerializeToString(), BuilderOptions(compute_capabilities=capabilities),
        gpu=None, cuda=None,
    )  # fmt: skip


def _assert_int8(model: onnx.ModelProto, *capabilities: str) -> None:
    by_design = float_nodes(model, FLOAT_PATTERNS)
    assert lint(model, "tensorrt", by_design) == []
    heavy = heavy_nodes(model)
    assert sum(heavy.values()) > len(heavy) / 2
    built = _build(model, *capabilities)
    assert fallbacks(node_precisions(built.layers, heavy), by_design) == []
    assert built.warnings == ()


def _assert_half(model: onnx.ModelProto, *capabilities: str) -> None:
    half = to_half(model)
    precisions = node_precisions(_build(half, *capabilities).layers, heavy_nodes(half))
    # The gates' first layers read a float32 mean of the whole map and lie in its kernel.
    rest = {n: p for n, p in precisions.items() if not n.endswith(".gp.fc1")}
    # Some layers that hold a whole feed-forward unit name no node at all.
    assert set(rest.values()) <= {"fp16", "unknown"}
    assert list(rest.values()).count("fp16") > 0.8 * len(rest)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_edge_s_runs_in_int8_on_each(capability: str) -> None:
    _assert_int8(_quantized("edge-s"), capability)


def test_edge_m_runs_in_int8() -> None:
    _assert_int8(_quantized("edge-m"), *CAPABILITIES)


@pytest.mark.parametrize("preset", ["edge-s", "edge-m"])
def test_edge_presets_run_in_fp16(preset: str) -> None:
    _assert_half(_graph(preset), *CAPABILITIES)


def test_the_fully_injected_form_runs_in_int8_too() -> None:
    _assert_int8(_quantized("edge-s", "full"), "8.6")


def test_with_labels_and_half_precision_around_it_int8_stays_int8() -> None:
    quantized = _quantized("edge-s")
    heavy = heavy_nodes(quantized)
    model = append_labels(to_half(quantized))
    precisions = node_precisions(_build(model, "8.9").layers, heavy)
    assert fallbacks(precisions, float_nodes(quantized, FLOAT_PATTERNS)) == []


def test_a_paper_preset_runs_in_int8_and_fp16() -> None:
    """T256, for the three capabilities in one engine: 86 M parameters at 256x256."""
    _assert_int8(_quantized("T256", "full"), *CAPABILITIES)
    _assert_half(_graph("T256", "full"), *CAPABILITIES)
    _graph.cache_clear()  # 350 MB


def test_the_image_is_quantized_without_loss() -> None:
    model = _quantized("edge-s")
    assert shift_images(model) == ["frames.nchw.dq_q_op"]
    _assert_int8(model, "8.6")
