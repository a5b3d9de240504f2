"""Calls that may never return, given a hard end.

Opening a camera, resolving a host name, reading a file on a dead network mount: each can sit in
the kernel where no timeout of the library reaches it. Python cannot interrupt such a call, so it
is made on a thread of its own, which is left behind when its time is up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")

_left: list[threading.Thread] = []
"""Threads whose call did not return in time."""

_TICK = 0.05
"""How long a stop request may go unnoticed, in seconds."""

_GRACE = 0.5
"""How long a call under way may still take once the runner stops, in seconds."""


class StalledError(Exception):
    """A call did not return in time. Its thread is left behind and the ``Helper`` is spent."""


class StoppedError(Exception):
    """Waiting was given up because the runner stops."""


def calls_left_behind() -> bool:
    """Whether a call is still under way for which nobody waits any more.

    Then the process must be left without the interpreter's own farewell: that ends such a thread
    as soon as it comes back from its library, in the middle of C++ code that is not made for it,
    and the process aborts.
    """
    return any(thread.is_alive() for thread in _left)


class Helper:
    """Runs one call at a time on a daemon thread, and waits for each only so long.

    Args:
        name: of the thread.
        stop: waiting ends when this is set.
    """

    def __init__(self, name: str, stop: threading.Event) -> None:
        self._stop = stop
        self._state = threading.Condition()
        self._task: Callable[[], Any] | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._late: Callable[[Any | None], None] | None = None
        self._retired = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(
        self, task: Callable[[], T], timeout: float, late: Callable[[T | None], None] | None = None
    ) -> T:
        """The task's result, or its exception.

        Args:
            task: what to call.
            timeout: seconds to wait.
            late: called on the thread left behind should the task end after all, with its result
                or with ``None`` where it failed: to close what it opened.

        Raises:
            StalledError: it did not return in time.
            StoppedError: ``stop`` was set meanwhile.
        """
        deadline = perf_counter() + timeout
        stopping = False
        with self._state:
            if self._retired:
                raise StalledError
            self._task, self._late, self._outcome = task, late, None
            self._state.notify_all()
            while self._outcome is None:
                now = perf_counter()
                if not stopping and self._stop.is_set():
                    stopping, deadline = True, min(deadline, now + _GRACE)
                if now >= deadline:
                    self._retired = True
                    # A source that stalls for months must not fill it with what came back since.
                    _left[:] = [*(thread for thread in _left if thread.is_alive()), self._thread]
                    raise StoppedError if stopping else StalledError
                self._state.wait(min(deadline - now, _TICK))
            result, error = self._outcome
            self._outcome = self._late = None
        if error is None:
            found: T = result
            return found
        try:
            raise error
        finally:
            # Its traceback holds this frame: a cycle that would keep the reader's memory for long.
            del error

    @property
    def usable(self) -> bool:
        """Whether no call has been left behind on it."""
        return not self._retired

    def retire(self) -> None:
        """Let the thread end. Safe to call twice."""
        with self._state:
            self._retired = True
            self._state.notify_all()

    def _work(self) -> None:
        while True:
            with self._state:
                while self._task is None:
                    if self._retired:
                        return
                    self._state.wait()
                task, self._task = self._task, None
            result, error = None, None
            try:
                result = task()
            except BaseException as raised:  # carried to the caller's thread, whatever it is
                error = raised
            with self._state:
                if not self._retired:
                    self._outcome = (result, error)
                    self._state.notify_all()
                    del task, result, error
                    continue
            if self._late is not None:
                self._late(result)
            return
