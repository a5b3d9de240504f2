"""What is learnt of a published engine goes into its manifest, and stays there."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.artifact import Artifact, Manifest, open_artifact, sha256_of
from pipeline.engines.opening import manifest_of
from pipeline.publish import made_otherwise, publish

GATE: dict[str, Any] = {"passed": True, "drop": 0.25}
TUNING: dict[str, Any] = {"version": 1, "latency": {"chosen": {"streams": 1}}}


def engine(store: Path, weights: bytes = b"weights") -> Artifact:
    """An engine as a stage leaves it in the store."""
    folder = store / weights.hex()
    folder.mkdir(parents=True)
    (folder / "engine.xml").write_bytes(b"<net/>")
    (folder / "engine.bin").write_bytes(weights)
    files = {name: sha256_of(folder / name) for name in ("engine.xml", "engine.bin")}
    manifest = Manifest(
        kind="engine",
        main="engine.xml",
        files=files,
        key=weights.hex(),
        facts={"precision": "int8"},
    )
    (folder / "artifact.json").write_bytes(manifest.to_json())
    return Artifact(manifest, folder / "artifact.json")


def facts(path: Path) -> dict[str, Any]:
    """Of a published engine, every hash verified."""
    return open_artifact(manifest_of(path)).facts


def test_verdict_and_tuning_are_added_one_by_one_and_neither_removes_the_other(
    tmp_path: Path,
) -> None:
    built = engine(tmp_path / "store")
    in_store = built.manifest_path.read_bytes()
    path = publish(built, tmp_path, "street", GATE)
    assert facts(path) == {"precision": "int8", "gate": GATE}
    copied = path.stat().st_mtime_ns
    publish(built, tmp_path, "street", tuning=TUNING)
    assert facts(path) == {"precision": "int8", "gate": GATE, "tuning": TUNING}
    publish(built, tmp_path, "street", {**GATE, "drop": 0.5})
    assert facts(path) == {"precision": "int8", "gate": {**GATE, "drop": 0.5}, "tuning": TUNING}
    assert path.stat().st_mtime_ns == copied, "the newest engine must stay the newest built"
    assert built.manifest_path.read_bytes() == in_store


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    built = engine(tmp_path / "store")
    path = publish(built, tmp_path, "street", GATE, TUNING)
    publish(built, tmp_path, "street", rebuild="make it")
    assert facts(path)["rebuild"] == "make it"
    before = manifest_of(path).stat()
    for again in ({}, {"gate": GATE}, {"tuning": TUNING}, {"rebuild": "make it"}):
        publish(built, tmp_path, "street", **again)
    after = manifest_of(path).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("spoilt", [True, False], ids=["altered file", "another engine"])
def test_what_was_learnt_of_another_engine_is_forgotten(tmp_path: Path, spoilt: bool) -> None:
    built = engine(tmp_path / "store")
    path = publish(built, tmp_path, "street", GATE, TUNING)
    if spoilt:
        path.with_suffix(".bin").write_bytes(b"half")
    else:
        built = engine(tmp_path / "store", b"other weights")
    assert publish(built, tmp_path, "street") == path
    assert facts(path) == {"precision": "int8"}


def test_another_commands_engine_is_left_where_it_is(tmp_path: Path) -> None:
    first, second = engine(tmp_path / "store", b"mine"), engine(tmp_path / "store", b"theirs")
    path = publish(first, tmp_path, "street", rebuild="build --checkpoint mine")
    assert made_otherwise(first, tmp_path, "street", "build") is None  # the very same engine
    assert made_otherwise(second, tmp_path, "street", "build --checkpoint mine") is None  # updated
    assert made_otherwise(second, tmp_path, "none", "build") is None
    assert made_otherwise(second, tmp_path, "street", "build") == "build --checkpoint mine"
    beside = publish(second, tmp_path, "street", rebuild="build", replace_other=False)
    assert beside.name == f"street-{b'theirs'.hex()[:8]}.xml"
    assert path.with_suffix(".bin").read_bytes() == b"mine"
    assert beside.with_suffix(".bin").read_bytes() == b"theirs"
    assert publish(second, tmp_path, "street", rebuild="build", replace_other=False) == beside
    assert publish(second, tmp_path, "street", rebuild="build") == path
    assert path.with_suffix(".bin").read_bytes() == b"theirs"
    assert facts(path)["rebuild"] == "build"


def test_where_there_is_no_room_for_the_new_one_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(engine(tmp_path / "store"), tmp_path, "street")
    other = engine(tmp_path / "store", b"other weights")
    written = 0

    def full(source: IO[bytes], target: IO[bytes]) -> None:
        nonlocal written
        if written:
            target.write(source.read()[:4])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += target.write(source.read())

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        publish(other, tmp_path, "street")
    assert written
    assert facts(path) == {"precision": "int8"}
    assert path.with_suffix(".bin").read_bytes() == b"weights"
    assert left(tmp_path) == {"street.xml", "street.bin", "street.xml.json"}


def test_what_a_killed_build_left_is_cleared(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".publishing-street.bin.old", tmp_path / ".publishing-street.bin.new"
    old.touch()
    fresh.touch()  # of a build that is at it now
    os.utime(old, (1e9, 1e9))
    publish(engine(tmp_path / "store"), tmp_path, "street")
    assert left(tmp_path) == {"street.xml", "street.bin", "street.xml.json", fresh.name}


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}
