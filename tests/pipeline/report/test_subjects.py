"""Engines traced to where they came from: names, the exact graph, patches, identity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Manifest, sha256_of
from pipeline.engines.base import EngineInfo
from pipeline.report import subjects
from pipeline.report.subjects import Subject, exact_graph_of, machine, patch_of, told_apart
from tests.pipeline.report.doubles import PaintedEngine

HISTORY: dict[str, Any] = {"checkpoint": {"sha256": "c"}, "quantize": {"frames": "f"}}


def _subject(
    folder: Path,
    stem: str = "engine",
    *,
    info: tuple[str, str] = ("openvino", "int8"),
    facts: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    bare: bool = False,
) -> Subject:
    engine = PaintedEngine()
    engine.info = EngineInfo(info[0], "cpu", info[1], str(folder / stem), {"FC u8": 3}, {"n": 1})
    manifest = Manifest(
        kind="engine", main=f"{stem}.xml", files={f"{stem}.xml": "a", f"{stem}.bin": "b"}, key="k",
        facts=facts or {}, provenance=HISTORY if provenance is None else provenance,
    )  # fmt: skip
    files = {f"{stem}.onnx": "a"} if bare else manifest.files
    return Subject(stem, folder / f"{stem}.xml", engine, files, None if bare else manifest)


def _store(folder: Path, name: str, provenance: dict[str, Any], *, damaged: bool = False) -> Path:
    """A quantized graph as the build's store keeps it."""
    place = folder / ".store" / f"quantize-{name}"
    place.mkdir(parents=True)
    graph = place / "model.onnx"
    graph.write_bytes(name.encode())
    manifest = Manifest(
        kind="qdq-onnx", main=graph.name, files={graph.name: sha256_of(graph)}, key=name,
        provenance=provenance,
    )  # fmt: skip
    (place / "artifact.json").write_bytes(manifest.to_json())
    if damaged:
        graph.write_bytes(b"other")
    return graph


def test_the_exact_graph_is_the_one_of_the_same_history(tmp_path: Path) -> None:
    other = {**HISTORY, "quantize": {"frames": "others"}}
    _store(tmp_path, "1", other)
    graph = _store(tmp_path, "2", HISTORY)
    (tmp_path / ".store" / "quantize-0").mkdir()
    (tmp_path / ".store" / "quantize-0" / "artifact.json").write_text("half a manif")
    history = {**HISTORY, "build-openvino": {"x": 1}}
    found = _subject(tmp_path, facts={"stage": "build-openvino"}, provenance=history)
    assert exact_graph_of(found) == graph


@pytest.mark.parametrize("damaged", [True, False])
def test_a_graph_that_was_altered_or_is_gone_is_not_used(tmp_path: Path, damaged: bool) -> None:
    if damaged:
        _store(tmp_path, "1", HISTORY, damaged=True)
    assert exact_graph_of(_subject(tmp_path)) is None


def test_a_float_engine_has_no_exact_graph(tmp_path: Path) -> None:
    _store(tmp_path, "1", {})
    assert exact_graph_of(_subject(tmp_path, provenance={"checkpoint": {}})) is None
    assert exact_graph_of(_subject(tmp_path, bare=True)) is None


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({"info": ("openvino", "fp32")}, {}, ("fp32", "int8")),
        ({"info": ("tensorrt", "int8")}, {}, ("int8 tensorrt", "int8 openvino")),
        ({"stem": "old"}, {"stem": "new"}, ("old", "new")),
        ({}, {}, ("engine (reference)", "engine")),
        ({"stem": "graph", "bare": True}, {}, ("graph", "int8")),
    ],
)
def test_names_tell_the_two_apart(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any], expected: tuple[str, str]
) -> None:
    pair = told_apart(_subject(tmp_path, **one), _subject(tmp_path, **two))
    assert tuple(subject.name for subject in pair) == expected


def test_patches_come_from_the_manifest_or_the_preset(tmp_path: Path) -> None:
    assert patch_of(_subject(tmp_path, facts={"patch": 96, "preset": "edge-s"})) == (96, 96)
    assert patch_of(_subject(tmp_path, facts={"preset": "D256"})) == (256, 256)
    assert patch_of(_subject(tmp_path, facts={"preset": "unheard-of"})) is None
    assert patch_of(_subject(tmp_path, facts={"patch": "wide"})) is None
    assert patch_of(_subject(tmp_path, bare=True)) is None


def test_identity_is_of_contents_not_of_places(tmp_path: Path) -> None:
    first, moved = _subject(tmp_path), _subject(tmp_path / "elsewhere", "renamed")
    assert first.identity() == moved.identity()
    assert first.identity() != _subject(tmp_path, info=("openvino", "fp32")).identity()
    json.dumps([first.identity(), first.provenance(), machine()], allow_nan=False)


@pytest.mark.parametrize("name", ["opencv-python-headless", "tensorrt_rtx"])
def test_the_machine_is_told_by_whatever_makes_labels_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "tool_versions", lambda names: dict.fromkeys(names, "1"))
    assert machine()[name] == "1"


def test_layers_that_fell_back_are_those_of_the_manifest(tmp_path: Path) -> None:
    facts = {
        "backend": "tensorrt", "precision": "int8", "float_fallback": ["b"],
        "float_by_design": ["c"], "nodes": {"a": "int8", "b": "fp16", "c": "fp32"},
    }  # fmt: skip
    found = _subject(tmp_path, facts=facts).float_layers()
    assert found is not None
    assert found.model_dump() == {
        "fallback": [{"name": "b", "precision": "fp16"}], "by_design": ["c"],
    }  # fmt: skip
    for unknown in ({"backend": "openvino"}, {"precision": "fp32"}):
        assert _subject(tmp_path, facts=facts | unknown).float_layers() is None
    assert _subject(tmp_path, bare=True).float_layers() is None


def test_a_tensorrt_engine_has_its_exact_graph_beside_it(tmp_path: Path) -> None:
    """Not OpenVINO's, though that lies in the store under the same history."""
    _store(tmp_path, "1", HISTORY)
    own = tmp_path / "engine.onnx"
    own.write_bytes(b"int8 spelling")
    subject = _subject(tmp_path, info=("tensorrt", "int8"), facts={"backend": "tensorrt"})
    assert subject.manifest is not None
    files = {"engine.xml": "a", "engine.onnx": sha256_of(own)}
    whole = replace(subject, manifest=replace(subject.manifest, files=files), files=files)
    assert exact_graph_of(whole) == own
    own.write_bytes(b"altered")
    assert exact_graph_of(whole) is None
    assert exact_graph_of(subject) is None
