"""OpenVINO's compiled models are kept as long as there is room: what goes first, and what never."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from pipeline.engines import compiled_cache
from pipeline.engines.compiled_cache import open_cache, seal_cache
from pipeline.private import CACHE_VARIABLE

DAY = 24 * 3600.0


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(compiled_cache, "MAX_KEPT", 300)
    return tmp_path / "openvino"


def open_with(content: str, *models: str) -> Path:
    """As an engine is opened: what is not there yet is compiled, 100 bytes each."""
    folder = open_cache(content)
    assert folder is not None
    for model in models:
        blob = folder / f"{model}.blob"
        if not blob.exists():
            blob.write_bytes(bytes(100))
    seal_cache(folder)
    return folder


def age(folder: Path, days: float) -> None:
    """Have it last opened, and its models compiled, so long ago."""
    then = time.time() - days * DAY
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def test_models_of_the_engine_opened_longest_ago_make_room(root: Path) -> None:
    old, older, oldest = (open_with(name, "1") for name in ("old", "older", "oldest"))
    for folder, days in ((old, 1), (older, 2), (oldest, 3)):
        age(folder, days)
    mine = open_with("mine", "1")
    assert sorted(root.iterdir()) == sorted([mine, old, older])
    open_with("mine", "1", "2")
    assert sorted(root.iterdir()) == sorted([mine, old])
    assert {path.name for path in mine.iterdir()} == {"1.blob", "2.blob", "sha256.json"}


def test_an_engine_that_is_opened_again_stays(root: Path) -> None:
    used, unused = open_with("used", "1"), open_with("unused", "1")
    age(unused, 1)
    age(used, 2)
    open_with("used", "1")
    open_with("mine", "1", "2")
    assert used.exists()
    assert not unused.exists()


def test_the_folder_of_which_one_model_was_removed_is_not_younger_for_it(root: Path) -> None:
    two, one = open_with("two", "1", "2"), open_with("one", "1")
    age(two, 2)
    age(one, 1)
    mine = open_with("mine", "1")
    assert len(list(two.glob("*.blob"))) == 1
    open_with("mine", "1", "2")
    assert sorted(root.iterdir()) == sorted([mine, one])


def test_of_one_engine_the_models_compiled_last_stay_and_are_whole(root: Path) -> None:
    """Opened with ever other threads and streams; the new one stays, whatever its size."""
    mine = open_with("mine", "1")
    age(mine, 1)
    open_with("mine", "2", "3", "4", "5")
    assert {path.name for path in mine.glob("*.blob")} == {f"{n}.blob" for n in (2, 3, 4, 5)}
    open_with("mine")
    assert open_cache("mine") == mine
    sealed = json.loads((mine / "sha256.json").read_bytes())
    assert set(sealed) == {path.name for path in mine.glob("*.blob")}
    assert len(sealed) == 3


def test_a_model_larger_than_the_room_is_not_compiled_at_every_opening(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_cache, "MAX_KEPT", 50)
    mine = open_with("mine", "1")
    made = (mine / "1.blob").stat().st_mtime_ns
    for _again in range(3):
        open_with("mine", "1")
        assert (mine / "1.blob").stat().st_mtime_ns == made


def test_what_is_no_model_of_ours_stays(root: Path) -> None:
    mine = open_with("mine", "1")
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.blob").write_bytes(bytes(1000))
    (root / "link").symlink_to(elsewhere)
    other = open_with("other", "1")
    (other / "notes.txt").write_text("mine")
    age(other, 1)
    open_with("mine", "1", "2", "3")
    assert (elsewhere / "1.blob").exists()
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    assert mine.exists()
