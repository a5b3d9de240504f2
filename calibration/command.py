"""What commands share: errors and interruptions of one line each, sizes, a stdout that is there.

Commands of this package run through ``run``; ``pipeline.console`` has an ending of its own, and the
rest from here.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from calibration.errors import CalibrationDataError

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def run(work: Callable[[], None]) -> int:
    """Do it; the exit code: 0, 2 for bad data, 130 for Ctrl-C, SIGTERM and SIGHUP."""
    end_by_interrupt()
    open_stdout()
    try:
        work()
        sys.stdout.flush()
    except CalibrationDataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:  # of a file, or of stdout: full, or its reader left
        if error.filename is None:
            abandon_stdout()
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"error: {error.filename or 'stdout'}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing half-written was kept\n")
        return 130
    return 0


def end_by_interrupt() -> None:
    """From now on SIGTERM and SIGHUP raise ``KeyboardInterrupt``, once, as Ctrl-C does.

    A signal that is ignored, as nohup has it, stays so.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # until now it may have left at once
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for ending in _ENDING:
        if signal.getsignal(ending) != signal.SIG_IGN:
            signal.signal(ending, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    for ending in _ENDING:  # a second one would cut the clearing up short
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def open_stdout() -> None:
    """Where who started us closed stdout: what is said there is for nobody."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  to the end


def abandon_stdout() -> None:
    """After stdout failed: give the interpreter's own flush somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_shape(text: str) -> tuple[int, int]:
    """``512x1024`` -> (512, 1024), height first; for argparse's ``type``."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise argparse.ArgumentTypeError(f"'{text}' is not HxW, such as 512x1024")
    return int(match[1]), int(match[2])
