"""Compile the C sources once per machine, and keep the library where only its owner can write.

The library's name is the SHA-256 of everything that decides its content: sources, flags, the
compiler's own description, the machine. It is written under a temporary name and renamed, so that
processes starting together each end with a whole one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import stat
import subprocess
import tempfile
from pathlib import Path

from pipeline.private import CACHE_VARIABLE, cache_root, distrust

SOURCES = Path(__file__).parent / "csrc"

# Products must be rounded before they are added (-ffp-contract=off): every mode and the NumPy
# reference then agree to the last bit. Nothing here may be compiled with -ffast-math or -march.
FLAGS = (
    "-std=c11",
    "-O3",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=off",
)
COMPILE_SECONDS = 300


class BuildError(Exception):
    """The library cannot be compiled here; the message says why in one line."""


class UnsafeCacheError(Exception):
    """The cache folder cannot be trusted or written; the message says why in one line."""


def compiler() -> list[str]:
    """The command of the C compiler: ``$CC``, which may hold options, or ``cc``.

    Raises ``BuildError`` where it is no command.
    """
    spelled = os.environ.get("CC", "")
    try:
        return shlex.split(spelled) or ["cc"]
    except ValueError as error:
        raise BuildError(f"CC={spelled} is no command: {error}") from error


def cache_folder() -> Path:
    """Where libraries are kept: ``$REPMLP_EDGE_CACHE/kernels``, or the user's cache folder.

    Raises ``UnsafeCacheError`` for a user without a home.
    """
    root = cache_root()
    if root is None:
        raise UnsafeCacheError(f"this user has no home folder for a cache: set {CACHE_VARIABLE}")
    return root / "kernels"


def build(folder: Path) -> Path:
    """The library in this folder, compiled unless it is there.

    Raises:
        BuildError: no compiler, or it failed.
        UnsafeCacheError: somebody else could have put, or could put, a library there.
    """
    reason = distrust(folder)
    if reason is not None:
        raise UnsafeCacheError(reason)
    library = folder / f"edge-{_key()}.so"
    if _is_ours(library):
        return library
    try:
        handle, name = tempfile.mkstemp(prefix=library.stem, suffix=".tmp", dir=folder)
    except OSError as error:
        raise UnsafeCacheError(f"cannot write {folder}: {error.strerror}") from error
    unfinished = Path(name)
    try:
        os.close(handle)
        sources = sorted(str(path) for path in SOURCES.glob("*.c"))
        _run([*compiler(), *FLAGS, "-o", str(unfinished), *sources])
        _settle(unfinished, library)
    except OSError as error:
        raise UnsafeCacheError(f"cannot write {library}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return library


def _settle(unfinished: Path, library: Path) -> None:
    unfinished.chmod(0o700)
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(library)


def _is_ours(library: Path) -> bool:
    """Whether the library is there, as a plain file of ours that nobody else can write."""
    try:
        found = library.lstat()
    except OSError:
        return False
    safe = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
    return safe and not found.st_mode & 0o022 and found.st_size > 0


def _key() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        content = path.read_bytes()
        digest.update(f"{path.name}:{len(content)}\n".encode() + content)
    described = _run([*compiler(), "--version"]) + _run([*compiler(), "-dumpmachine"])
    digest.update("\n".join([*compiler(), *FLAGS, platform.machine(), described]).encode())
    return digest.hexdigest()[:32]


def _run(command: list[str]) -> str:
    """What a compiler's call printed, or BuildError with the line that matters."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise BuildError(f"no C compiler: '{command[0]}' is not installed") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"the C compiler '{command[0]}' cannot be run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"the C compiler '{command[0]}' failed: {first}")
    return done.stdout
