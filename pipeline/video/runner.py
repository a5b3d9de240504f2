"""Capture, inference and output of one or more streams, overlapped, over one engine.

    feed (1 per source) --ready--> submit --flights--> collect --queue--> outlet (1 per source)

Every hand-over is bounded and every wait is timed, so no thread outlives its neighbours: the first
failure stops all, all are joined, and that failure is raised. Frames live in jobs made once per
stream (``frames.JobPool``); their number is what bounds how far anything runs ahead.

Streams take turns at the engine. Results are collected in the order frames were submitted, so
every stream keeps its order.

No stream waits for another's sinks: the collector never blocks. A file's frame is not submitted
before its outlet has room for it; a live one is, and takes the place of the one that waits there.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

import numpy as np

from pipeline.errors import EngineError, UsageError
from pipeline.inference import FrameSegmenter
from pipeline.video.draw import Painter
from pipeline.video.edges import edges_of
from pipeline.video.feed import Feed
from pipeline.video.frames import Job, Region
from pipeline.video.metrics import StreamStats
from pipeline.video.output import Controls, Outlet
from pipeline.video.roi import RegionSpec
from pipeline.video.sinks.base import Sink
from pipeline.video.source import Reader, SourceOptions, SourceSpec, check_frame_size, open_reader
from pipeline.video.streams import OUTSIDE_ENGINE, Stream

_TICK = 0.1
"""Longest time a thread waits without looking whether it shall stop, in seconds."""

_JOIN = 10.0
"""Seconds a thread may take to end before it is left behind."""

Opener: TypeAlias = Callable[[SourceSpec, SourceOptions], Reader]


@dataclass(frozen=True)
class RunnerOptions:
    """What is done with the frames.

    Attributes:
        max_frames: end a stream after so many; ``None`` for no end.
        max_latency: leave out frames of live sources older than this, in seconds; see
            ``Stream.wants``.
        skip: frames left out between two that are segmented.
        region: what part of a frame is segmented; ``None`` for all of it.
        patch: (height, width) of the network's patches in a tile, to draw their edges.
        engine_timeout: seconds one run of the engine may take.
    """

    max_frames: int | None = None
    max_latency: float | None = None
    skip: int = 0
    region: RegionSpec | None = None
    patch: tuple[int, int] | None = None
    engine_timeout: float = 60.0


class Runner:
    """Runs streams to their end.

    Args:
        segmenter: shared by all streams; its engine's slots are the runner's while it runs.
        slots: how many slots that engine has.
        source_options: how sources are read.
        options: what is done with the frames.
        controls: to stop and pause from outside.
        opener: opens the readers; replaced in tests.
    """

    def __init__(
        self,
        segmenter: FrameSegmenter,
        slots: int,
        *,
        source_options: SourceOptions | None = None,
        options: RunnerOptions | None = None,
        controls: Controls | None = None,
        opener: Opener = open_reader,
    ) -> None:
        self._segmenter = segmenter
        self._slots = slots
        self._source_options = source_options or SourceOptions()
        self._options = options or RunnerOptions()
        self.controls = controls or Controls()
        self._opener = opener
        self.streams: list[Stream] = []
        self._abort = threading.Event()
        self._work = threading.Condition()
        self._flights: deque[tuple[Stream, Job | None]] = deque()
        self._used = 0
        self._turn = 0
        self._submitting = True
        self._error: BaseException | None = None
        self._ran = False
        self._told: set[str] = set()

    def add(self, spec: SourceSpec, sinks: Sequence[Sink], painter: Painter) -> StreamStats:
        """Add a stream before the run; its statistics fill while it runs."""
        stats = StreamStats(spec.name)
        feed = Feed(
            spec,
            self._source_options,
            setup=lambda height, width: self._setup(spec.name, painter, height, width),
            stop=self.controls.stop,
            wake=self._wake,
            stats=stats,
            notify=self.controls.notices.append,
            skip=self._options.skip,
            opener=self._opener,
        )
        outlet = Outlet(sinks, painter, stats, self.controls, feed.give, self._wake, self._abort)
        limit = self._options.max_latency
        self.streams.append(
            Stream(feed, outlet, stats, max_latency=math.inf if limit is None else limit)
        )
        return stats

    def run(self, poll: Callable[[], None] | None = None) -> None:
        """Run every stream to its end, or until ``controls.stop``. Sinks are finished either way.

        Args:
            poll: called about ten times a second on this thread.

        Raises:
            UsageError: it has run before: its sources and sinks are used up.
            EdgeError: the first failure of any thread, after all of them have ended.
        """
        if self._ran:
            raise UsageError("a run cannot be repeated; make a new Session or Runner for each")
        self._ran = True
        threads = [
            self._thread("submit", self._submit),
            self._thread("collect", self._collect),
            *(self._thread(f"feed {s.stats.source}", s.feed.run) for s in self.streams),
        ]
        for stream in self.streams:
            stream.thread = self._thread(f"outlet {stream.stats.source}", stream.outlet.run)
            threads.append(stream.thread)
        for thread in threads:
            thread.start()
        try:
            while not self._abort.is_set():
                alive = next((thread for thread in threads if thread.is_alive()), None)
                if alive is None:
                    break
                alive.join(_TICK)
                if poll is not None:
                    poll()
        except BaseException as error:
            self._fail(error)
        finally:
            self._finish(threads)
        if self._error is not None:
            raise self._error

    # -- threads and failure -----------------------------------------------------------------

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # re-raised by run, on the caller's thread
                self._fail(error)

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _fail(self, error: BaseException) -> None:
        with self._work:
            self._error = self._error or error
            self._abort.set()
            self.controls.stop.set()
            self._work.notify_all()

    def _finish(self, threads: list[threading.Thread]) -> None:
        """Join everything, give the engine its slots back, and finish what the sinks hold."""
        deadline = perf_counter() + _JOIN
        for thread in threads:
            thread.join(max(0.0, deadline - perf_counter()))
        for _stream, job in self._flights:
            if job is not None and job.ticket is not None:
                self._segmenter.discard(job.ticket, timeout=1.0)
        self._flights.clear()
        for stream in self.streams:
            if stream.thread is not None and stream.thread.is_alive():
                continue  # its sinks are in use by a thread that does not answer
            error = stream.outlet.close()
            self._error = self._error or error

    def _wake(self) -> None:
        with self._work:
            self._work.notify_all()

    # -- frames into the engine --------------------------------------------------------------

    def _setup(
        self, name: str, painter: Painter, height: int, width: int
    ) -> tuple[int, Region | None]:
        """For frames of a new size: how many jobs, and the region; tells the painter of edges."""
        check_frame_size(name, height, width)
        spec = self._options.region
        region = spec.resolve(height, width) if spec is not None else None
        cut_off = spec.notice(height, width) if spec is not None else None
        if cut_off is not None and cut_off not in self._told:
            self._told.add(cut_off)  # pictures of several sizes may take turns
            self.controls.notices.append(cut_off)
        seen = (region.height, region.width) if region is not None else (height, width)
        if self._options.patch is not None:
            painter.show_edges(*edges_of(self._segmenter, seen, self._options.patch, region))
        return self._segmenter.lanes(*seen) + OUTSIDE_ENGINE, region

    def _submit(self) -> None:
        try:
            while not self._abort.is_set():
                with self._work:
                    stream = self._next_stream()
                    if stream is None:
                        if all(s.ended for s in self.streams):
                            return
                        self._work.wait(_TICK)
                        continue
                self._submit_one(stream)
        finally:
            with self._work:
                self._submitting = False
                self._work.notify_all()

    def _next_stream(self) -> Stream | None:
        """The stream whose turn it is, if its frame fits into the engine now. Under the lock."""
        now = perf_counter()
        for step in range(len(self.streams)):
            stream = self.streams[(self._turn + step) % len(self.streams)]
            if stream.ended:
                continue
            if self.controls.stop.is_set() or stream.accepted == self._options.max_frames:
                self._drain(stream)
            size = stream.feed.waiting
            if size is not None and not stream.has_room(self._segmenter.lanes(*size), now):
                continue
            if size is not None and not self.controls.paused.is_set():
                if self._used + self._slots_for(size) > self._slots:
                    return None  # it waits for its slots; nobody overtakes it
                self._turn = (self._turn + step + 1) % len(self.streams)
                return stream
            if stream.feed.exhausted:
                stream.ended = True
                self._flights.append((stream, None))
                self._work.notify_all()
        return None

    def _drain(self, stream: Stream) -> None:
        """Let go what is ready but no longer wanted."""
        stream.feed.finish()
        while (job := stream.feed.take()) is not None:
            stream.feed.give(job)

    def _slots_for(self, size: tuple[int, int]) -> int:
        return min(self._segmenter.batches(*size), self._slots)

    def _submit_one(self, stream: Stream) -> None:
        job = stream.feed.take()
        if job is None:
            return
        job.taken_at = perf_counter()
        if not stream.wants(job, job.taken_at):
            self._leave_out(stream, job)
            return
        if job.region is not None:
            np.copyto(job.picture, job.region.of(job.bgr))
        job.slots = self._slots_for((job.labelled.shape[0], job.labelled.shape[1]))
        job.ticket = self._segmenter.submit(job.picture)
        stream.accepted += 1
        with self._work:
            self._used += job.slots
            stream.flying += 1
            self._flights.append((stream, job))
            self._work.notify_all()

    def _leave_out(self, stream: Stream, job: Job) -> None:
        """Count a frame that is too old, and give it back."""
        stream.stats.count_late()
        stream.feed.give(job)

    # -- labels out of the engine ------------------------------------------------------------

    def _collect(self) -> None:
        while not self._abort.is_set():
            with self._work:
                if not self._flights:
                    if not self._submitting:
                        return
                    self._work.wait(_TICK)
                    continue
                stream, job = self._flights[0]
            slots = 0
            if job is None:
                stream.outlet.end()
            else:
                self._label(stream, job)
                slots = job.slots  # once put, it may come round with another frame
                if not stream.wants(job, job.done_at):
                    self._leave_out(stream, job)
                elif (line := stream.put(job)) is not None:
                    self.controls.notices.append(line)
            with self._work:
                self._flights.popleft()
                self._used -= slots
                stream.flying -= job is not None
                self._work.notify_all()

    def _label(self, stream: Stream, job: Job) -> None:
        ticket = job.ticket
        if ticket is None:
            raise EngineError(f"frame {job.index} of '{stream.stats.source}' was never submitted")
        limit = self._options.engine_timeout
        try:
            self._segmenter.finish(ticket, job.labelled, timeout=limit)
        except TimeoutError as error:
            raise EngineError(f"the engine did not answer within {limit:g} s") from error
        job.ticket = None
        if job.region is not None:
            job.region.of(job.labels)[...] = job.labelled
        job.done_at = perf_counter()
        timings = job.timings
        if stream.feed.live:
            timings["lag"] = job.decoded_at - job.captured_at
        timings["wait"] = job.taken_at - job.decoded_at
        timings["prepare"], timings["infer"] = ticket.prepare, ticket.infer
        timings["decode"] = ticket.decode
