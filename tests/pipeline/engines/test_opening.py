"""What ``open_engine`` hands to each runtime, and what it refuses before it asks one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline import build_engines
from pipeline.artifact import Artifact, Manifest, read_manifest, sha256_of
from pipeline.build import BuildResult
from pipeline.engines import opening, tensorrt
from pipeline.engines.cpu import cpu_features
from pipeline.engines.opening import find_engine, manifest_of, open_engine
from pipeline.errors import ArtifactError, EngineError, UsageError
from pipeline.private import CACHE_VARIABLE
from pipeline.stages import compare


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A file that passes for a TensorRT engine until TensorRT reads it."""
    path = tmp_path / "a.engine"
    path.write_bytes(b"plan")
    manifest = Manifest(
        kind="engine", main=path.name, files={path.name: sha256_of(path)}, key="k",
        facts={"backend": "tensorrt", "agreement": {}, "precision": "int8+fp16"},
    )  # fmt: skip
    manifest_of(path).write_bytes(manifest.to_json())
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How TensorRT engines were opened, instead of opening them."""
    found: list[dict[str, Any]] = []

    def note(_path: Path, _manifest: Manifest, **options: Any) -> None:
        found.append(options)

    for module in (tensorrt, build_engines, compare):
        monkeypatch.setattr(module, "open_tensorrt", note)
    return found


@pytest.mark.parametrize("cpus", [1, 64])
@pytest.mark.parametrize(("slots", "opened"), [(0, tensorrt.DEFAULT_SLOTS), (1, 2), (8, 8)])
def test_slots_of_a_gpu_do_not_come_from_its_cpus(
    plan: Path, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, cpus: int,
    slots: int, opened: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipeline.engines.setups.cpu_count", lambda: cpus)
    open_engine(plan, slots=slots, goal="throughput")
    assert [options["slots"] for options in asked] == [opened]


@pytest.mark.parametrize("option", ["threads", "streams"])
def test_what_is_for_a_cpu_is_refused_for_a_gpu(plan: Path, option: str) -> None:
    with pytest.raises(
        UsageError, match=rf"--{option} 4: 'a\.engine' .* runs on the GPU"
    ) as caught:
        open_engine(plan, **{option: 4})  # type: ignore[arg-type]  # by name
    assert caught.value.hint is not None
    assert f"leave --{option} out" in caught.value.hint


@pytest.mark.parametrize("allowed", [False, True])
def test_host_code_is_allowed_only_when_told(
    plan: Path, asked: list[dict[str, Any]], allowed: bool
) -> None:
    open_engine(plan, allow_host_code=allowed)
    assert [options["allow_host_code"] for options in asked] == [allowed]


@pytest.mark.parametrize("name", ["a.xml", "a.onnx"])
def test_allowing_host_code_where_there_can_be_none_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match=f"--allow-host-code: '{name}' is no TensorRT engine"):
        open_engine(tmp_path / name, allow_host_code=True)


def test_a_build_may_open_what_it_has_just_made(
    plan: Path, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a version-compatible engine is built, refused, and the build ends with an error."""
    artifact = Artifact(
        Manifest.from_json(manifest_of(plan).read_bytes()), manifest_of(plan)
    )  # fmt: skip
    build_engines.open_built(artifact)
    monkeypatch.setattr(compare, "OnnxRuntimeEngine", lambda _path: None)
    artifact.manifest.files["a.onnx"] = "0"
    floating = SimpleNamespace(path=Path("fp32.onnx"))
    names = [name for name, _engine in compare._members([floating, artifact])]  # type: ignore[list-item]  # only its path is asked for
    assert names == ["fp32", "tensorrt graph", "tensorrt engine"]
    assert [options["allow_host_code"] for options in asked] == [True, True]


def test_directory_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is a directory") as told:
        open_engine(tmp_path)
    assert told.value.hint is not None
    assert ".xml" in told.value.hint
    with pytest.raises(EngineError, match="does not exist"):
        open_engine(tmp_path / "none.xml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": None}, "its 'precision' is not what a build writes"),
        ({"precision": ["int8"]}, "its 'precision'"),
        ({"precision": "int8+fp16"}, "its 'precision'"),
        ({"tools": ["openvino"]}, "its 'tools'"),
        ({"device": "cpu"}, "its 'device'"),
    ],
)
def test_facts_of_another_kind_are_one_line(
    int8_build: BuildResult, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = _copied(int8_build, tmp_path, **change)
    with pytest.raises(ArtifactError, match=said):
        open_engine(path)
    with pytest.raises(EngineError, match="fits this machine"):
        find_engine(tmp_path)


@pytest.mark.usefixtures("asked")
def test_an_engine_that_was_never_compared_says_so_to_all_who_open_it(plan: Path) -> None:
    """The report and the benchmark as well as the runner."""
    manifest = read_manifest(manifest_of(plan))
    facts = {**manifest.facts, "agreement": None, "not_executed": "no NVIDIA driver"}
    manifest_of(plan).write_bytes(replace(manifest, facts=facts).to_json())
    said = r"'a\.engine' was never compared with its graph \(no NVIDIA driver\): build it again"
    with pytest.warns(RuntimeWarning, match=said):
        open_engine(plan)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "int4"}, "its 'precision' is not what a build writes"),
        ({"executed": ["gemm int8"]}, "its 'executed'"),
        ({"nodes": "all"}, "its 'nodes'"),
    ],
)
def test_facts_of_another_kind_are_one_line_of_a_tensorrt_engine_too(
    plan: Path, asked: list[dict[str, Any]], change: dict[str, Any], said: str
) -> None:
    manifest = read_manifest(manifest_of(plan))
    changed = replace(manifest, facts={**manifest.facts, **change})
    manifest_of(plan).write_bytes(changed.to_json())
    with pytest.raises(ArtifactError, match=said):
        open_engine(plan)
    assert asked == []


