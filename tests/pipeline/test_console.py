"""How a command ends: one line for what a user can mend, a traceback for what is our bug."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from calibration.errors import CalibrationDataError
from calibration.qdq_graph import QuantizedGraphError
from models.errors import ModelError
from pipeline import console
from pipeline.console import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REGRESSION,
    Parser,
    natural,
    positive_int,
    require,
    run_command,
)
from pipeline.engines import abandoned
from pipeline.errors import EdgeError, MissingDependencyError
from tests.helpers import exit_code


@pytest.mark.parametrize(
    "error",
    [
        EdgeError("one\nline"), CalibrationDataError("one\nline"), ModelError("one\nline"),
        QuantizedGraphError("one\nline"), OSError(errno.ENOSPC, "one line"),
    ],
)  # fmt: skip
def test_every_error_of_ours_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: one line\n"


def test_what_is_missing_is_named_with_what_installs_it() -> None:
    require("json", "numpy", extra="build", why="a test")
    with pytest.raises(MissingDependencyError, match="a test needs the package 'no_such'") as told:
        require("json", "no_such", extra="build", why="a test")
    assert told.value.hint == "pip install -e '.[build]' in this project's folder"


def test_a_bug_keeps_its_traceback_and_is_no_regression(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise ValueError("nobody's fault but ours")

    with pytest.raises(SystemExit) as ended:
        run_command(fail)
    assert ended.value.code == EXIT_BUG
    assert EXIT_BUG not in (EXIT_OK, EXIT_REGRESSION, EXIT_BAD_INPUT, EXIT_INTERRUPTED)
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.endswith("ValueError: nobody's fault but ours\n")


def test_help_tells_every_default() -> None:
    parser = Parser(prog="p")
    parser.add_argument("--plain", default="50%", help="kept at 1%% of all")
    parser.add_argument("--bare", type=int, default=3)
    parser.add_argument("--said", default=1, help="a number (default: one)")
    parser.add_argument("--switch", action="store_true", help="on")
    parser.add_argument("--none", help="nothing")
    for _twice in range(2):
        told = " ".join(parser.format_help().split())
    assert "kept at 1% of all (default: 50%)" in told
    assert "--bare BARE (default: 3)" in told
    assert "a number (default: one) --switch on --none NONE nothing" in told


@pytest.mark.parametrize("parse", [natural, positive_int])
@pytest.mark.parametrize("text", ["", "-1", "1.5", "٣", "9" * 10, "9" * 5000])
def test_what_is_no_count_is_refused(parse: Callable[[str], int], text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"whole number|more than 9 digits"):
        parse(text)
    assert (natural("0"), parse("7")) == (0, 7)


COMMAND = """
import sys
from pipeline.console import print_json, run_command, say, warn
from pipeline.errors import EdgeError
def main():
    say("working")
    warn("still working")
    if "fail" in sys.argv:
        raise EdgeError("one line\\x1b[2J\\x9b0m [bold]of 'x'", hint="sh\\x07")
    print_json({"done": True})
    return 0
run_command(main)
"""


def command(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command above in a shell line that has ``$C`` in its place."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHON": sys.executable, "PROGRAM": COMMAND, **environment},
    )  # fmt: skip


RUN = '"$PYTHON" -c "$PROGRAM"'


def test_who_reads_stderr_may_leave() -> None:
    """The work goes on, its result is whole, and its code is its own."""
    for left in ("2> >(exec 2>&-; true)", "2>/dev/full", "2>&-"):
        done = command(f"{RUN} {left}")
        assert done.returncode == 0, left
        assert json.loads(done.stdout) == {"done": True}, left
        assert command(f"{RUN} fail {left}").returncode == 2, left


def test_stdout_may_be_closed() -> None:
    done = command(f"{RUN} >&-")
    assert (done.returncode, done.stderr) == (0, "working\nwarning: still working\n")
    assert command(f"{RUN} fail >&-").returncode == 2


def test_no_message_commands_the_terminal() -> None:
    done = command(f"{RUN} fail", COLUMNS="0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2:] == [
        "error: one line\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}0m [bold]of 'x'",
        "  try: sh\N{REPLACEMENT CHARACTER}",
    ]


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you",
        "[ONNXRuntimeError] : 1 : FAIL : bfc_arena.cc:376 onnxruntime::BFCArena::AllocateRaw",
        "std::bad_alloc",
    ],
)
def test_out_of_memory_is_called_that(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise RuntimeError(said)

    with pytest.raises(SystemExit) as ended:
        run_command(fail)
    assert ended.value.code == 2
    assert "there is not enough memory" in capsys.readouterr().err


def test_runtime_warning_is_a_line_without_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("the cache is a file", RuntimeWarning, stacklevel=1)
        return EXIT_OK

    usual = warnings.showwarning
    with pytest.raises(SystemExit):
        run_command(main)
    assert capsys.readouterr().err.strip() == "warning: the cache is a file"
    assert warnings.showwarning is usual


def test_a_command_leaves_at_once_where_an_engine_was_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interpreter's farewell would destroy what a hanging GPU still uses, or wait for it."""
    left: list[int] = []

    def leave(code: int) -> NoReturn:
        left.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(console, "end_process", leave)
    monkeypatch.setattr(abandoned, "_abandoned", [])
    assert exit_code(lambda _arguments: 1) == 1
    assert left == []
    monkeypatch.setattr(abandoned, "_abandoned", [object()])
    assert exit_code(lambda _arguments: 1) == 1
    assert left == [1]
