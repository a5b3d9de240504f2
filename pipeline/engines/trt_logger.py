"""The one logger that a TensorRT module ever gets, and who listens to it.

TensorRT keeps the first logger of a process and ignores every later one; it does not let go of it
either, so one that Python collects is written to after its end (NVIDIA/TensorRT issue 4134). So
there is one for each module, never freed, and whoever builds or opens an engine listens to it for
as long as that takes. With several engines open each hears the others too: TensorRT does not say
which of them a message is about.
"""

from __future__ import annotations

import re
from collections import deque
from threading import Lock
from typing import Any

from pipeline.engines.trt_log import TABLE, LogLine

# Said to another user of TensorRT in this process, about the logger and nothing else.
_OTHER = re.compile(r"logger passed into create\w* differs", re.IGNORECASE)

_keepers: dict[int, tuple[Any, Any]] = {}
"""By the module's identity: the module, so that nothing else gets its identity, and its logger."""
_lock = Lock()


class Listener:
    """What TensorRT says from here to ``close``. Made by ``listening``."""

    def __init__(self, keeper: Any, most: int | None) -> None:
        self.logger = keeper
        """To hand to TensorRT."""
        self._kept: deque[LogLine] = deque(maxlen=most)
        with _lock:
            # A new tuple: TensorRT may log from a thread of its own, and goes through the old one.
            keeper.heard_by = (*keeper.heard_by, self._kept)

    @property
    def lines(self) -> list[LogLine]:
        """What was kept so far, a copy: more may come meanwhile."""
        return list(self._kept)

    def close(self) -> None:
        """Listen no more. Safe to call twice; ``lines`` stay."""
        with _lock:
            self.logger.heard_by = tuple(d for d in self.logger.heard_by if d is not self._kept)


def listening(trt: Any, *, most: int | None = None) -> Listener:
    """A listener to that TensorRT module's logger.

    Of verbose messages it keeps the table of layers alone: a builder writes hundreds of thousands
    of others, about kernels it tried.

    Args:
        trt: the module.
        most: how many messages to keep, the newest; all when ``None``.
    """
    with _lock:
        if id(trt) not in _keepers:
            _keepers[id(trt)] = (trt, _keeper(trt))
        keeper = _keepers[id(trt)][1]
    return Listener(keeper, most)


def _keeper(trt: Any) -> Any:
    class _Keeper(trt.ILogger):  # type: ignore[misc]  # the base is known only now
        def __init__(self) -> None:
            super().__init__()
            self.heard_by: tuple[deque[LogLine], ...] = ()

        def log(self, severity: Any, message: str) -> None:
            # Without the lock, which the thread may hold that TensorRT's destructor logs in.
            name = str(severity).rpartition(".")[2]
            if (name == "VERBOSE" and not message.startswith(TABLE)) or _OTHER.search(message):
                return
            for kept in self.heard_by:
                kept.append(LogLine(name, message))

    return _Keeper()
