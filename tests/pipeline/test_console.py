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