def test_a_manifests_key_names_no_folder(int8_build: BuildResult, tmp_path: Path) -> None:
    """OpenVINO writes its compiled blobs into a folder by that key."""
    path = _copied(int8_build, tmp_path)
    manifest = read_manifest(manifest_of(path))
    evil = replace(manifest, key=f"../../../../{tmp_path}/elsewhere")
    manifest_of(path).write_bytes(evil.to_json())
    before = {each.name for each in tmp_path.iterdir()}
    open_engine(path).close()
    assert {each.name for each in tmp_path.iterdir()} == before


def test_an_engine_verified_with_other_instructions_is_refused(
    int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(ArtifactError, match="ONEDNN_MAX_CPU_ISA=AVX2"):
        open_engine(int8_build.engine)


def test_the_refusal_names_what_differs_though_int8_is_not_about_it(
    int8_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cpu_features()
    monkeypatch.setattr(opening, "cpu_features", lambda: (*before, "sse9"))
    with pytest.raises(ArtifactError, match=r"this is .*sse9"):
        open_engine(int8_build.engine)


def _copied(build: BuildResult, folder: Path, **facts: Any) -> Path:
    for path in build.engine.parent.glob(f"{build.engine.stem}.*"):
        shutil.copy(path, folder)
    path = folder / build.engine.name
    manifest = read_manifest(manifest_of(path))
    manifest_of(path).write_bytes(replace(manifest, facts=manifest.facts | facts).to_json())
    return path


def test_neighbours_do_not_keep_an_engine_from_being_found(
    int8_build: BuildResult, tmp_path: Path
) -> None:
    path = _copied(int8_build, tmp_path)
    (tmp_path / "gone.xml").symlink_to(tmp_path / "nowhere.xml")
    (tmp_path / "odd.xml").write_bytes(b"<net/>")
    (tmp_path / "odd.xml.json").mkdir()
    half = tmp_path / "half.xml"
    shutil.copy(path, half)
    manifest = read_manifest(manifest_of(path))
    digest = next(iter(manifest.files.values()))
    files = {"half.xml": digest, "half.bin": digest}
    manifest_of(half).write_bytes(replace(manifest, main="half.xml", files=files).to_json())
    os.utime(half, (2e9, 2e9))
    assert find_engine(tmp_path) == path


def test_an_engine_opens_where_there_is_no_place_for_a_cache(
    int8_build: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    open_engine(int8_build.engine).close()


def _labels(engine: Path) -> npt.NDArray[np.intp]:
    with open_engine(engine) as opened:
        frame = np.random.default_rng(0).integers(0, 256, opened.inputs[0].shape, np.uint8)
        return np.asarray(opened.infer(frame).argmax(axis=1))


@pytest.mark.parametrize("harm", ["changed", "cut", "planted", "unsealed", "sealed otherwise"])
def test_a_compiled_model_that_changed_is_compiled_again(
    int8_build: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """OpenVINO runs what lies in its cache as it finds it; the engine's own files are whole."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    expected = _labels(int8_build.engine)
    (blob,) = tmp_path.rglob("*.blob")
    whole = blob.read_bytes()
    np.testing.assert_array_equal(_labels(int8_build.engine), expected)
    assert blob.read_bytes() == whole  # found again, not made again
    seal = blob.with_name("sha256.json")
    made = blob.stat().st_mtime_ns
    if harm == "unsealed":
        seal.unlink()
    elif harm == "sealed otherwise":
        seal.write_text('["of another version"]')
    elif harm == "planted":
        blob.rename(blob.with_name("1.blob"))
        blob = blob.with_name("1.blob")
    else:
        changed = bytearray(whole[: len(whole) // 2] if harm == "cut" else whole)
        third = len(changed) // 3
        changed[third : third + 200] = bytes(b ^ 0xFF for b in changed[third : third + 200])
        blob.write_bytes(changed)
    np.testing.assert_array_equal(_labels(int8_build.engine), expected)
    if harm == "planted":
        assert not blob.exists()
    else:
        assert blob.stat().st_mtime_ns != made


def test_a_cache_that_others_may_write_is_not_used(
    int8_build: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    open_engine(int8_build.engine).close()
    (blob,) = tmp_path.rglob("*.blob")
    blob.parent.chmod(0o777)
    blob.write_bytes(b"planted")
    open_engine(int8_build.engine).close()
    assert blob.read_bytes() == b"planted"


@pytest.mark.parametrize(
    "change", [{"facts": {"device": {"features": [1]}}}, {"key": "\ud800"}, {"key": "\x00/.."}]
)
def test_odd_values_of_a_manifest_are_no_crash(
    int8_build: BuildResult, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / int8_build.engine.name
    for each in int8_build.engine.parent.glob(f"{path.stem}*"):
        shutil.copy(each, tmp_path)
    manifest = json.loads(manifest_of(path).read_text())
    for key, value in change.items():
        manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
    manifest_of(path).write_text(json.dumps(manifest))
    for attempt in (lambda: open_engine(path).close(), lambda: find_engine(tmp_path)):
        with contextlib.suppress(ArtifactError, EngineError):
            attempt()
