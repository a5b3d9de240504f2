"""How a command ends: one line for what a user can mend, a traceback for what is our bug."""

from __future__ import annotations

import errno

import pytest

from calibration.errors import CalibrationDataError
from calibration.qdq_graph import QuantizedGraphError
from models.errors import ModelError
from pipeline.console import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REGRESSION,
    Parser,
    require,
    run_command,
)
from pipeline.errors import EdgeError, MissingDependencyError


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
