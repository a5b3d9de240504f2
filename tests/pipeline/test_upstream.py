"""What we report to OpenVINO is still so, and our own graphs stay clear of it.

Each reproduction is run. Where one no longer reproduces, OpenVINO was mended: the test fails, and
the rule of ``qdq_lint`` and the detour in the lowering may go.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from calibration.qdq_lint import lint
from models.segmenter import PRESETS
from pipeline.build import BuildResult
from pipeline.engines.cpu import cpu_features, products_saturate

UPSTREAM = Path(__file__).parents[2] / "docs" / "upstream"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, UPSTREAM / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_amx(name: str) -> str:
    """What a script prints where AMX is left out: with it the concatenation is right."""
    amx = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"} if "amx_int8" in cpu_features() else {}
    done = subprocess.run(
        [sys.executable, str(UPSTREAM / f"{name}.py")], capture_output=True, text=True, check=True,
        env={**os.environ, **amx},
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def batched() -> ModuleType:
    if products_saturate(cpu_features()):
        pytest.skip("batched products are right on a CPU without VNNI, apart from their overflows")
    return script("batched_matmul_without_bias")


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The reproductions name no nodes; violations do."""
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def rules(model: onnx.ModelProto) -> list[str]:
    return [violation.rule for violation in lint(named(model), "openvino")]


def test_a_batched_product_without_bias_is_garbage_and_refused(batched: ModuleType) -> None:
    for tail in ("", "Relu", "Mul"):
        bad = batched.graph(tail, per_column=True)
        # Whatever the memory held before: huge, or zeros now and then. A sound one has 1e-5.
        assert not batched.difference(bad) < 0.1
        assert rules(bad) == ["batched-bias"]
        assert batched.difference(batched.graph(tail, per_column=False)) < 1e-5
    good = batched.graph("Add", per_column=True)
    assert batched.difference(good) < 1e-5
    assert rules(good) == []


@pytest.mark.parametrize("bias", ["zeros", "uniform", "scalar", "per column", "per batch"])
def test_a_bias_that_is_broadcast_or_even_is_garbage_and_refused(
    batched: ModuleType, bias: str
) -> None:
    bad = batched.graph("Add", bias=bias, rounded=True)
    assert not batched.difference(bad) < 0.01
    assert rules(bad) == ["batched-bias"]
    good = batched.graph("Add", rounded=True)
    assert batched.difference(good) < 1e-5
    assert rules(good) == []


def test_a_signed_concatenation_loses_its_scale_and_is_refused() -> None:
    printed = without_amx("signed_concat")
    (lost,) = re.findall(r"two int8 tensors, concatenated +(\S+)", printed)
    assert float(lost) > 0.1
    (counts,) = re.findall(r"scale 0.1 +(\d+) values, OpenVINO +(\d+)", printed)
    assert int(counts[0]) == 128
    assert int(counts[1]) < 20
    made = script("signed_concat")
    assert rules(made.graph(0.03)) == ["signed-concat"]
    for good in (made.graph(0.03, signed=False), made.graph(0.03, inputs=1)):
        assert made.difference(good) < 1e-5
        assert rules(good) == []


@pytest.mark.parametrize("kind", ["residual", "upsampled", "gated"])
def test_rounding_before_a_fused_sum_is_skipped_and_refused(kind: str) -> None:
    made = script("skipped_rounding")
    given = made.feeds(kind)
    bad, without = made.graph(kind), made.graph(kind, bracketed=False)
    got = made.engine(bad, given)
    assert made.different(got, made.exact(bad, given)) > 0.05
    assert made.different(got, made.exact(without, given)) < (
        0.01 if kind == "upsampled" else 0.001
    )
    assert set(rules(bad)) == {"rounded-sum"}
    if kind != "gated":
        assert rules(without) == []


def test_a_script_prints_its_table() -> None:
    done = subprocess.run(
        [sys.executable, str(UPSTREAM / "skipped_rounding.py")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("openvino ")
    assert "residual" in done.stdout


def test_our_graphs_stay_clear(int8_build: BuildResult) -> None:
    """The tiny network concatenates late, as the paper's sizes do; the edge presets fuse early and
    have a test of their own (``test_quantized_presets``)."""
    assert int8_build.quantized is not None
    model = onnx.load(int8_build.quantized.path)
    assert not PRESETS["tiny"].early_fusion
    assert sum(node.op_type == "Concat" for node in model.graph.node) == 1
    assert lint(model, "openvino", int8_build.quantized.facts["float_nodes"]) == []
