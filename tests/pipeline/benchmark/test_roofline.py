"""Multiply-adds and bytes of the compiled graph against the graph it was given; roofs by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from pipeline.benchmark import roofline as roofs
from pipeline.benchmark.peak import matmul_graph, measure_bandwidth, measure_peak
from pipeline.benchmark.roofline import (
    Measured,
    as_markdown,
    multiply_adds,
    roofline,
    summarise,
)
from pipeline.build import BuildResult
from pipeline.engines.openvino import import_openvino
from pipeline.errors import EngineError
from tests.pipeline.benchmark.samples import PEAK


@pytest.mark.parametrize(
    ("kind", "taken", "given", "expected"),
    [
        # by brute force: outputs x taps that each one adds up
        ("Convolution", [(1, 3, 8, 8), (4, 3, 3, 3), (4,)], [(1, 4, 6, 6)], 4 * 36 * 3 * 9),
        ("Convolution", [(2, 8, 5, 5), (8, 1, 1, 3, 3)], [(2, 8, 5, 5)], 2 * 8 * 25 * 9),
        ("Convolution", [(1, 6, 4, 4), (2, 2, 3, 1, 1)], [(1, 4, 4, 4)], 4 * 16 * 3),
        ("FullyConnected", [(7, 5), (11, 5)], [(7, 11)], 7 * 11 * 5),
        ("MatMul", [(3, 7, 5), (3, 5, 2)], [(3, 7, 2)], 3 * 7 * 2 * 5),
        ("MatMul", [(3, 5, 7), (3, 5, 2)], [(3, 7, 2)], 3 * 7 * 2 * 5),  # left transposed
        ("Transpose", [(3, 5)], [(5, 3)], 0),
    ],
)
def test_multiply_adds(
    kind: str, taken: list[tuple[int, ...]], given: list[tuple[int, ...]], expected: int
) -> None:
    assert multiply_adds(kind, taken, given) == expected


def test_a_compiled_engine_has_the_multiply_adds_of_its_graph(int8_build: BuildResult) -> None:
    found = roofline(int8_build.engine, PEAK, runs=2)
    assert found.precision == "int8"
    # The engine multiplies by the zeros too that the pyramid's products are padded with.
    cost = int8_build.graph.facts["multiply_adds"]
    assert cost <= found.macs <= 1.02 * cost
    assert found.layers_ms == pytest.approx(sum(x.ms for x in found.layers), rel=0.01)
    assert sum(x.share for x in found.layers) == pytest.approx(1, abs=0.01)
    assert [x.ms for x in found.layers] == sorted((x.ms for x in found.layers), reverse=True)
    stem = next(x for x in found.layers if x.kind == "Convolution" and "embedding" in x.name)
    frame = 64 * 128 * 3
    assert stem.bytes > frame  # reads the frame, writes a map
    assert found.engine_ms > 0


def test_roofs_by_hand() -> None:
    # 200 G multiply-adds and 10 GB a second: 1e8 of them take 0.5 ms, 1e6 bytes 0.1 ms.
    layers = [
        Measured("heavy", "Convolution", "k", 1.0, 100_000_000, 1_000_000),
        Measured("wide", "Transpose", "k", 3.0, 0, 20_000_000),
    ]
    found = summarise("e.xml", "int8", PEAK, layers, 5.0)
    wide, heavy = found.layers
    assert (heavy.roof_ms, heavy.bound, heavy.gmacs, heavy.intensity) == (0.5, "compute", 100, 100)
    assert (wide.roof_ms, wide.bound, wide.gmacs, wide.share) == (2.0, "memory", 0, 0.75)
    assert (found.layers_ms, found.roof_ms) == (4.0, 2.5)
    assert (found.gmacs, found.share_of_peak) == (20.0, 0.1)
    text = as_markdown(found, most=1)
    assert "`wide`" in text
    assert "| 1 more |" in text
    assert "`heavy`" not in text
    assert "| Convolution | 1 | 1.00 | 25.0% |" in text


@pytest.mark.parametrize("int8", [False, True])
def test_the_matmul_of_the_peak_is_a_matmul(int8: bool) -> None:
    graph = matmul_graph(16, int8=int8)
    onnx.checker.check_model(graph)
    weights = onnx.numpy_helper.to_array(graph.graph.initializer[0]).astype(np.float64)
    given = np.random.default_rng(0).random((16, 16), np.float32)
    openvino = import_openvino()
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(graph.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected = given @ weights
    if int8:
        expected = np.clip(np.rint(given.astype(np.float64) * 255), 0, 255) / 255 @ (weights / 63)
    np.testing.assert_allclose(compiled({0: given})[0], expected, rtol=1e-3, atol=1e-3)


def test_a_peak_is_measured() -> None:
    found = measure_peak((64,), 0.0, copied=1 << 20)
    assert found.int8_size == found.f32_size == 64
    assert found.int8_gmacs > 0
    assert found.f32_gmacs > 0
    assert found.int8_kernel
    assert measure_bandwidth(1 << 20) > 0


def test_what_is_profiled_runs_in_int8(int8_build: BuildResult) -> None:
    kernels = [x.kernel for x in roofline(int8_build.engine, PEAK, runs=1).layers if x.macs]
    assert any(kernel.endswith("_I8") for kernel in kernels)


def test_a_tool_that_fails_without_a_word_is_an_error_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def compile_model(self, *_: object) -> None:
            raise RuntimeError

    monkeypatch.setattr(roofs, "import_openvino", lambda: SimpleNamespace(Core=Core))
    with pytest.raises(EngineError, match="cannot be compiled by OpenVINO: no reason given"):
        roofs.profile(tmp_path / "engine.xml")
