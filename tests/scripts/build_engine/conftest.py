"""One home of inputs, and one good build, for all tests of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.streets import write_dataset
from models.checkpoints import save_segmenter
from models.segmenter import PRESETS
from pipeline.console import run_command
from scripts.build_engine import main
from tests.models.helpers import TINY, tiny_segmenter
from tests.scripts.build_engine.command import Answer, Run, process, words


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
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: main(words(home, output, *more, **options)))
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, " ".join(captured.err.split())

    return command


@pytest.fixture(scope="session")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the output folder of one good run in a process of its own, what it printed on stdout).

    A test that spoils it ends with a good run, so that the next one finds it whole.
    """
    output = tmp_path_factory.mktemp("made")
    done = process(*words(home, output, "--json"))
    assert done.returncode == 0, done.stderr
    (output / "stdout.json").write_text(done.stdout)
    (output / "stderr.txt").write_text(done.stderr)
    return output, output / "stdout.json"
