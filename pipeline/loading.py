"""What a signal does while a command still loads its modules, before ``run_command`` has it.

Python's own answer to Ctrl-C there is the traceback of whichever import was under way, and to
SIGTERM another exit code than ours. Nothing has been opened or written yet, so a command can
simply leave.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

_INTERRUPTED = 130  # pipeline.console's, which is part of what takes long to load
_USUAL = (signal.SIG_DFL, signal.default_int_handler)


def leave_at_signals() -> None:
    """Until ``run_command``, Ctrl-C, SIGTERM and SIGHUP end the process with 130, without a word.

    One that is ignored, as nohup has it, stays so.
    """
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) in _USUAL:
            signal.signal(ending, _leave)


def _leave(_signal: int, _frame: object) -> NoReturn:
    os._exit(_INTERRUPTED)  # an exception would be an import's, which may take it for its own
