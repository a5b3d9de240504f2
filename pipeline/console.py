"""The command line's side of things: the one place that renders errors and progress.

Progress and messages go to stderr, results to stdout, so that ``--json`` prints one object and
nothing else there. Bad input exits with 2 and one line, a regression with 1, Ctrl-C with 130, a bug
of ours with 70 (``EX_SOFTWARE`` of sysexits.h): Python's own 1 would be taken for a regression.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.markup import escape

from calibration.command import abandon_stdout, end_by_interrupt, open_stdout
from calibration.command import parse_shape as parse_shape  # beside the other kinds of option
from calibration.errors import CalibrationDataError
from pipeline.errors import EdgeError, MissingDependencyError, UsageError
from pipeline.manifest import plain_json

if TYPE_CHECKING:
    from rich.progress import Progress

_MOST_DIGITS = 9  # no count of ours comes near; what does is a slip, or means to break something

EXIT_OK, EXIT_REGRESSION, EXIT_BAD_INPUT, EXIT_BUG, EXIT_INTERRUPTED = 0, 1, 2, 70, 130

BUILD_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "safetensors")
"""What the extra ``build`` installs."""

# Errors of modules that need torch or onnx, which may not be here.
_ELSEWHERE = {"models.errors": "ModelError", "calibration.qdq_graph": "QuantizedGraphError"}

# How torch, ONNX Runtime and OpenVINO say it: none raises MemoryError.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|BFCArena|bad_alloc|CUDA out of memory|Failed to allocate memory"
)

end_process = os._exit
"""Leave without the interpreter's farewell; replaced where tests run commands in their process."""

# C0 and C1: what a terminal obeys. Messages quote file names, manifests and other people's logs.
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), "�")
for _kept in ("\n", "\t"):
    del _CONTROLS[ord(_kept)]


class _Stderr(Console):
    """Goes quiet when its reader leaves or its disk is full: what is told is not the work."""

    def on_broken_pipe(self) -> None:
        """rich's own would end the process with 1, and give away stdout."""
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# rich takes COLUMNS=0 at its word, and prints nothing.
stderr = _Stderr(
    stderr=True, highlight=False, width=None if os.environ.get("COLUMNS") != "0" else 80
)


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit: what the user can mend is one line and exit code 2."""
    end_by_interrupt()
    open_stdout()
    try:
        with _warnings_as_lines():
            code = main()
        with _stdout():
            sys.stdout.flush()
    except KeyboardInterrupt:
        _tell("interrupted; nothing half-written was kept")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader left
        code = EXIT_BAD_INPUT
    except Exception as error:
        line = _one_line(error)
        if line is None:
            traceback.print_exc()  # a bug: this is what we want to see of it
            code = EXIT_BUG
        else:
            _print_error(line, getattr(error, "hint", None))
            code = EXIT_BAD_INPUT
    # What was never loaded left nothing.
    patience = sys.modules.get("pipeline.video.patience")
    engines = sys.modules.get("pipeline.engines.abandoned")
    if (patience is not None and patience.calls_left_behind()) or (
        engines is not None and engines.engines_left_behind()
    ):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        end_process(code)
    sys.exit(code)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """What the library warns of at run time is for the person, who has no use for a source line."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is RuntimeWarning:
            warn(str(message))
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


@contextlib.contextmanager
def _stdout() -> Iterator[None]:
    """While stdout is written to: what it cannot take is an error that names it."""
    try:
        yield
    except OSError as error:
        abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        raise EdgeError(f"stdout: {error.strerror or error}") from error


def _one_line(error: Exception) -> str | None:
    """What to tell the user about an error of theirs or their machine's; ``None`` for a bug."""
    known: tuple[type[Exception], ...] = (EdgeError, CalibrationDataError)
    for name, kind in _ELSEWHERE.items():
        module = sys.modules.get(name)  # what was never loaded raised nothing
        known += (getattr(module, kind),) if module else ()
    if isinstance(error, known):
        return str(error)
    if isinstance(error, MemoryError):
        # NumPy says what it wanted; Python's own says nothing.
        return f"there is not enough memory: {error}" if str(error) else "there is no memory left"
    if _OUT_OF_MEMORY.search(str(error)):
        return (
            "there is not enough memory: end what else uses it, or take less at once (--shape, "
            "--calibration-shape, --batch, --crop)"
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f": '{error.filename}'" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return None


def _print_error(message: str, hint: str | None) -> None:
    line = " ".join(message.split())
    _tell(f"[bold red]error:[/] {escape(line)}")
    if hint:
        _tell(f"[dim]  try:[/] {escape(hint)}")


def _tell(text: str) -> None:
    """One line in rich's markup, without a terminal's control characters, never wrapped."""
    try:
        stderr.print(text.translate(_CONTROLS), soft_wrap=True)
    except OSError:
        stderr.on_broken_pipe()


def say(message: str, *, markup: bool = False) -> None:
    """One line for a person, on stderr, as it is; with ``markup``, as rich's."""
    _tell(message if markup else escape(message))


def warn(message: str) -> None:
    """One warning for a person, on stderr."""
    _tell(f"[yellow]warning:[/] {escape(message)}")


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout. NaN is written as null: JSON has no NaN."""
    with _stdout():
        sys.stdout.write(json.dumps(plain_json(value), indent=2, allow_nan=False) + "\n")


def progress_bar() -> Progress:
    """A progress bar on stderr; drawn only on a terminal."""
    # Not before it is needed: the runner has none.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=stderr, transient=True,
    )  # fmt: skip


def require(*packages: str, extra: str, why: str) -> None:
    """Refuse now what would fail later: ``MissingDependencyError`` for the first that is missing.

    Args:
        packages: names to import, none of which is imported.
        extra: of ours, that installs them.
        why: what needs them.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependencyError(package, extra, why=why)


class Parser(argparse.ArgumentParser):
    """argparse with our way of saying errors: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise, so that the message is rendered like every other."""
        raise UsageError(message, hint=f"{self.prog} --help")

    def format_help(self) -> str:
        """argparse's, with the default of every option that has one and does not say it."""
        for action in self._actions:
            value, said = action.default, action.help or ""
            plain = isinstance(value, str | int | float | Path) and not isinstance(value, bool)
            if (
                plain
                and action.nargs != "?"
                and value != argparse.SUPPRESS
                and "default" not in said
            ):
                value = str(value).replace("%", "%%")
                action.help = f"{said} (default: {value})".strip()
        return super().format_help()


def positive_int(text: str) -> int:
    """A whole number from 1 to 10^9 - 1; for argparse's ``type``."""
    if not (text.isascii() and text.isdigit()) or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return natural(text)


def natural(text: str) -> int:
    """A whole number from 0 to 10^9 - 1; for argparse's ``type``."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    if len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"'{text}' has more than {_MOST_DIGITS} digits")
    return int(text)


def positive_float(text: str) -> float:
    """A number above 0; for argparse's ``type``."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value
