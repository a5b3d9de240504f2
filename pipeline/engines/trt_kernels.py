"""What TensorRT for RTX compiles of an engine for this GPU, kept from one opening to the next.

Its plans hold no kernels: they are compiled when an engine is opened, unless a runtime cache has
them. What is kept runs as it is found, so it is read only from a folder that this user alone can
write, and only if it is whole: a file is the SHA-256 of the rest, then what TensorRT serialised.
A cache is no need. Whatever is wrong with one, the engine opens and compiles.

Engines that were built again, and drivers that were replaced, leave files that nobody asks for any
more. Which these are cannot be told (another machine may share the folder), so the files that were
opened last stay, up to ``MAX_KEPT`` bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from pipeline.artifact import write_whole
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.private import cache_root, distrust

MAX_KERNELS = 256 << 20
MAX_KEPT = 1 << 30
_SUFFIX = ".kernels"
_DIGEST = hashlib.sha256().digest_size
# Of files, and what the bindings raise for what C++ throws or for an object that is none.
_FAILURES = (OSError, RuntimeError, TypeError, ValueError)


class Kernels:
    """The compiled kernels of one engine, shared by all its contexts. Made by ``open_kernels``.

    To be dropped after the last context that uses them.
    """

    def __init__(self, cache: Any, path: Path | None, held: bytes) -> None:
        self._cache, self._path, self._held = cache, path, held

    def give(self, config: Any) -> None:
        """Let the context that is made with this runtime configuration use and add to them."""
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write what was compiled since, for the next opening, and make room. Raises nothing."""
        if self._path is None:
            return
        try:
            now = bytes(self._cache.serialize())
            if now and now != self._held and len(now) <= MAX_KERNELS:
                write_whole(self._path, hashlib.sha256(now).digest() + now)
                self._held = now
            elif self._held:
                os.utime(self._path)  # opened now, though written long ago
            _make_room(self._path)
        except _FAILURES:
            return  # it is compiled again


def open_kernels(engine: Any, plan: bytes, version: str, gpu: GpuFacts) -> Kernels | None:
    """Those of an engine of TensorRT for RTX; ``None`` where it has no such cache.

    Call it in a current CUDA context: what is kept is checked against the GPU as it is read.

    Args:
        engine: deserialised.
        plan: what it was deserialised from.
        version: of TensorRT for RTX.
        gpu: this machine's.
    """
    try:
        config = engine.create_runtime_config()
        cache = config.create_runtime_cache() if hasattr(config, "create_runtime_cache") else None
        if cache is None:
            return None
        path = _path(plan, version, gpu)
        held = b"" if path is None else _read(path)
        # One of another GPU or driver is refused, and is written over after the first run.
        if held and not cache.deserialize(held):
            held = b""
    except _FAILURES:
        return None
    return Kernels(cache, path, held)


def _path(plan: bytes, version: str, gpu: GpuFacts) -> Path | None:
    """The file of that plan on that GPU; ``None`` where there is no folder to trust."""
    root = cache_root()
    if root is None:
        return None
    folder = root / "tensorrt-rtx"
    if distrust(folder) is not None:
        return None
    driver = ".".join(map(str, gpu.driver))
    return folder / f"{hashlib.sha256(plan).hexdigest()}-{version}-{gpu.sm}-{driver}{_SUFFIX}"


def _make_room(mine: Path) -> None:
    """Remove the files beside this one that were opened longest ago, beyond ``MAX_KEPT`` bytes.

    Whoever reads one of them at this moment has it whole, or compiles. What a write that was
    killed left has the suffix in the middle of its name, and goes in the same way.
    """
    with os.scandir(mine.parent) as entries:
        files = [
            (found.st_mtime_ns, found.st_size, Path(each.path))
            for each in entries
            if _SUFFIX in each.name and each.is_file(follow_symlinks=False)
            for found in (each.stat(follow_symlinks=False),)
        ]
    total = sum(size for _time, size, _path in files)
    for _time, size, path in sorted(files):
        if total <= MAX_KEPT:
            return
        if path != mine:
            path.unlink(missing_ok=True)
            total -= size


def _read(path: Path) -> bytes:
    """What is kept; nothing where there is none, or not what was written."""
    try:
        if path.is_symlink() or path.stat().st_size > _DIGEST + MAX_KERNELS:
            return b""
        whole = path.read_bytes()
    except OSError:
        return b""
    digest, rest = whole[:_DIGEST], whole[_DIGEST:]
    return rest if hashlib.sha256(rest).digest() == digest else b""
