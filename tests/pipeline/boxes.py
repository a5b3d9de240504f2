"""What the tests of bundles share."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from pipeline.bundle import Bundle


def unpack(made: Bundle, folder: Path) -> Path:
    """Unpack the archive there; the one folder in it."""
    with tarfile.open(made.path) as archive:
        archive.extractall(folder, filter="data")
    return folder / made.folder


def edge(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``edge.py`` with this Python, all of whose packages it sees."""
    return subprocess.run(
        [sys.executable, "edge.py", *words], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"COLUMNS": "200"} | environment, timeout=120, check=False,
    )  # fmt: skip


def bare(folder: Path, packages: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With a Python that has numpy and OpenCV and nothing else installed."""
    return subprocess.run(
        [sys.executable, "-S", "edge.py", *words], cwd=folder, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)}, timeout=120, check=False,
    )  # fmt: skip
