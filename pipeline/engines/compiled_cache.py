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
        sealed = _sealed(folder)
        for blob in folder.glob(_BLOBS):
            if sealed.get(blob.name) != sha256_of(blob):
                blob.unlink()
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def seal_cache(folder: Path) -> None:
    """Record what OpenVINO has just written or read there."""
    with contextlib.suppress(OSError):  # unsealed, it is compiled again
        hashes = {blob.name: sha256_of(blob) for blob in sorted(folder.glob(_BLOBS))}
        if hashes != _sealed(folder):
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
