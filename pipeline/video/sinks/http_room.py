"""The places for connections, and who gives up one where all are taken.

Whoever only connects costs a file and a thread until the deadline for requests; enough of them
would keep everyone else out. A viewer asks as soon as it is connected, so a place that is needed is
taken from whoever has had one for longest without asking for anything.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from time import perf_counter

_LEAVING = 1.0
"""Seconds the thread of a connection that is ended may take to notice: it waits for nothing else,
unless its request came at that very moment."""


class Room:
    """So many places. Safe for several threads at once.

    Args:
        most: connections at once.
    """

    def __init__(self, most: int) -> None:
        self._places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: dict[socket.socket, tuple[bool, float]] = {}
        """Connections that are to ask: whether they have before, and since when."""

    def enter(self, connection: socket.socket) -> bool:
        """A place for a new connection; whether there is one. Blocks for a second at most."""
        if not self._places.acquire(blocking=False) and not (
            self._send_away() and self._places.acquire(timeout=_LEAVING)
        ):
            return False
        self.idle(connection, asked=False)
        return True

    def leave(self, connection: socket.socket) -> None:
        """Give its place back. Once for each that entered."""
        self.busy(connection)
        self._places.release()

    def idle(self, connection: socket.socket, *, asked: bool) -> None:
        """It is to ask for something now; one that has yet to, since it entered."""
        with self._lock:
            if asked or connection not in self._idle:
                self._idle[connection] = asked, perf_counter()

    def busy(self, connection: socket.socket) -> None:
        """It has asked, and is being answered."""
        with self._lock:
            self._idle.pop(connection, None)

    def _send_away(self) -> bool:
        """End the connection that asks least; whether there is one.

        What it has sent is still read and answered: only nothing more will come.
        """
        with self._lock:
            if not self._idle:
                return False
            connection = min(self._idle, key=self._idle.__getitem__)
            del self._idle[connection]
            with contextlib.suppress(OSError):  # it has just ended by itself
                connection.shutdown(socket.SHUT_RD)
        return True
