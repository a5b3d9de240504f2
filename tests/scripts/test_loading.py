"""Commands that get a signal while they load: they leave, without a traceback, with the code of
those that are interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    path.stem
    for path in (ROOT / "scripts").glob("*.py")
    if "run_command(main)" in path.read_text(encoding="utf-8")
)

# Sends the signal in the middle of an import: where it is loaded from is asked for.
LOAD = """
import os, runpy, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "pipeline.console":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Interrupting())
number, path = int(sys.argv[1]), sys.argv[2]
sys.argv[1:] = ["--help"]
runpy.run_path(path, run_name="__main__")
"""


def load(
    command: str, number: signal.Signals, before: str = ""
) -> subprocess.CompletedProcess[str]:
    path = ROOT / "scripts" / f"{command}.py"
    return subprocess.run(
        [sys.executable, "-c", before + LOAD, str(number.value), str(path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip


def test_every_command_is_here() -> None:
    assert {"run_video", "build_engine", "accuracy_report", "train"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_interrupt_while_a_command_loads_ends_it_without_a_word(command: str) -> None:
    done = load(command, signal.SIGINT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_so_do_the_other_signals(number: signal.Signals) -> None:
    done = load("run_video", number)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_ignored_stays_so(number: signal.Signals) -> None:
    ignored = f"import signal; signal.signal({number.value}, signal.SIG_IGN)\n"
    done = load("run_video", number, ignored)
    assert done.returncode == 0
    assert "--output" in done.stdout
    assert done.stderr == ""
