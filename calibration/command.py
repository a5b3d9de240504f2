"""What the commands of this package share: errors and interruptions of one line each."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from calibration.errors import CalibrationDataError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def run(work: Callable[[], None]) -> int:
    """Do it; the exit code: 0, 2 for bad data, 130 for Ctrl-C, SIGTERM and SIGHUP.

    A signal that is ignored, as nohup has it, stays so.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:
            signal.signal(ending, _interrupt)
    if sys.stdout is None:  # closed by who started us; what is said there is for nobody
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  to the end
    try:
        work()
        sys.stdout.flush()
    except CalibrationDataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:  # of a file, or of stdout: full, or its reader left
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"error: {error.filename or 'stdout'}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing half-written was kept\n")
        return 130
    return 0


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
