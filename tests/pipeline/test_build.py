"""From checkpoint to verified engine, for real, on a small network."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.cityscapes import Cityscapes
from calibration.errors import CalibrationDataError
from calibration.frames import select_frames
from calibration.qdq_lint import lint
from models.errors import InputShapeError, ModelError
from pipeline import Precision
from pipeline.artifact import Manifest, read_manifest, sha256_of
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.engines import opening
from pipeline.engines.base import Engine
from pipeline.engines.cpu import cpu_features, cpu_model
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.opening import find_engine, manifest_of, open_engine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.errors import ArtifactError, CheckFailedError, CheckpointError, EngineError
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.stages.build_openvino import BuildOpenVINOConfig, BuildOpenVINOStage
from pipeline.store import Store


def frames(engine: Engine) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, engine.inputs[0].shape, np.uint8)


def test_the_engine_is_verified_and_says_so(int8_build: BuildResult) -> None:
    assert int8_build.checks["injection_error"] < 1e-12
    assert int8_build.checks["export_error"] < 1e-4
    assert 0.5 <= int8_build.checks["engine_agreement"] <= 1
    assert 0 < int8_build.checks["int8_agreement"] <= 1
    manifest = read_manifest(int8_build.manifest)
    assert manifest.kind == "engine"
    assert manifest.facts["precision"] == "int8"
    assert any(
        "Convolution u8" in kind or "Convolution i8" in kind for kind in manifest.facts["executed"]
    )
    provenance = manifest.provenance
    assert set(provenance) == {"checkpoint", "inject", "export", "quantize", "build-openvino"}
    calibration = provenance["quantize"]["calibration"]
    assert calibration["split"] == "train"
    assert len(calibration["frames"]) == 6
    json.dumps(int8_build.as_json())


def test_a_second_build_finds_everything(
    int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    again = build(int8_options)
    assert set(again.cached) == {"streets", "inject", "export", "quantize", "build-openvino"} - {
        "streets"
    }
    assert again.engine == int8_build.engine
    assert again.checks == int8_build.checks


def test_changed_frames_make_a_new_calibration(
    int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    again = build(replace(int8_options, frames=5))
    assert "export" in again.cached
    assert "quantize" not in again.cached
    assert build(int8_options).quantized is not None  # puts the shared engine back


def test_frames_asked_for_are_this_builds_though_the_graph_is_anothers(
    int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    assert int8_build.calibration == {"requested": 6, "taken": 6}
    more = build(replace(int8_options, frames=256))
    assert "quantize" in more.cached
    assert more.calibration == {"requested": 256, "taken": 6}


def test_both_spellings_keep_their_rules_and_mean_the_same(int8_build: BuildResult) -> None:
    assert int8_build.quantized is not None
    folder = int8_build.quantized.path.parent
    allowed = int8_build.quantized.facts["float_nodes"]
    models = {name: onnx.load(folder / name) for name in (OPENVINO_GRAPH, TENSORRT_GRAPH)}
    assert lint(models[OPENVINO_GRAPH], "openvino", allowed) == []
    assert lint(models[TENSORRT_GRAPH], "tensorrt", allowed) == []
    types = {
        t.data_type
        for t in models[TENSORRT_GRAPH].graph.initializer
        if t.name.endswith(("zero_point", "zp"))
    }
    assert onnx.TensorProto.UINT8 not in types


def test_quantizing_the_image_is_the_identity(int8_build: BuildResult) -> None:
    assert int8_build.quantized is not None
    graph = onnx.load(int8_build.quantized.path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    scale, zero = constants[first.input[1]], constants[first.input[2]]
    assert (float(scale), int(zero), zero.dtype) == (1.0, 0, np.uint8)


def test_no_exact_graph_is_left_open(
    int8_build: BuildResult, streets: Path, tmp_path: Path, left_open: list[str]
) -> None:
    """A network of a hundred megabytes is held as often as it is opened."""
    assert int8_build.quantized is not None
    frame = select_frames(Cityscapes(streets), 1)
    config = BuildOpenVINOConfig(precision="int8", min_agreement=0)
    stage = BuildOpenVINOStage(config, Store(tmp_path), frame)
    stage.run(int8_build.quantized, int8_build.graph)
    assert left_open == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_engines_run_in_the_precision_they_are_called_after(
    int8_options: BuildOptions, precision: Precision
) -> None:
    built = build(replace(int8_options, precision=precision))
    facts = read_manifest(built.manifest).facts
    if precision == "fp32":
        assert facts["runtime"]["float_kernels"] == "f32"
        assert {kind.split()[-1] for kind in facts["executed"]} <= {"f32", "i32", "u8"}
        with open_engine(built.engine) as engine, OnnxRuntimeEngine(built.graph.path) as graph:
            x = frames(engine)
            np.testing.assert_allclose(engine.infer(x), graph.infer(x), rtol=1e-3, atol=1e-3)
    assert built.checks["int8_agreement"] is None


def test_a_batch_is_frames_side_by_side(int8_options: BuildOptions) -> None:
    single = build(replace(int8_options, precision="fp32"))
    double = build(replace(int8_options, precision="fp32", batch=2))
    with open_engine(single.engine) as one, open_engine(double.engine) as two:
        x = frames(two)
        both = two.infer(x)
        for i in range(2):
            np.testing.assert_allclose(
                both[i : i + 1], one.infer(x[i : i + 1]), rtol=1e-3, atol=1e-3
            )


def test_an_engine_that_is_not_its_graph_is_refused_with_the_node(
    int8_options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defective runtime: half of the logits are lost on their way out."""
    real = OpenVINOEngine.infer

    def broken(self: OpenVINOEngine, x: np.ndarray) -> np.ndarray:
        out = real(self, x)
        out[..., ::2] = -out[..., ::2]
        return out

    monkeypatch.setattr(OpenVINOEngine, "infer", broken)
    with pytest.raises(
        CheckFailedError, match=r"not its graph.*part at node 'conv_embedding'"
    ) as caught:
        build(replace(int8_options, min_agreement=0.98))
    for option in ("--frames", "--estimator", "--injection", "a lower --min-agreement accepts"):
        assert option in str(caught.value.hint)
    monkeypatch.undo()
    build(int8_options)


