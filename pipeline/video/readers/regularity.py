"""How many pictures a steady clock says there should have been."""

from __future__ import annotations

from typing import Final

HOLE: Final = 5
"""Frames missing in a row from an otherwise steady file that no recorder leaves out on purpose."""

_STEADY_SHARE: Final = 0.9
_TOLERANCE: Final = 0.1
"""Of a frame's time, beside the millisecond to which Matroska rounds."""


class Regularity:
    """Counts intervals between pictures in units of the stated frame rate.

    Args:
        rate: frames a second as the container states them; ``None`` when it does not.

    Attributes:
        longest: frames missing in the longest hole so far.
    """

    def __init__(self, rate: float | None) -> None:
        self._interval = 1 / rate if rate else None
        self._previous: float | None = None
        self._steady = 0
        self._intervals = 0
        self._missing = 0
        self.longest = 0

    def see(self, time: float) -> None:
        """One more picture, at ``time`` seconds."""
        previous, self._previous = self._previous, time
        if previous is None or self._interval is None:
            return
        step = (time - previous) / self._interval
        whole = round(step)
        self._intervals += 1
        if whole < 1 or abs(step - whole) > _TOLERANCE + 1e-3 / self._interval:
            return
        if whole == 1:
            self._steady += 1
        self._missing += whole - 1
        self.longest = max(self.longest, whole - 1)

    def expected(self) -> int | None:
        """Pictures from the first to the last on a full clock; ``None`` if it is no steady one."""
        if self._interval is None or self._steady < _STEADY_SHARE * max(self._intervals, 1):
            return None
        return self._intervals + 1 + self._missing
