"""Files that are whole or not there. The pipeline has its own: ``models`` knows nothing of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def _file_mode() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


# What a new file would have: a temporary one is its maker's alone, and a checkpoint is for whoever
# the umask lets read it. It can only be read by setting it: once, before there are threads.
_FILE_MODE = _file_mode()


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name beside ``path``, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_FILE_MODE)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
