"""One stream's end of the pipeline: draw the frame, hand it to the sinks, account for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import cv2

from pipeline.errors import SinkError
from pipeline.video.draw import Painter
from pipeline.video.frames import Job
from pipeline.video.metrics import StreamStats
from pipeline.video.sinks.base import Shown, Sink

_TICK = 0.1

_STALE_EVERY = 0.5
"""Seconds between two showings of a stale picture."""


@dataclass
class Controls:
    """What a person at a window asks for. Any thread may call these.

    Attributes:
        stop: set to end the run properly.
        paused: while set, no new frame is taken.
        snapshots: where ``save`` puts its pictures.
        notices: lines for the person, such as that a source is lost; taken by whoever prints. The
            newest hundred, as nobody may.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    paused: threading.Event = field(default_factory=threading.Event)
    snapshots: Path = field(default_factory=Path)
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=100))
    _wanted: set[str] = field(default_factory=set)

    def pause_or_go_on(self) -> None:
        """Pause, or end the pause."""
        if self.paused.is_set():
            self.paused.clear()
        else:
            self.paused.set()

    def save(self, stream: str) -> None:
        """Have the stream's next frame saved as pictures."""
        self._wanted.add(stream)

    def take_wish(self, stream: str) -> bool:
        """Whether the stream's frame shall be saved now; asks once."""
        if stream in self._wanted:
            self._wanted.discard(stream)
            return True
        return False


class Outlet:
    """Draws and writes one stream's frames, in order, on one thread.

    Args:
        sinks: where the frames go.
        painter: draws them; used only if a sink wants to see something.
        stats: what happened is counted here.
        controls: wishes of a person.
        give: takes a job back whose frame is done with.
        wake: called whenever there is room for another frame.
        abort: set when the run has failed: leave at once.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        painter: Painter,
        stats: StreamStats,
        controls: Controls,
        give: Callable[[Job], None],
        wake: Callable[[], None],
        abort: threading.Event,
    ) -> None:
        self._sinks = list(sinks)
        self._painter = painter
        self._stats = stats
        self._controls = controls
        self._give = give
        self._wake = wake
        self._abort = abort
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._broken: Sink | None = None
        self._stale_at = 0.0
        self.saved: list[str] = []
        self.outputs: list[str] = []

    def add(self, sink: Sink) -> None:
        """One more sink, before the run."""
        self._sinks.append(sink)

    @property
    def waiting(self) -> int:
        """Labelled frames that wait for the sinks. How many may is for the caller to bound."""
        return len(self._queue)

    def held_up(self, now: float) -> float:
        """Seconds the first labelled frame has waited for the sinks; 0 where there is none."""
        with self._changed:
            return now - self._queue[0].done_at if self._queue else 0.0

    def put(self, job: Job, *, newest: bool) -> None:
        """Queue a labelled frame. Never waits: one slow sink must not hold up other streams.

        Args:
            job: the frame.
            newest: it takes the place of any that waits; that one is given back and counted.
        """
        with self._changed:
            old = self._queue.popleft() if newest and self._queue else None
            self._queue.append(job)
            self._changed.notify_all()
        if old is not None:
            self._stats.count_replaced()
            self._give(old)

    def end(self) -> None:
        """No more frames will come: ``run`` ends when those that wait are shown."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def run(self) -> None:
        """Show frames until the end. Blocks.

        Raises:
            SinkError: a sink cannot go on.
        """
        while not self._abort.is_set():
            with self._changed:
                if not self._queue and not self._ended:
                    self._changed.wait(_TICK)
                job = self._queue.popleft() if self._queue else None
                if job is None and self._ended:
                    return
            if job is None:
                self._maybe_stale()
                continue
            self._wake()
            self._show(job)

    def close(self) -> SinkError | None:
        """Finish every sink; the first error of one, the others being finished all the same."""
        first: SinkError | None = None
        for sink in self._sinks:
            try:
                if sink is self._broken:
                    sink.discard()
                    continue
                made = sink.close()
            except SinkError as error:
                first = first or error
                continue
            if made is not None:
                self.outputs.append(made)
        return first

    def _show(self, job: Job) -> None:
        begin = perf_counter()
        stages = self._stats.stages
        job.timings["queue"] = begin - job.done_at
        frame, segmentation = job.frame(), job.segmentation()
        save = self._controls.take_wish(self._stats.source)
        canvas = None
        if save or any(sink.needs_canvas for sink in self._sinks):
            canvas = self._painter.paint(frame, segmentation, self._stats, job.region)
            stages["draw"].add(perf_counter() - begin)
        drawn = perf_counter()
        shown = Shown(frame, segmentation, canvas, self._stats)
        if save:
            self._save(shown)
        for sink in self._sinks:
            try:
                sink.write(shown)
            except SinkError:
                self._broken = sink
                raise
        now = perf_counter()
        stages["sinks"].add(now - drawn)
        for stage, seconds in job.timings.items():
            stages[stage].add(seconds)
        self._stats.count_shown(job.captured_at, now)
        self._give(job)

    def _maybe_stale(self) -> None:
        """While the stream is away or silent, show its last picture again, marked."""
        now = perf_counter()
        away = self._stats.away_for(now)
        if not away or not self._stats.shown or now - self._stale_at < _STALE_EVERY:
            return
        if any(sink.needs_canvas for sink in self._sinks):
            self._stale_at = now
            canvas = self._painter.mark_stale(away)
            if not canvas.size:
                return
            for sink in self._sinks:
                if sink.needs_canvas:
                    sink.stale(canvas)

    def _save(self, shown: Shown) -> None:
        name = "".join(c if c.isalnum() else "-" for c in self._stats.source).strip("-")
        stem = self._controls.snapshots / f"{name}-{shown.frame.index:06d}"
        pictures = {"frame": shown.frame.bgr, "overlay": shown.canvas}
        for kind, picture in pictures.items():
            path = f"{stem}-{kind}.png"
            try:
                saved = picture is not None and cv2.imwrite(path, picture)
            except cv2.error:
                saved = False
            if saved:
                self.saved.append(path)
