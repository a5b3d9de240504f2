"""Signals that end a command end it as Ctrl-C does, so that it clears up."""

from __future__ import annotations

import signal
from typing import NoReturn


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise ``KeyboardInterrupt``, but for those that are ignored, as nohup
    has it."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:
            signal.signal(ending, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
