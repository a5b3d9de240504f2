"""One stream of the runner: its parts, and when its next frame may go into the engine."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline.video.feed import Feed
from pipeline.video.metrics import StreamStats
from pipeline.video.output import Outlet

_QUEUED = 2
"""Frames of a file that may wait for its sinks while the engine is full of others."""

OUTSIDE_ENGINE = _QUEUED + 3
"""Jobs of a stream beside those in the engine: being captured, ready, queued, being drawn."""

_REFRESH = 0.1
"""Seconds a labelled live frame may wait for its sinks before a newer one is segmented in its
place. At once would keep the engine busy with what nobody sees, at the cost of those slow sinks and
of the other streams; never would show frames as old as the sinks are slow."""


@dataclass
class Stream:
    """One source with everything that belongs to it. The runner makes these."""

    feed: Feed
    outlet: Outlet
    stats: StreamStats
    thread: threading.Thread | None = None
    """The outlet's."""
    accepted: int = 0
    flying: int = 0
    """Frames in the engine."""
    ended: bool = False

    def has_room(self, lanes: int, now: float) -> bool:
        """Whether one more frame may be segmented, as far as the sinks are concerned.

        Args:
            lanes: frames of its size the engine takes at once.
            now: ``perf_counter()``.
        """
        if self.feed.live:
            return not self.outlet.waiting or self.outlet.held_up(now) >= _REFRESH
        return self.flying + self.outlet.waiting < lanes + _QUEUED
