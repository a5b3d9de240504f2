"""Handing engines out of the store, and taking them back.

An engine lies in the output folder as ``NAME.xml`` and ``NAME.bin``, or ``NAME.engine`` and
``NAME.onnx``, each with its manifest, ``NAME.xml.json`` or ``NAME.engine.json``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.artifact import (
    FILE_MODE,
    Artifact,
    Manifest,
    open_artifact,
    read_manifest,
    sha256_of,
    write_whole,
)
from pipeline.engines.opening import manifest_of
from pipeline.errors import ArtifactError, SinkError

COMPARISON = "comparison"
_UNFINISHED = ".publishing-"
_ABANDONED_SECONDS = 3600
_LEARNT = ("gate", "tuning", "rebuild", "checkpoint", "made_for")


def prepare(output: Path) -> None:
    """Make the output folder. Raises ``SinkError`` where nothing can be written into it.

    Asked before anything is computed, not after minutes of calibration.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise SinkError(
            f"folder '{output}' cannot be written to: {error.strerror}",
            hint="name a folder that is yours to write",
        ) from error


def write_output(path: Path, data: bytes) -> None:
    """Write a file that was asked for: whole, or not at all. Raises ``SinkError`` naming it."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise SinkError(f"'{path}' cannot be written: {error.strerror}") from error


@contextmanager
def output_folder(output: Path) -> Iterator[None]:
    """The folder, made as ``prepare`` does; gone again where it is new and nothing came of it.

    So are folders above it that were made for it.
    """
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        prepare(output)
        yield
    except BaseException:
        with suppress(OSError):  # there is something in it
            for folder in made:
                folder.rmdir()
        raise


def publish(
    built: Artifact, output: Path, name: str, gate: dict[str, Any] | None = None,
    tuning: dict[str, Any] | None = None, rebuild: str | None = None,
    checkpoint: str | None = None, *, replace_other: bool = True,
) -> Path:  # fmt: skip
    """Copy an engine out of the store as ``OUTPUT/NAME.*``; the path of its main file.

    The manifest comes last, so that an interrupted copy never passes for an engine. Where the
    engine is there already, whole, only a new verdict, tuning or command is written.

    Args:
        built: the engine in the store.
        output: the folder.
        name: without a suffix.
        gate: the gate's verdict as plain JSON, for the manifest's facts under ``gate``; ``None``
            leaves an earlier verdict on this very engine where it is.
        tuning: how it runs best on this machine, for the facts under ``tuning``; ``None`` likewise.
        rebuild: the command that builds it again, for the facts under ``rebuild``; likewise.
        checkpoint: where the checkpoint lay, for the facts under ``checkpoint``; likewise.
        replace_other: whether it is an engine to be used, and may take the place of one that
            another command made. Else it was built to be compared with: it lies beside that one,
            with a part of its key in its name, and ``made_for`` in its facts says so.
    """
    found = {"gate": gate, "tuning": tuning, "rebuild": rebuild, "checkpoint": checkpoint}
    found = {key: value for key, value in found.items() if value is not None}
    if not replace_other:
        found["made_for"] = COMPARISON
        other = _other(built, output, name)
        if other is not None and other.facts.get("rebuild") != rebuild:
            name = f"{name}-{built.manifest.key[:8]}"
    target = _target(built, output, name)
    manifest_path = manifest_of(target)
    there = _there(built, manifest_path)
    if there is not None:
        # What was learnt of it stays, and so does whose it is; its facts proper are the store's.
        kept = {key: there.facts[key] for key in _LEARNT if key in there.facts}
        if replace_other:
            kept.pop("made_for", None)
        facts = built.facts | (kept | found if replace_other else found | kept)
        if not replace_other and "made_for" not in kept:
            facts.pop("made_for", None)
        if facts != there.facts:
            _write(manifest_path, replace(there, facts=facts))
        return target
    _sweep(output)
    parts = {
        target.with_name(f"{name}{Path(part).suffix}"): (built.path.parent / part, digest)
        for part, digest in built.manifest.files.items()
    }
    with ExitStack() as stack:
        # All of it first, under other names: where there is no room, what was there still runs.
        copies = {
            part: stack.enter_context(_copied(source, part, digest))
            for part, (source, digest) in parts.items()
        }
        manifest_path.unlink(missing_ok=True)
        for part, copy in copies.items():
            copy.replace(part)
    files = {part.name: digest for part, (_source, digest) in parts.items()}
    _write(
        manifest_path,
        replace(built.manifest, main=target.name, files=files, facts=built.facts | found),
    )
    return target


def made_otherwise(built: Artifact, output: Path, name: str, rebuild: str | None) -> str | None:
    """The command that made the other engine of that name, where there is one that is not this
    one's own: what is lost if it is replaced."""
    other = _other(built, output, name)
    command = None if other is None else other.facts.get("rebuild", "a command it does not record")
    return None if command == rebuild else command


def _other(built: Artifact, output: Path, name: str) -> Manifest | None:
    """The manifest of another engine of that name, if there is one that anyone could open."""
    try:
        there = read_manifest(manifest_of(_target(built, output, name)))
    except ArtifactError:
        return None
    return None if there.key == built.manifest.key else there


def withdraw(built: Artifact, output: Path, name: str) -> None:
    """Remove that engine from the output folder. Another engine of the same name stays."""
    manifest_path = manifest_of(_target(built, output, name))
    try:
        there = read_manifest(manifest_path)
    except ArtifactError:
        return  # nothing there that anyone could open
    if there.key != built.manifest.key:
        return
    manifest_path.unlink(missing_ok=True)  # first: without it nobody opens the rest
    for part in there.files:
        (output / part).unlink(missing_ok=True)


def _target(built: Artifact, output: Path, name: str) -> Path:
    return output / f"{name}{Path(built.manifest.main).suffix}"


def _write(path: Path, manifest: Manifest) -> None:
    write_whole(path, manifest.to_json())


def _there(built: Artifact, manifest_path: Path) -> Manifest | None:
    """The manifest of that very engine, where it lies whole."""
    try:
        there = open_artifact(manifest_path)
    except ArtifactError:
        return None  # absent or not whole: about to be written
    same = there.manifest.key == built.manifest.key and there.sha256 == built.sha256
    return there.manifest if same else None


@contextmanager
def _copied(source: Path, target: Path, digest: str) -> Iterator[Path]:
    """A whole copy beside the target, under a temporary name; gone at the end where it was not
    renamed."""
    handle, name = tempfile.mkstemp(prefix=f"{_UNFINISHED}{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
            file.flush()
            os.fsync(file.fileno())
        if sha256_of(temporary) != digest:
            raise ArtifactError(f"'{target}' could not be written whole: is the disk full?")
        temporary.chmod(FILE_MODE)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(output: Path) -> None:
    """Remove what builds that were killed have left; a copy takes seconds, not hours."""
    for path in output.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
