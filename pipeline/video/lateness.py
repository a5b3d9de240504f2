"""How far a live stream lies behind its own clock, and which of its pictures are then left out.

A picture with timestamp t is there at wall time w = t + o + d: o, the offset of the two clocks, is
the same for all; d >= 0 is what held this one up, in the network, in a socket's buffer, in the
decoder. The least w - t is the best estimate of o, and the lag is what lies above it (a minimum
filter, as NTP's clock filter of RFC 5905, section 10, on a path one way).

Where the reader had to wait for a picture, nothing is piled up here: leaving pictures out would not
make the next one come sooner, so none is, however late; but its age is told as it is. Where it had
not, there is a backlog, and the way out of it is to do less with each picture.

The least is that of the last seconds in which the reader waited. A source may stop its clock for a
pause, or run it faster than its pictures come; a way that is longer from now on looks the same, and
what has been so for long is how the stream is. While nobody waits the least stays, however long
that lasts: what grows then is a backlog.

What this cannot see is a backlog in front of a clock that always runs fast, where decoding is
slower than the stream by less than that. That nobody waits is no proof of one: a stream of 60
pictures a second that takes 12 ms each leaves 4 ms to wait, and is healthy.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final, Protocol, runtime_checkable

_LATE: Final = 0.3
"""Seconds of lag from which a backlog is run through: pictures are decoded, not converted."""

_HOPELESS: Final = 1.0
"""Seconds of lag that running through cannot mend, if it lasts for ``_PATIENCE`` seconds."""

_PATIENCE: Final = 1.0

SHOW_EVERY: Final = 0.5
"""Seconds after which even a late picture is better than the one before it."""

WAITED: Final = 0.005
"""Seconds of waiting for the source that are no mere change of threads."""

_WINDOW: Final = 10.0
"""Seconds of waiting for pictures after which a least offset is no longer the source's."""

_ONE_WAIT: Final = 0.5
"""Seconds that waiting for one picture counts at most: what was held up for long tells, once it
comes, that it is late only if the offset from before is still known."""

_GRAIN: Final = 0.1
"""Seconds of waiting within which one offset, the least, is remembered. Bounds the memory."""

SET_BACK: Final = 0.2
"""Seconds back by which a source's clock was set, rather than pictures exchanged. Those of a stream
or file that is only a few pictures long and begins anew go back by no more than that."""

_SET_FORWARD: Final = 1.0
"""Seconds by which one picture is earlier than the earliest before it, so that the clock was set
forward. Not on the way to a keyframe, which may be as far ahead."""


class Haste(IntEnum):
    """What a reader may leave out, for the pictures to be there sooner."""

    NONE = 0
    """Nothing."""
    UNREFERENCED = 1
    """What no other picture is decoded from."""
    TO_KEYFRAME = 2
    """Everything up to the next picture that is decoded on its own."""


@runtime_checkable
class Hurried(Protocol):
    """A reader that can leave out pictures before it decodes them.

    Attributes:
        haste: set before each ``grab`` by whoever reads. On the way to a keyframe ``grab`` may
            give a head of height 0: there is no picture yet, but the source is well.
    """

    haste: Haste

    @property
    def left_out(self) -> int:
        """Pictures left out undecoded, so far."""


class Lateness:
    """One opening of a live source: begin anew where it is opened anew.

    Attributes:
        lag: seconds the newest picture lies behind.
        haste: what the reader shall leave out before the next one.
    """

    def __init__(self) -> None:
        self.lag = 0.0
        self.haste = Haste.NONE
        self._waited = 0.0
        self._least: deque[tuple[float, float]] = deque()
        """(seconds waited in all, offset), both rising: the least of what lies in the window."""
        self._seen_at = 0.0
        self._timestamp = 0.0
        self._hopeless_since: float | None = None
        self._wanted_at = float("-inf")

    def see(self, now: float, timestamp: float, waited: float) -> bool:
        """Take note of a picture; whether it is wanted, or too late to be shown.

        Args:
            now: ``perf_counter()`` when it was there, in seconds.
            timestamp: by the stream's clock, in seconds.
            waited: the longest the reader had to wait for the source to send, in seconds.
        """
        backlog = waited < WAITED
        offset = now - timestamp
        if self._was_set(timestamp, offset):
            self._least.clear()
            if backlog:  # which a clock that is set does not take away
                self._least.append((self._waited, offset - self.lag))
        elif self._least and not backlog:
            self._waited += min(now - self._seen_at, _ONE_WAIT)
        self._seen_at, self._timestamp = now, timestamp
        self.lag = offset - self._least_with(offset)
        self.haste = self._judge(now) if backlog else self._no_haste()
        if self.haste and now - self._wanted_at < SHOW_EVERY:
            return False
        self._wanted_at = now
        return True

    def _was_set(self, timestamp: float, offset: float) -> bool:
        """Whether the source's clock was, since the picture before."""
        if timestamp < self._timestamp - SET_BACK:
            return True
        known = self._least and self.haste is not Haste.TO_KEYFRAME
        return bool(known) and offset < self._least[0][1] - _SET_FORWARD

    def _least_with(self, offset: float) -> float:
        """The least offset of the window, with one more: a minimum that slides."""
        least, waited = self._least, self._waited
        while least and least[-1][1] >= offset:
            least.pop()
        if not least or waited - least[-1][0] >= _GRAIN:
            least.append((waited, offset))
        while least[0][0] < waited - _WINDOW:
            least.popleft()
        return least[0][1]

    def _judge(self, now: float) -> Haste:
        if self.lag <= _LATE:
            return self._no_haste()
        if self.haste is Haste.TO_KEYFRAME:
            return self.haste  # until it is mended, or it would only just be kept bearable
        if self.lag <= _HOPELESS:
            self._hopeless_since = None
            return Haste.UNREFERENCED
        since = self._hopeless_since = now if self._hopeless_since is None else self._hopeless_since
        return Haste.TO_KEYFRAME if now - since >= _PATIENCE else Haste.UNREFERENCED

    def _no_haste(self) -> Haste:
        self._hopeless_since = None
        return Haste.NONE
