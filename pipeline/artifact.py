"""Artifacts: files with a manifest that says what they are, and hashes that prove it.

An artifact is one or more files in a folder and ``artifact.json`` beside them, or, for engines
handed to the user, ``FILE.json`` beside ``FILE``. A file that does not match its hash is not that
artifact: it is rebuilt or refused, never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.manifest import MANIFEST_VERSION, Manifest, TensorSpec

__all__ = [
    "Artifact", "Manifest", "TensorSpec", "canonical_json", "hash_of", "open_artifact",
    "read_manifest", "sha256_of", "write_whole",
]  # fmt: skip

MAX_MANIFEST_BYTES = 16 << 20
_CHUNK = 1 << 20


def _file_mode() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


# What a new file would have; a temporary one is its maker's alone. The umask can only be read by
# setting it, which is no business of a moment when there are threads.
FILE_MODE = _file_mode()


class Artifact:
    """A manifest and the folder its files lie in."""

    def __init__(self, manifest: Manifest, manifest_path: Path) -> None:
        self.manifest = manifest
        self.manifest_path = manifest_path

    @property
    def kind(self) -> str:
        """See ``Manifest.kind``."""
        return self.manifest.kind

    @property
    def path(self) -> Path:
        """The main file."""
        return self.manifest_path.parent / self.manifest.main

    @property
    def sha256(self) -> str:
        """Hash of the main file, as recorded."""
        return self.manifest.files[self.manifest.main]

    @property
    def facts(self) -> dict[str, Any]:
        """See ``Manifest.facts``."""
        return self.manifest.facts

    def verify(self) -> None:
        """Raise ``ArtifactError`` naming the first file that is missing or not as recorded."""
        for name, expected in self.manifest.files.items():
            path = self.manifest_path.parent / name
            if not path.is_file():
                raise ArtifactError(f"'{path}' is missing, though '{self.manifest_path}' lists it")
            if sha256_of(path) != expected:
                raise ArtifactError(
                    f"'{path}' is not the file that '{self.manifest_path.name}' describes: "
                    "it was altered or only half copied"
                )


def read_manifest(path: Path) -> Manifest:
    """Parse a manifest. Raises ``ArtifactError`` when it is missing or is not one."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ArtifactError(f"manifest '{path}' is too large to be one")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"manifest '{path}' is missing") from None
    except OSError as error:
        raise ArtifactError(f"manifest '{path}' cannot be read: {error.strerror}") from error
    try:
        manifest = Manifest.from_json(data)
    except ArtifactError as error:
        raise ArtifactError(f"manifest '{path}' is not valid: {error}") from error
    if manifest.version != MANIFEST_VERSION:
        raise ArtifactError(
            f"manifest '{path}' is of version {manifest.version}, this program reads "
            f"{MANIFEST_VERSION}: build it again"
        )
    for name in (manifest.main, *manifest.files):
        if name != Path(name).name or name in ("", ".", ".."):
            raise ArtifactError(f"manifest '{path}' names a file outside its folder: '{name}'")
    if manifest.main not in manifest.files:
        raise ArtifactError(f"manifest '{path}' has no hash for '{manifest.main}'")
    return manifest


def open_artifact(manifest_path: Path) -> Artifact:
    """The artifact of that manifest, with every file's hash verified."""
    artifact = Artifact(read_manifest(manifest_path), manifest_path)
    artifact.verify()
    return artifact


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex, read in bounded pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checkpoint_artifact(path: Path, label: str = "") -> Artifact:
    """A checkpoint file as the artifact that the pipeline starts from.

    Args:
        path: the file.
        label: what its weights are called in the names of what is made of them; empty for shipped
            ones.
    """
    digest = sha256_of(path)
    manifest = Manifest(
        kind="checkpoint", main=path.name, files={path.name: digest}, key=hash_of(digest),
        provenance={"checkpoint": {"name": path.name, "label": label, "sha256": digest}},
    )  # fmt: skip
    return Artifact(manifest, path.parent / "checkpoint.json")


def canonical_json(value: Any) -> bytes:
    """The one spelling of a plain value: sorted keys, no spaces, no NaN. For hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def hash_of(value: Any) -> str:
    """SHA-256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name beside ``path``, fsync, rename: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(FILE_MODE)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
