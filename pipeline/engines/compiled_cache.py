"""OpenVINO's cache of compiled models, used only where it is ours alone and whole.

What runs is the compiled model in there, which OpenVINO loads as it finds it: a byte that a disk or
a stranger changed gives other labels from an engine whose own files are whole. So the hash of each
is kept beside it, and what does not match is compiled again.

Engines that were built again, and versions of OpenVINO that were replaced, leave models that nobody
asks for any more. Which these are cannot be told (another checkout may share the folder), so those
of the engines that were opened last stay, up to ``MAX_KEPT`` bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from pipeline.artifact import sha256_of, write_whole
from pipeline.private import cache_root, distrust

MAX_KEPT = 1 << 30
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
    """Record what OpenVINO has just written there, and make room for it.

    What it found there was hashed by ``open_cache``.
    """
    with contextlib.suppress(OSError):  # unsealed, it is compiled again
        sealed = _sealed(folder)
        new = [blob for blob in folder.glob(_BLOBS) if blob.name not in sealed]
        if new:
            _seal(folder, sealed | {blob.name: sha256_of(blob) for blob in new})
        elif sealed:
            os.utime(folder / _SEAL)  # opened now, though written long ago
        _make_room(folder, new)


def _make_room(mine: Path, new: list[Path]) -> None:
    """Remove what goes beyond ``MAX_KEPT`` bytes: models of the engines that were opened longest
    ago, and last those of this one that were compiled longest ago, but for the newest.

    When an engine was opened is told by its seal: a folder's own time changes with what is removed.
    Whoever loads one of them at this moment has it whole, or compiles.
    """
    kept = []
    for folder in mine.parent.iterdir():
        if folder.is_symlink() or not folder.is_dir():
            continue
        with contextlib.suppress(OSError):  # another process has just removed it
            seal = folder / _SEAL
            opened = (seal if seal.exists() else folder).stat().st_mtime_ns
            for blob in folder.glob(_BLOBS):
                found = blob.lstat()
                kept.append((folder == mine, opened, found.st_mtime_ns, found.st_size, blob))
    total = sum(size for *_, size, _blob in kept)
    own_newest = max((entry for entry in kept if entry[0]), default=None)
    spared = {*new, *([own_newest[-1]] if own_newest else [])}
    for own, _opened, _made, size, blob in sorted(kept):
        if total <= MAX_KEPT:
            return
        if blob in spared:
            continue
        blob.unlink(missing_ok=True)
        total -= size
        if not own and not any(blob.parent.glob(_BLOBS)):
            (blob.parent / _SEAL).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something else, or is in use again
                blob.parent.rmdir()


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
