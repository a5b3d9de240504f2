"""What the tests of bundles share."""

from __future__ import annotations

import tarfile
from pathlib import Path

from pipeline.bundle import Bundle


def unpack(made: Bundle, folder: Path) -> Path:
    """Unpack the archive there; the one folder in it."""
    with tarfile.open(made.path) as archive:
        archive.extractall(folder, filter="data")
    return folder / made.folder
