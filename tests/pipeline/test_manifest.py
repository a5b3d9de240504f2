"""Manifests: what is written comes back; what is no manifest is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifact import read_manifest
from pipeline.errors import ArtifactError
from pipeline.manifest import Manifest, TensorSpec

ROOT = Path(__file__).parents[2]
MINIMAL = {"kind": "engine", "main": "e.xml", "files": {"e.xml": "0"}, "key": "k"}

text = st.text(max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
tensors = st.builds(
    TensorSpec, name=text, dtype=text, layout=text,
    shape=st.lists(st.integers(0, 9999), max_size=5).map(tuple),
)  # fmt: skip
manifests = st.builds(
    Manifest, kind=text, main=text, key=text, version=st.integers(0, 9),
    files=st.dictionaries(text, text, max_size=3),
    inputs=st.lists(tensors, max_size=2).map(tuple),
    outputs=st.lists(tensors, max_size=2).map(tuple),
    facts=st.dictionaries(text, plain, max_size=3),
    provenance=st.dictionaries(text, plain, max_size=3),
)  # fmt: skip


@given(manifests)
def test_what_is_written_comes_back(manifest: Manifest) -> None:
    data = manifest.to_json()
    assert Manifest.from_json(data) == manifest
    assert json.loads(data)["files"] == manifest.files


def test_tuples_become_lists_and_what_is_no_number_null() -> None:
    facts: dict[str, Any] = {"shape": (1, 2), "error": float("nan"), "worst": [float("inf")]}
    manifest = Manifest(kind="k", main="m", files={}, key="k", facts=facts)
    assert Manifest.from_json(manifest.to_json()).facts == {
        "shape": [1, 2], "error": None, "worst": [None],
    }  # fmt: skip


def test_facts_that_are_not_json_are_a_bug() -> None:
    with pytest.raises(TypeError):
        Manifest(kind="k", main="m", files={}, key="k", facts={"path": Path()}).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": 1}, "kind: not text"),
        ({"main": None}, "main: not text"),
        ({"key": ["k"]}, "key: not text"),
        ({"files": ["e.xml"]}, "files: not an object"),
        ({"files": {"e.xml": 1}}, "files.e.xml: not text"),
        ({"facts": []}, "facts: not an object"),
        ({"provenance": "x"}, "provenance: not an object"),
        ({"version": "1"}, "version: not a whole number"),
        ({"version": True}, "version: not a whole number"),
        ({"surprise": 1}, "surprise: not known"),
        ({"inputs": {}}, "inputs: not a list"),
        ({"inputs": [1]}, "inputs.0: the whole: not an object"),
        ({"outputs": [{"name": "a"}]}, "outputs.0: dtype: missing"),
        (
            {"inputs": [{"name": "a", "dtype": "b", "layout": "c", "shape": [1, "2"]}]},
            "inputs.0: shape: not a list of whole numbers",
        ),
        (
            {"inputs": [{"name": "a", "dtype": "b", "layout": "c", "shape": [True]}]},
            "inputs.0: shape: not a list of whole numbers",
        ),
    ],
)
def test_the_field_at_fault_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps(MINIMAL | change))
    with pytest.raises(ArtifactError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"manifest '{path}' is not valid: {message}"


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_a_field_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(ArtifactError, match=f"^{name}: missing$"):
        Manifest.from_json(json.dumps({k: v for k, v in MINIMAL.items() if k != name}).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"\xff\xfe", b"{", b"[" * 100_000, b'{"key": NaN}', b'"text"']
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        Manifest.from_json(data)


def test_reading_an_engines_manifest_needs_no_pydantic() -> None:
    """It is on the runner's way to the first frame, and takes longer than all else there."""
    code = (
        "import sys, runpy; runpy.run_path('scripts/run_video.py', run_name='imported'); "
        "print(sorted({'pydantic', 'torch', 'onnx', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_path_that_is_not_utf8_is_written_and_read_again() -> None:
    """Linux has such names; Python spells them with lone surrogates."""
    name = os.fsdecode(b"data\xff")
    manifest = Manifest(kind="k", main="m", files={}, key="k", facts={"checkpoint": name})
    assert Manifest.from_json(manifest.to_json()).facts == {"checkpoint": name}
