"""Artifacts, the store and stages: whole or not there, and never stale."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifact import (
    Artifact,
    Manifest,
    canonical_json,
    hash_of,
    open_artifact,
    read_manifest,
    sha256_of,
    write_whole,
)
from pipeline.errors import ArtifactError, CheckFailedError
from pipeline.stage import Product, Stage, StageConfig, StageEvent, tool_versions
from pipeline.store import Store
from tests.helpers import full_disk

ROOT = Path(__file__).parents[2]


class UpperConfig(StageConfig):
    suffix: str = "!"


class Upper(Stage):
    """Writes its input's text in capitals; counts how often it worked."""

    name = "upper"
    version = 1
    produces = "text"
    tools: ClassVar[tuple[str, ...]] = ("numpy",)
    config: UpperConfig
    worked = 0
    place = "here"

    def device(self) -> dict[str, str]:
        return {"place": self.place}

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        type(self).worked += 1
        text = inputs[0].path.read_text()
        if "bad" in text:
            (folder / "half.txt").write_text("half")
            raise CheckFailedError("the text is bad")
        (folder / "out.txt").write_text(text.upper() + self.config.suffix)
        return Product("out.txt", facts={"length": len(text)})


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Upper.worked = 0


def text_artifact(folder: Path, text: str) -> Artifact:
    path = folder / "in.txt"
    path.write_text(text)
    manifest = Manifest(
        kind="text", main="in.txt", files={"in.txt": sha256_of(path)}, key=hash_of(text),
        provenance={"typed": {"by": "hand"}},
    )  # fmt: skip
    return Artifact(manifest, folder / "in.json")


def test_a_second_run_finds_the_first_and_says_so(tmp_path: Path) -> None:
    store, events = Store(tmp_path / "store"), list[StageEvent]()
    source = text_artifact(tmp_path, "hello")
    first = Upper(UpperConfig(), store, events.append).run(source)
    second = Upper(UpperConfig(), store, events.append).run(source)
    assert first.path.read_text() == "HELLO!"
    assert second.path == first.path
    assert Upper.worked == 1
    assert [e.cached for e in events if e.seconds is not None] == [False, True]
    assert second.manifest.provenance["typed"] == {"by": "hand"}
    assert second.manifest.provenance["upper"]["length"] == 5


@pytest.mark.parametrize("change", ["input", "config", "version", "device", "tools"])
def test_whatever_matters_makes_it_new(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    Upper(UpperConfig(), store).run(text_artifact(tmp_path, "hello"))
    source = text_artifact(tmp_path, "other" if change == "input" else "hello")
    if change == "version":
        monkeypatch.setattr(Upper, "version", 2)
    if change == "tools":
        monkeypatch.setattr("pipeline.stage.metadata.version", lambda _name: "0.0.1")
    if change == "device":
        monkeypatch.setattr(Upper, "place", "elsewhere")
    Upper(UpperConfig(suffix="?" if change == "config" else "!"), store).run(source)
    assert Upper.worked == 2


@pytest.mark.parametrize("damage", ["altered", "missing", "no manifest", "garbage manifest"])
def test_a_damaged_artifact_is_rebuilt_never_used(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path / "store")
    source = text_artifact(tmp_path, "hello")
    made = Upper(UpperConfig(), store).run(source)
    if damage == "altered":
        made.path.write_text("HELLO?")
    elif damage == "missing":
        made.path.unlink()
    elif damage == "no manifest":
        made.manifest_path.unlink()
    else:
        made.manifest_path.write_text("{}")
    again = Upper(UpperConfig(), store).run(source)
    assert again.path.read_text() == "HELLO!"
    assert Upper.worked == 2


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(CheckFailedError, match="bad"):
        Upper(UpperConfig(), store).run(text_artifact(tmp_path, "bad"))
    assert list((tmp_path / "store").iterdir()) == []


def test_what_a_killed_build_left_is_swept_but_not_a_running_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    old, young = store.root / ".build-old", store.root / ".build-young"
    old.mkdir()
    young.mkdir()
    past = time.time() - 3 * 24 * 3600
    os.utime(old, (past, past))
    Upper(UpperConfig(), store).run(text_artifact(tmp_path, "hello"))
    assert not old.exists()
    assert young.exists()


def test_a_build_of_more_than_a_day_keeps_its_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    past = time.time() - 3 * 24 * 3600
    with store.building() as folder:
        os.utime(folder, (past, past))
        with Store(store.root).building():
            assert folder.is_dir()
    assert list(store.root.iterdir()) == []


def test_of_two_equal_builds_the_first_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    source = text_artifact(tmp_path, "hello")
    made = Upper(UpperConfig(), store).run(source)
    with store.building() as folder:
        (folder / "out.txt").write_text("HELLO!")
        again = store.publish(folder, "upper", made.manifest)
    assert again.manifest_path == made.manifest_path
    assert sorted(p.name for p in store.root.iterdir()) == [made.manifest_path.parent.name]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"kind":"x"}', "main"),
        ("not json", "whole"),
        ('{"version":9,"kind":"x","main":"a","files":{"a":"0"},"key":"k"}', "version 9"),
        ('{"kind":"x","main":"../a","files":{"../a":"0"},"key":"k"}', "outside"),
        ('{"kind":"x","main":"a","files":{"b":"0"},"key":"k"}', "no hash"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=why) as error:
        read_manifest(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        open_artifact(tmp_path / "none.json")


def test_write_whole_keeps_what_was_there_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    monkeypatch.setattr("pipeline.artifact.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("module", ["pipeline.artifact", "models.files"])
def test_a_whole_file_is_for_whom_the_umask_lets_read_it(tmp_path: Path, module: str) -> None:
    code = (
        "import os, sys, pathlib; os.umask(0o027); "
        f"from {module} import write_whole; write_whole(pathlib.Path(sys.argv[1]), b'')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], cwd=ROOT, check=True)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_equal_values_have_one_spelling(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)
    assert hash_of(value) == hash_of(backwards)


def test_versions_of_what_is_not_installed_are_none() -> None:
    assert tool_versions(("no-such-distribution",)) == {"no-such-distribution": None}


def test_an_input_that_changes_while_it_is_read_is_no_artifact(tmp_path: Path) -> None:
    class Slow(Upper):
        def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
            made = super().build(inputs, folder)
            inputs[0].path.write_text("replaced")  # as training replaces its best weights
            return made

    store = Store(tmp_path / "store")
    with pytest.raises(ArtifactError, match=r"changed while stage upper read it: '.*in\.txt'"):
        Slow(UpperConfig(), store).run(text_artifact(tmp_path, "hello"))
    assert not list(store.root.iterdir())


def test_a_whole_artifact_that_came_meanwhile_is_not_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    made = Upper(UpperConfig(), store).run(text_artifact(tmp_path, "hello"))
    key, good = made.manifest.key, made.path.read_bytes()
    made.path.write_bytes(b"damaged")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == made.path.parent:  # now another process mends it
            made.path.write_bytes(good)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    found = store.find("upper", key)
    assert found is not None
    assert found.path.read_bytes() == good
    assert [path.name for path in store.root.iterdir()] == [made.path.parent.name]
