"""Where a file's frames stand in time: the source's own clock, as far as a file can follow it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from pipeline.video.lateness import SET_BACK

CLOCK: Final = Fraction(1, 90_000)
"""The tick of the written timestamps, in seconds: MPEG's own, exact for every usual frame rate."""

_DAY: Final = 24 * 3600 * CLOCK.denominator

LONGEST_GAP: Final = 30 * _DAY
"""Ticks from a frame to the next at most. No camera is away for longer and then goes on; what leaps
so far is a clock that was set, or a damaged file's, whose times may be beyond any format's."""

_SET_BACK: Final = round(SET_BACK / CLOCK)
"""A clock that is set back by more ticks than this, and by more than two frames, is not waited
for."""

_LONGEST_STEP: Final = CLOCK.denominator
"""Ticks between two frames beyond which there is a gap and no pace."""

_USUAL_STEP: Final = CLOCK.denominator // 25


class Timeline:
    """Turns one stream's timestamps into ticks that rise from frame to frame.

    Args:
        tell: takes a line for the person when a gap is cut short: the first one.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = False
        self._shift = 0
        self._step = _USUAL_STEP
        self.last = -1
        """The newest frame's tick; -1 before the first."""

    def place(self, timestamp: float) -> int:
        """The tick of the next frame, at least one after the last.

        Args:
            timestamp: by the source's clock, in seconds; finite.
        """
        at = round(timestamp / CLOCK) + self._shift
        gap = at - self.last
        if gap > LONGEST_GAP:
            self._cut(gap)
            at = self.last + LONGEST_GAP
        elif gap < -max(_SET_BACK, 2 * self._step):
            # Else what comes until the clock is there again would play within a moment.
            self._shift += self._step - gap
            at = self.last + self._step
        elif 0 < gap <= _LONGEST_STEP:
            self._step = gap
        # Two frames may not share a time; a source's clock may stand still or step back.
        self.last = max(self.last + 1, at)
        return self.last

    def _cut(self, gap: int) -> None:
        self._shift -= gap - LONGEST_GAP
        if not self._told:
            self._told = True
            self._tell(
                f"the source's clock leaps ahead by {gap / _DAY:.0f} days; the file has "
                f"{LONGEST_GAP // _DAY} days there, and where it does so again"
            )
