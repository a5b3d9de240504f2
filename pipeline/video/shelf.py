"""A source's frames that are ready to be segmented, and the buffers that all of its frames use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from pipeline.video.frames import Job, JobPool, Region
from pipeline.video.metrics import StreamStats

_TICK = 0.1

_AHEAD = 1
"""Frames of a file kept ready for the engine; one more is being decoded meanwhile."""

Setup: TypeAlias = Callable[[int, int], tuple[int, Region | None]]
"""For frames of (height, width): how many jobs to make, and the region to segment.

The number of jobs is what bounds everything: how far a file is decoded ahead, and the memory.
"""


class Shelf:
    """Between the thread that decodes a source and the one that feeds the engine.

    Args:
        setup: asked for each new frame size.
        finished: whether no more frames are wanted.
        wake: called whenever a frame is ready.
        stats: frames that made room for newer ones are counted here.

    Attributes:
        live: whether the newest frame counts; where not, every frame does, and decoding waits.
    """

    def __init__(
        self,
        setup: Setup,
        finished: Callable[[], bool],
        wake: Callable[[], None],
        stats: StreamStats,
    ) -> None:
        self.live = False
        self._setup = setup
        self._finished = finished
        self._wake = wake
        self._stats = stats
        self._pool = JobPool()
        self._ready: deque[Job] = deque()
        self._lock = threading.Condition()

    def take(self) -> Job | None:
        """The frame to segment next, if there is one: the newest of a live source."""
        with self._lock:
            if not self._ready:
                return None
            self._lock.notify_all()
            return self._ready.popleft()

    def give(self, job: Job) -> None:
        """Put back a job whose frame is done with."""
        self._pool.give(job)

    @property
    def waiting(self) -> tuple[int, int] | None:
        """(H, W) of what ``take`` would give to segment; ``None`` where there is nothing."""
        with self._lock:
            if not self._ready:
                return None
            height, width = self._ready[0].labelled.shape
            return height, width

    def borrow(self, size: tuple[int, int]) -> Job | None:
        """A job for a frame of (H, W), to be filled and then published or given back.

        Waits where every frame counts; of a live source the oldest that is ready makes room.
        ``None`` where no more frames are wanted, or where all are under way: this one is then the
        frame that is left out, and counted.
        """
        if self._pool.size != size:
            count, region = self._setup(*size)
            self._pool.resize(*size, count, region)
        if not self.live:
            self._wait_for_room()
        job = self._pool.take()
        if job is not None:
            return job
        if not self.live:
            while job is None and not self._finished():
                job = self._pool.take(_TICK)
            return job
        with self._lock:
            job = self._ready.popleft() if self._ready else None
        self._stats.count_replaced()
        return job if job is not None and job.size == size else None

    def publish(self, job: Job) -> None:
        """A borrowed job holds its frame now: it is ready, in the place of older ones if live."""
        with self._lock:
            stale = list(self._ready) if self.live else []
            if stale:
                self._ready.clear()
            self._ready.append(job)
        for old in stale:
            self._stats.count_replaced()
            self._pool.give(old)
        self._wake()

    def _wait_for_room(self) -> None:
        """Until few enough frames of a file are ready: those decoded earlier only grow older."""
        with self._lock:
            while len(self._ready) >= _AHEAD and not self._finished():
                self._lock.wait(_TICK)
