"""One home of inputs, and one good build, for all tests of the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calibration.streets import write_dataset
from models.checkpoints import save_segmenter
from models.segmenter import PRESETS
from scripts.build_engine import main
from tests.helpers import exit_code
from tests.models.helpers import TINY, tiny_segmenter
from tests.scripts.build_engine.command import Answer, Made, Run, process, words


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, ``tree``, and a checkpoint, ``tiny.safetensors``."""
    PRESETS.setdefault("tiny", TINY)
    folder = tmp_path_factory.mktemp("home")
    write_dataset(folder / "tree", train=4, val=2, height=64, width=128)
    save_segmenter(tiny_segmenter(), "tiny", folder / "tiny.safetensors")
    return folder


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process: (exit code, stdout, stderr in one line)."""
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)

    def command(output: Path, *more: str, **options: object) -> Answer:
        code = exit_code(main, *words(home, output, *more, **options))
        captured = capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return command


@pytest.fixture(scope="session")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A test that spoils it ends with a good run, so that the next one finds it whole."""
    output, user = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("user")
    found = Made(output, output / "stdout.json", user, user / "calls.txt")
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    done = process(
        *words(home, output, "--json"),
        HOME=str(user), CALLS=str(found.calls), XDG_CACHE_HOME=cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found.stdout.write_text(done.stdout)
    (output / "stderr.txt").write_text(done.stderr)
    return found
