"""OpenVINO's cache of compiled models, used only where it is ours alone and whole.

What runs is the compiled model in there, which OpenVINO loads as it finds it: a byte that a disk or
a stranger changed gives other labels from an engine whose own files are whole. So the hash of each
is kept beside it, and what does not match is compiled again.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

from pipeline.artifact import sha256_of, write_whole
from pipeline.private import cache_root, distrust

_BLOBS, _SEAL = "*.blob", "sha256.json"
_MOST_SEAL_BYTES = 1 << 16


def open_cache(content: str) -> Path | None:
    """The folder for what is compiled of one engine, without anything in it that changed.

    Args:
        content: a name that no other engine has.

    Returns:
        ``None`` where there is none to trust or to write: a cache is no need, and services may have
        no home.
    """
    root = cache_root()
    if root is None:
        return None
    folder = root / "openvino" / content
    if distrust(folder) is not None:
        return None
    try:
        sealed, whole = _sealed(folder), {}
        for blob in folder.glob(_BLOBS):
            digest = sha256_of(blob)
            if sealed.get(blob.name) == digest:
                whole[blob.name] = digest
            else:
                blob.unlink()
        if whole != sealed:  # what is compiled again may have the same name
            _seal(folder, whole)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def seal_cache(folder: Path) -> None:
    """Record what OpenVINO has just written there; what it found was hashed by ``open_cache``."""
    with contextlib.suppress(OSError):  # unsealed, it is compiled again
        sealed = _sealed(folder)
        new = [blob for blob in folder.glob(_BLOBS) if blob.name not in sealed]
        if new:
            _seal(folder, sealed | {blob.name: sha256_of(blob) for blob in new})


def _seal(folder: Path, hashes: dict[str, str]) -> None:
    write_whole(folder / _SEAL, json.dumps(hashes).encode())


def _sealed(folder: Path) -> dict[str, str]:
    path = folder / _SEAL
    try:
        if path.stat().st_size > _MOST_SEAL_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
