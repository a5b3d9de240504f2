"""The command on a network that is small enough for tests, and what it leaves in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from pipeline.artifact import open_artifact

ROOT = Path(__file__).parents[3]
# The command, on a network that is small enough for tests.
COMMAND = (
    "import runpy, sys; from models.segmenter import PRESETS;"
    "from tests.models.helpers import TINY;"
    "PRESETS['tiny'] = TINY; sys.argv[0] = 'scripts/build_engine.py';"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
NAME = "tiny-int8-64x128"
Answer: TypeAlias = tuple[int, str, str]
Run: TypeAlias = Callable[..., Answer]


def words(home: Path, output: Path, *more: str, **options: object) -> list[str]:
    """The command's arguments, good ones unless told otherwise."""
    chosen = {
        "checkpoint": home / "tiny.safetensors", "dataset": home / "tree", "shape": "64x128",
        "frames": 4, "min_agreement": 50, "output": output, **options,
    }  # fmt: skip
    return [
        part
        for name, value in chosen.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ] + list(more)


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"COLUMNS": "100", "PYTHONPATH": "."} | environment, timeout=200,
        check=False,
    )  # fmt: skip


def left_in(output: Path) -> set[str]:
    """What lies in an output folder besides whole artifacts of the store."""
    if not output.is_dir():
        return set()
    found = {path.name for path in output.iterdir()} - {".store"}
    for path in (output / ".store").glob("*"):
        if path.name.startswith("."):
            found.add(path.name)
        elif (path / "artifact.json").is_file():
            open_artifact(path / "artifact.json")
    return found