def test_slots_are_asynchronous_and_guarded(int8_build: BuildResult) -> None:
    with open_engine(int8_build.engine) as engine:
        assert engine.slots >= 2
        x = frames(engine)
        want = engine.infer(x)
        for slot in range(engine.slots):
            engine.input(slot)[...] = x if slot == 0 else 255 - x
            engine.submit(slot)
        with pytest.raises(EngineError, match="in flight"):
            engine.submit(0)
        np.testing.assert_array_equal(engine.wait(0), want)
        assert not np.array_equal(engine.wait(1, timeout=30), want)
        with pytest.raises(EngineError, match="takes uint8"):
            engine.infer(x[:, :-1])
        engine.close()


def test_an_engine_that_was_altered_is_not_opened(int8_build: BuildResult, tmp_path: Path) -> None:
    for path in int8_build.engine.parent.glob(f"{int8_build.engine.stem}.*"):
        shutil.copy(path, tmp_path)
    engine = tmp_path / int8_build.engine.name
    weights = bytearray(engine.with_suffix(".bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    engine.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(ArtifactError, match="altered") as error:
        open_engine(engine)
    assert "build_engine.py" in str(error.value.hint)
    manifest_of(engine).unlink()
    with pytest.raises(ArtifactError, match="missing"):
        open_engine(engine)


def test_an_engine_for_another_machine_or_version_says_both_sides(
    int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(opening, "cpu_features", lambda: ("avx2",))
        patch.setattr(opening, "cpu_model", lambda: "Another CPU")
        with pytest.raises(ArtifactError, match="Another CPU") as error:
            open_engine(int8_build.engine)
        # Obeyed, it must not build the shipped weights under the same name.
        assert "--shape 64x128" in str(error.value.hint)
        assert f"--checkpoint {int8_build.options.checkpoint}" in str(error.value.hint)
        with pytest.raises(EngineError, match="fits this machine"):
            find_engine(int8_build.engine.parent)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda _name: "1.2.3")
        with pytest.raises(ArtifactError, match=r"verified with OpenVINO .*, here is 1\.2\.3"):
            open_engine(int8_build.engine)
    assert find_engine(int8_build.engine.parent).suffix == ".xml"


def test_no_engine_is_one_line_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine") as error:
        find_engine(tmp_path)
    assert "build_engine.py" in str(error.value.hint)
    with pytest.raises(EngineError, match="does not exist"):
        open_engine(tmp_path / "none.xml")
    (tmp_path / "thing.txt").write_text("x")
    with pytest.raises(EngineError, match="is not an engine"):
        open_engine(tmp_path / "thing.txt")


def test_a_half_written_output_folder_recovers(
    int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    int8_build.engine.with_suffix(".bin").write_bytes(b"half")
    again = build(int8_options)
    assert set(again.cached) == {"inject", "export", "quantize", "build-openvino"}
    with open_engine(again.engine) as engine:
        engine.infer(frames(engine))


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"shape": (65, 128)}, InputShapeError, "64x128"),
        ({"checkpoint": Path("none.safetensors")}, CheckpointError, "none.safetensors"),
        ({"preset": "edge-m"}, ModelError, "'tiny', not 'edge-m'"),
        ({"dataset": Path("nowhere")}, CalibrationDataError, "nowhere"),
        ({"split": "val"}, CalibrationDataError, "val"),
    ],
)
def test_bad_input_is_named(
    int8_options: BuildOptions, change: dict[str, object], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why) as caught:
        build(replace(int8_options, **change))  # type: ignore[arg-type]  # by name
    assert "\n" not in str(caught.value)


def test_val_can_be_forced_and_is_recorded(int8_options: BuildOptions) -> None:
    built = build(replace(int8_options, split="val", force_split=True, frames=3))
    assert built.quantized is not None
    calibration = built.quantized.facts["calibration"]
    assert (calibration["split"], calibration["forced"]) == ("val", True)
    build(int8_options)


def test_a_tensorrt_engine_is_found_only_where_it_could_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest is passed over where it cannot run; each of one name has its own manifest."""
    from pipeline.engines import tensorrt

    names = ("a.xml", "a.engine")
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(name.encode())
        facts = {
            "precision": "int8",
            "tools": {"openvino": metadata.version("openvino")},
            "device": {"cpu": cpu_model(), "features": list(cpu_features())},
        }
        manifest = Manifest(
            kind="engine", main=name, files={name: sha256_of(tmp_path / name)}, key="k", facts=facts
        )
        manifest_of(tmp_path / name).write_bytes(manifest.to_json())
        os.utime(tmp_path / name, (age, age))
    assert {p.name for p in tmp_path.glob("*.json")} == {"a.xml.json", "a.engine.json"}

    def absent(_manifest: Manifest, _name: str) -> None:
        raise EngineError("no NVIDIA driver on this machine")

    monkeypatch.setattr(tensorrt, "check_here", absent)
    assert find_engine(tmp_path) == tmp_path / "a.xml"
    (tmp_path / "a.xml").unlink()
    with pytest.raises(EngineError, match=r"the first choice: 'a\.engine': no NVIDIA driver"):
        find_engine(tmp_path)
    monkeypatch.setattr(tensorrt, "check_here", lambda _manifest, _name: None)
    assert find_engine(tmp_path) == tmp_path / "a.engine"
