"""What of a CPU decides how int8 runs on it; that an engine for one without VNNI is its graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.streets import write_dataset
from pipeline.artifact import read_manifest
from pipeline.build_options import BuildOptions
from pipeline.engines import cpu
from pipeline.engines.cpu import overflow_warning, products_saturate
from pipeline.errors import UsageError
from pipeline.lineage import OPENVINO_GRAPH

ROOT = Path(__file__).parents[3]
LIMIT = "ONEDNN_MAX_CPU_ISA"


@pytest.mark.parametrize(
    ("features", "saturates"),
    [
        ((), False),
        (("asimd", "asimddp", "i8mm"), False),
        (("sse4_1",), True),  # an Atom
        (("avx2", "fma"), True),
        (("avx2", "avx512f", "avx512bw"), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("avx2", "avx512_vnni", "amx_int8"), False),
        (("avx2", "avx512_vnni", f"{LIMIT}=AVX2"), True),
        (("avx2", "avx512_vnni", f"{LIMIT}=avx512_core"), True),
        (("avx2", "avx512_vnni", "amx_int8", f"{LIMIT}=AVX512_CORE_VNNI"), False),
        (("avx2", "avx_vnni", f"{LIMIT}=AVX2_VNNI"), False),
        (("asimd", f"{LIMIT}=AVX2"), False),
    ],
)
def test_products_saturate_on_x86_without_vnni(features: tuple[str, ...], saturates: bool) -> None:
    assert products_saturate(features) is saturates


def options(monkeypatch: pytest.MonkeyPatch, saturates: bool, **given: object) -> BuildOptions:
    monkeypatch.setattr("pipeline.build_options.products_saturate", lambda _features: saturates)
    return BuildOptions(**given)  # type: ignore[arg-type]  # the caller's business


@pytest.mark.parametrize("saturates", [False, True])
def test_weights_have_seven_bits_where_eight_would_overflow(
    monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    for backend, expected in (("openvino", saturates), ("all", saturates), ("tensorrt", False)):
        got = options(monkeypatch, saturates, backend=backend)
        assert got.settings.overflow_fix is expected
    for bits in (7, 8):
        got = options(monkeypatch, saturates, weight_bits=bits)
        assert got.settings.overflow_fix is (bits == 7)


def test_weight_bits_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="--weight-bits 6"):
        BuildOptions(weight_bits=6)
    with pytest.raises(UsageError, match="--weight-bits means nothing to --precision fp32"):
        BuildOptions(precision="fp32", weight_bits=7)


def test_eight_bits_are_warned_of_where_they_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cpu_features", lambda: ("avx2",))
    assert "--weight-bits 7" in str(overflow_warning(8))
    assert overflow_warning(7) is None
    assert overflow_warning(None) is None  # fp32
    monkeypatch.setattr(cpu, "cpu_features", lambda: ("avx2", "avx_vnni"))
    assert overflow_warning(8) is None


# Each list of words given to the command in turn; its JSON lines are on stdout as always.
BUILDS = """
import json, sys
from scripts.build_engine import main
for words in json.loads(sys.argv[1]):
    print("----", file=sys.stderr, flush=True)
    assert main(words) == 0
"""


def build(folder: Path, *runs: tuple[str, ...]) -> list[tuple[float, str]]:
    """Engines by a process on a CPU without VNNI, which any x86 CPU can be told to be, one with
    each run's options: the share of labels it has in common with its graph, and what was told."""
    tree = write_dataset(folder / "tree", train=2, val=2, height=128, width=256)
    words = [
        "--preset", "edge-s", "--json", "--frames", "2", "--shape", "128x256", "--estimator",
        "minmax", "--dataset", str(tree), "--output", str(folder / "out"),
    ]  # fmt: skip
    environment = {**os.environ, LIMIT: "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", BUILDS, json.dumps([[*words, *more] for more in runs])], cwd=ROOT,
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stderr.split("----")[1:]
    found, decoder, rest = [], json.JSONDecoder(), done.stdout
    for text in told:
        printed, end = decoder.raw_decode(rest)
        rest = rest[end:].lstrip()
        found.append((float(printed["checks"]["engine_agreement"]), " ".join(text.split())))
    return found


@pytest.mark.skipif("avx2" not in cpu._flags(), reason="only x86 CPUs can lack VNNI")
def test_an_engine_for_a_cpu_without_vnni_is_its_graph(tmp_path: Path) -> None:
    (found, silent), (full, told) = build(
        tmp_path, (), ("--weight-bits", "8", "--min-agreement", "0")
    )
    assert found > 0.99
    assert "VNNI" not in silent
    (graph,) = (
        path.parent / OPENVINO_GRAPH
        for path in tmp_path.glob("out/.store/quantize-*/artifact.json")
        if read_manifest(path).facts["weight_bits"] == 7
    )
    weights = [
        numpy_helper.to_array(t)
        for t in onnx.load(graph).graph.initializer
        # Depthwise kernels are not summed in pairs, and nncf leaves them their eighth bit.
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1 and t.dims[1] > 1
    ]
    assert max(np.abs(w.astype(int)).max() for w in weights) <= 64
    assert max(np.abs(w.astype(int)).max() for w in weights) >= 63
    assert "sums of 8-bit products overflow" in told
    assert full < found
