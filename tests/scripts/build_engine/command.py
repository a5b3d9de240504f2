"""The command on a network that is small enough for tests, and what it leaves in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pipeline.artifact import open_artifact

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NAME = "tiny-int8-64x128"
# One more than the data set of these tests has.
FRAMES = 5
Answer: TypeAlias = tuple[int, str, str]
Run: TypeAlias = Callable[..., Answer]


class Made(NamedTuple):
    """One good build by a process of its own.

    Attributes:
        output: the folder it was told to fill.
        stdout: what it printed there, a file.
        user: the home folder that it ran in, empty before.
        calls: what it asked of the network, a file; absent where it asked for nothing.
    """

    output: Path
    stdout: Path
    user: Path
    calls: Path


def words(home: Path, output: Path, *more: str, **options: object) -> list[str]:
    """The command's arguments, good ones unless told otherwise."""
    chosen = {
        "checkpoint": home / "tiny.safetensors", "dataset": home / "tree", "shape": "64x128",
        "frames": FRAMES, "min_agreement": 50, "output": output, **options,
    }  # fmt: skip
    if "frames" not in options and str(chosen.get("precision", "int8")).startswith("fp"):
        del chosen["frames"]  # refused: nothing is calibrated
    return [
        part
        for name, value in chosen.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ] + list(more)


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process, as if no continuous integration ran it: some tools ask for that."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    return subprocess.run(
        [sys.executable, str(HERE / "run_tiny.py"), *arguments], cwd=ROOT, capture_output=True,
        text=True, env=inherited | {"COLUMNS": "100", "PYTHONPATH": "."} | environment,
        timeout=200, check=False,
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
