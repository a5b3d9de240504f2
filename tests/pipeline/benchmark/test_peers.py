"""The peers: each runs the network it is said to run, and says so when it cannot."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.benchmark import app
from pipeline.benchmark.contenders import (
    INT8,
    ORT_FP32,
    ORT_INT8,
    Built,
    Entry,
    engine_entries,
    onnxruntime_entries,
)
from pipeline.benchmark.ort_graph import float_batched_weights
from pipeline.benchmark.rows import TORCH_DEPLOY, TORCH_TRAIN
from pipeline.benchmark.torch_forms import torch_entries
from pipeline.build import BuildResult
from pipeline.engines.base import FrameBatch
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import EngineError

FRAME: FrameBatch = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3), np.uint8)


def run(entry: Entry) -> list[float]:
    assert entry.contender is not None
    (samples,) = entry.contender.turn().values()
    return samples


def test_torch_runs_both_forms_of_one_network(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[torch.Tensor] = []
    plain = torch.nn.Module.__call__

    def spy(module: torch.nn.Module, *given: object) -> object:
        result = plain(module, *given)
        if type(module).__name__ == "BgrFrames":
            outputs.append(result)
        return result

    monkeypatch.setattr(torch.nn.Module, "__call__", spy)
    entries = torch_entries(tiny_checkpoint, "tiny", "split", FRAME, 0.0)
    for name in (TORCH_TRAIN, TORCH_DEPLOY):
        assert len(run(entries[name])) == 3
        assert (entries[name].facts.precision, entries[name].facts.threads) == (
            "fp32", torch.get_num_threads(),
        )  # fmt: skip
    train, deploy = outputs[0], outputs[-1]
    assert train.shape == (1, 19, 16, 32)
    assert train.dtype == torch.float32
    assert float((train - deploy).norm() / train.norm()) < 1e-4


def test_a_deploy_checkpoint_has_no_train_form(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from models.checkpoints import load_segmenter, save_segmenter
    from models.locality import inject_locality

    path = tmp_path / "deploy.safetensors"
    model = inject_locality(load_segmenter(tiny_checkpoint)[0], "split").model
    save_segmenter(model, "tiny", path)
    entries = torch_entries(path, "tiny", "split", FRAME, 0.0)
    assert entries[TORCH_TRAIN].contender is None
    assert "deploy form already" in (entries[TORCH_TRAIN].reason or "")
    assert run(entries[TORCH_DEPLOY])


def test_onnxruntime_runs_both_graphs(int8_build: BuildResult, tmp_path: Path) -> None:
    assert int8_build.quantized is not None
    graph, quantized = int8_build.graph.path, int8_build.quantized.path
    with ExitStack() as stack:
        built = Built(int8_build.engine, graph, int8_build.engine, quantized)
        entries = onnxruntime_entries(built, FRAME, tmp_path, stack, 0.0)
        for name, precision in ((ORT_FP32, "fp32"), (ORT_INT8, "int8")):
            assert entries[name].facts.precision == precision
            assert len(run(entries[name])) == 3
        none = Built(int8_build.engine, graph, reason="int8 was refused: too far apart")
        refused = onnxruntime_entries(none, FRAME, tmp_path, stack, 0.0)[ORT_INT8]
        assert (refused.contender, refused.reason) == (None, "int8 was refused: too far apart")


def test_batched_weights_in_float_mean_the_same(int8_build: BuildResult, tmp_path: Path) -> None:
    assert int8_build.quantized is not None
    path = int8_build.quantized.path
    changed, count = float_batched_weights(onnx.load(path))
    assert count
    onnx.save(changed, tmp_path / "changed.onnx")
    with OnnxRuntimeEngine(path) as before, OnnxRuntimeEngine(tmp_path / "changed.onnx") as after:
        np.testing.assert_array_equal(before.infer(FRAME), after.infer(FRAME))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_dequantized_by_the_formula(axis: int) -> None:
    rng = np.random.default_rng(axis)
    weights = rng.integers(-127, 128, (2, 3, 4), np.int8)
    scale: npt.NDArray[np.float32] = rng.random(weights.shape[axis:][:1], np.float32)
    zero = rng.integers(-3, 4, weights.shape[axis], np.int8)
    tensors = {"w": weights, "s": scale, "z": zero}
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=axis)
    graph = helper.make_graph(
        [node, helper.make_node("MatMul", ["a", "f"], ["b"])], "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, (2, 5, 3))],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, (2, 5, 4))],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    changed, count = float_batched_weights(helper.make_model(graph))
    assert count == 1
    assert [node.op_type for node in changed.graph.node] == ["MatMul"]
    constants = {t.name: numpy_helper.to_array(t) for t in changed.graph.initializer}
    shape = [1, 1, 1]
    shape[axis] = -1
    expected = (weights.astype(np.float64) - zero.reshape(shape)) * scale.reshape(shape)
    np.testing.assert_allclose(constants["f"], expected, rtol=1e-6)


def test_without_an_int8_engine_its_row_says_why(int8_build: BuildResult) -> None:
    built = Built(int8_build.engine, int8_build.graph.path, reason="int8 was refused")
    with ExitStack() as stack:
        entries = engine_entries(built, FRAME, stack, 0.0)
        assert (entries[INT8].contender, entries[INT8].reason) == (None, "int8 was refused")


def program(folder: Path, body: str) -> Path:
    """A stand-in for benchmark_app, with the report's folder as ``folder``."""
    path = folder / "benchmark_app"
    path.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "folder = sys.argv[sys.argv.index('-report_folder') + 1]\n" + body
    )
    path.chmod(0o755)
    return path


REPORT = """
results = {"latency (ms)": "8.00", "throughput": "250.00"}
if "sync" in sys.argv:
    assert "-nstreams" not in sys.argv and sys.argv[sys.argv.index("-hint") + 1] == "latency"
else:
    assert sys.argv[sys.argv.index("-nstreams") + 1] == "3"
json.dump({"execution_results": results}, open(folder + "/benchmark_report.json", "w"))
"""


def test_benchmark_app_is_asked_and_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = program(tmp_path, REPORT)
    monkeypatch.setattr(app, "find_app", lambda: fake)
    for name, expected in ((app.APP_LATENCY, 8.0), (app.APP_THROUGHPUT, 4.0)):
        entry = app.app_entry(name, tmp_path / "e.xml", "int8", 3, asked=True, seconds=1)
        assert run(entry) == [expected]
        assert app.app_entry(name, tmp_path / "e.xml", "int8", 3, asked=False, seconds=1).reason
    monkeypatch.setattr(app, "find_app", lambda: None)
    missing = app.app_entry(app.APP_LATENCY, tmp_path / "e.xml", "int8", 3, asked=True, seconds=1)
    assert "not installed" in (missing.reason or "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('[ ERROR ] no such model'); sys.exit(1)", "no such model"),
        ("sys.exit(1)", "does not say why"),
        ("", "cannot be understood"),
        ("open(folder + '/benchmark_report.json', 'w').write('{')", "cannot be understood"),
        (REPORT.replace("250.00", "0"), "cannot be understood"),
        (REPORT.replace("8.00", "nan"), "cannot be understood"),
        (REPORT.replace("execution_results", "results"), "cannot be understood"),
    ],
)
def test_benchmark_app_that_fails(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        app.measure(program(tmp_path, body), tmp_path / "e.xml", 1, None)
