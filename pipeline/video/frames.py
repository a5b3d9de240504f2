"""A frame, its labels, and the preallocated buffers both live in while they pass through."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.inference import Ticket

Pixels: TypeAlias = npt.NDArray[np.uint8]

UNLABELLED = 255
"""The label of a pixel outside the region of interest; no class, never painted."""


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        index: its number in the source, from 0; a gap where frames were dropped or skipped.
        captured_at: ``time.perf_counter()`` when it was decoded, in seconds; of a live source, when
            it would have been had nothing held it up, by the source's own clock.
        timestamp: the source's own clock, in seconds from its first frame.
        bgr: (H, W, 3) uint8. Belongs to the runner: copy what is to outlive the call.
    """

    index: int
    captured_at: float
    timestamp: float
    bgr: Pixels


@dataclass(frozen=True)
class Segmentation:
    """The labels of one frame.

    Attributes:
        index: the frame's.
        labels: (H, W) uint8 train ids; 255 outside the region of interest. Belongs to the runner.
        timings: seconds spent per stage: ``wait`` (captured, not yet taken), ``prepare``,
            ``infer``, ``decode``, ``queue`` (labelled, not yet shown); and, of a live source, how
            late it was decoded: ``lag``.
    """

    index: int
    labels: Pixels
    timings: Mapping[str, float]


@dataclass(frozen=True)
class Region:
    """A rectangle of a frame: what is segmented of it, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, picture: Pixels) -> Pixels:
        """The rectangle of an (H, W, ...) array, a view."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(eq=False)
class Job:
    """One frame's buffers and what is known of it on its way. Reused for frame after frame.

    ``picture`` and ``labelled`` are what the network sees and answers: ``bgr`` and ``labels``
    themselves, or buffers of the region's size.
    """

    bgr: Pixels
    labels: Pixels
    picture: Pixels
    labelled: Pixels
    region: Region | None
    index: int = 0
    captured_at: float = 0.0
    decoded_at: float = 0.0
    timestamp: float = 0.0
    ticket: Ticket | None = None
    slots: int = 0
    taken_at: float = 0.0
    done_at: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frame."""
        return self.bgr.shape[0], self.bgr.shape[1]

    def frame(self) -> Frame:
        """The frame, as sinks see it."""
        return Frame(self.index, self.captured_at, self.timestamp, self.bgr)

    def segmentation(self) -> Segmentation:
        """Its labels, as sinks see them."""
        return Segmentation(self.index, self.labels, self.timings)


def new_job(height: int, width: int, region: Region | None) -> Job:
    """Buffers for frames of one size."""
    bgr = np.empty((height, width, 3), np.uint8)
    labels = np.full((height, width), UNLABELLED, np.uint8)
    if region is None:
        return Job(bgr, labels, bgr, labels, None)
    picture = np.empty((region.height, region.width, 3), np.uint8)
    return Job(bgr, labels, picture, np.empty(picture.shape[:2], np.uint8), region)


class JobPool:
    """A fixed number of jobs of one frame size, made once and taken in turn.

    When the source changes its size, the pool is made anew; jobs of the old size that are still
    under way are let go when they come back.
    """

    def __init__(self) -> None:
        self._free: deque[Job] = deque()
        self._size = (0, 0)
        self._changed = threading.Condition()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) the pool's jobs have; (0, 0) before the first ``resize``."""
        return self._size

    def resize(self, height: int, width: int, count: int, region: Region | None) -> None:
        """Make ``count`` jobs for frames of this size; those of another size are let go."""
        jobs = [new_job(height, width, region) for _ in range(count)]
        with self._changed:
            self._size = (height, width)
            self._free = deque(jobs)
            self._changed.notify_all()

    def take(self, timeout: float = 0.0) -> Job | None:
        """A free job, waiting up to ``timeout`` seconds; ``None`` if there is none by then."""
        with self._changed:
            if not self._free:
                self._changed.wait(timeout)
            return self._free.popleft() if self._free else None

    def give(self, job: Job) -> None:
        """Put a job back."""
        with self._changed:
            if job.size == self._size:
                self._free.append(job)
                self._changed.notify()
