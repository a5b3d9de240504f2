"""Handing engines out of the store, and taking them back.

An engine lies in the output folder as ``NAME.xml`` and ``NAME.bin``, or ``NAME.engine`` and
``NAME.onnx``, each with its manifest, ``NAME.xml.json`` or ``NAME.engine.json``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pipeline.artifact import Artifact, open_artifact, read_manifest, sha256_of, write_whole
from pipeline.engines.opening import manifest_of
from pipeline.errors import ArtifactError, SinkError


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
            f"--output '{output}' cannot be written to: {error.strerror}",
            hint="name a folder that is yours to write",
        ) from error


def publish(built: Artifact, output: Path, name: str) -> Path:
    """Copy an engine out of the store as ``OUTPUT/NAME.*``; the path of its main file.

    The manifest comes last, so that an interrupted copy never passes for an engine. Does nothing
    where the engine is there already, whole.
    """
    target = _target(built, output, name)
    manifest_path = manifest_of(target)
    if _is_there(built, manifest_path):
        return target
    manifest_path.unlink(missing_ok=True)
    files = {}
    for part, digest in built.manifest.files.items():
        copy = target.with_name(f"{name}{Path(part).suffix}")
        _copy_whole(built.path.parent / part, copy, digest)
        files[copy.name] = digest
    manifest = built.manifest.model_copy(update={"main": target.name, "files": files})
    write_whole(manifest_path, manifest.model_dump_json(indent=1).encode())
    return target


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


def _is_there(built: Artifact, manifest_path: Path) -> bool:
    try:
        there = open_artifact(manifest_path)
    except ArtifactError:
        return False  # absent or not whole: about to be written
    return there.manifest.key == built.manifest.key and there.sha256 == built.sha256


def _copy_whole(source: Path, target: Path, digest: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
            file.flush()
            os.fsync(file.fileno())
        if sha256_of(temporary) != digest:
            raise ArtifactError(f"'{target}' could not be written whole: is the disk full?")
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
