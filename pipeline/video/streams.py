"""One stream of the runner: its parts, and when its next frame may go into the engine."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from pipeline.video.feed import Feed
from pipeline.video.frames import Job
from pipeline.video.lateness import SHOW_EVERY
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
    max_latency: float = math.inf
    """Seconds a live frame may be old."""
    put_at: float = -math.inf
    """When a labelled frame last went to the outlet."""
    put_late: bool = False
    """Whether that one was older than it may be."""
    told_late: bool = False

    def wants(self, job: Job, now: float) -> bool:
        """Whether a frame is to go on: a live one that is too old is not.

        Where all are too old, as on a way that takes longer than they may, one every
        ``SHOW_EVERY`` seconds is: a black screen would tell less.
        """
        return not self._late(job, now) or now - self.put_at >= SHOW_EVERY

    def put(self, job: Job) -> str | None:
        """Hand a labelled frame to the outlet; a line for a person, once, where all are late."""
        self.put_at, before = job.done_at, self.put_late
        self.put_late = self._late(job, job.done_at)
        self.outlet.put(job, newest=self.feed.live)
        if self.told_late or not (before and self.put_late):
            return None
        self.told_late = True
        return (
            f"'{self.stats.source}': every frame is older than --max-latency allows; one every "
            f"{SHOW_EVERY:g} s is shown all the same"
        )

    def _late(self, job: Job, now: float) -> bool:
        return self.feed.live and now - job.captured_at > self.max_latency

    def has_room(self, lanes: int, now: float) -> bool:
        """Whether one more frame may be segmented, as far as the sinks are concerned.

        Args:
            lanes: frames of its size the engine takes at once.
            now: ``perf_counter()``.
        """
        if self.feed.live:
            # One that is in the engine is as new as any, and will take the place of what waits.
            due = not self.flying and self.outlet.held_up(now) >= _REFRESH
            return not self.outlet.waiting or due
        return self.flying + self.outlet.waiting < lanes + _QUEUED
