"""A source kept open: its frames, decoded ahead, as jobs for the runner to take.

A live source gives its newest frame; what nobody took in time is replaced and counted. A file
gives every frame, and waits. Either is opened and read under hard timeouts. A live source that is
lost is opened again, with exponentially growing pauses and jitter, until it is there or the
runner stops; a file that is lost is an error.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TypeVar

from pipeline.errors import SourceError
from pipeline.video.frames import Job, new_job
from pipeline.video.lateness import SET_BACK, WAITED, Hurried, Lateness
from pipeline.video.metrics import StreamStats
from pipeline.video.patience import Helper, StalledError, StoppedError
from pipeline.video.shelf import Setup, Shelf
from pipeline.video.source import Head, Reader, SourceOptions, SourceSpec, open_reader

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE, _JITTER = 0.25, 8.0, 0.25
"""Seconds between attempts to reach a lost source: 0.25, 0.5, 1 ... 8, plus up to 0.25."""

_SLACK = 0.5
"""Seconds a library's own timeout is given before the call is left behind."""

_TICK = 0.1
_TELL_EVERY = 10.0
"""Seconds between two notices of a source's loss."""


class Feed:
    """One source, read on threads of its own.

    Args:
        spec: the source.
        options: how to read it.
        setup: asked for each new frame size.
        stop: ends everything.
        wake: called whenever a job is ready or the feed has ended.
        stats: what happened is counted here.
        notify: given a line for a person when a live source is lost, and when it is back.
        skip: frames left out between two that are taken.
        opener: opens the reader; replaced in tests.
    """

    def __init__(
        self,
        spec: SourceSpec,
        options: SourceOptions,
        *,
        setup: Setup,
        stop: threading.Event,
        wake: Callable[[], None],
        stats: StreamStats,
        notify: Callable[[str], None] = lambda _line: None,
        skip: int = 0,
        opener: Callable[[SourceSpec, SourceOptions], Reader] = open_reader,
    ) -> None:
        self.spec = spec
        self.stats = stats
        self.rate: float | None = None
        self._options = options
        self._stop = stop
        self._wake = wake
        self._notify = notify
        self._skip = skip
        self._opener = opener
        self._enough = threading.Event()
        self._shelf = Shelf(setup, self._finished, wake, stats)
        self._shelf.live = options.realtime or spec.kind == "camera"
        self._ended = False
        self._paced = False
        self._told = False
        self._told_at = -math.inf
        self._count = 0
        self._offset = 0.0
        self._last = 0.0
        self._errors_before = 0
        self._barren = 0
        self._clock: tuple[float, float] | None = None

    # -- the runner's side -------------------------------------------------------------------

    def run(self) -> None:
        """Open the source and read until its end, until enough, or until the runner stops. Blocks.

        Raises:
            SourceError: it does not open in time or is no video, a file was lost, a source had no
                frame at all, or a live one was away for longer than it may be.
        """
        try:
            reader: Reader | None = self._first()
            while reader is not None:
                reader = self._session(reader)
        except StoppedError:
            pass
        finally:
            self._ended = True
            self.stats.quiet_after = math.inf
            self._wake()
        if not self.stats.captured and not self._finished():
            bad = self.stats.decode_errors
            which = f"no frame that decodes ({bad} did not)" if bad else "no frame"
            raise SourceError(f"'{self.spec.name}' holds {which}")

    def take(self) -> Job | None:
        """The frame to segment next, if there is one: the newest of a live source."""
        return self._shelf.take()

    def give(self, job: Job) -> None:
        """Put back a job whose frame is done with."""
        self._shelf.give(job)

    def finish(self) -> None:
        """No more frames are wanted. Those that are ready stay ready."""
        self._enough.set()

    @property
    def waiting(self) -> tuple[int, int] | None:
        """(H, W) of what ``take`` would give to segment; ``None`` where there is nothing."""
        return self._shelf.waiting

    @property
    def live(self) -> bool:
        """Whether the newest frame counts; known for sure once the source is open."""
        return self._shelf.live

    @property
    def exhausted(self) -> bool:
        """Whether no frame is ready and none will come."""
        return self._ended and self.waiting is None

    # -- opening, losing, finding again ------------------------------------------------------

    def _session(self, reader: Reader) -> Reader | None:
        """Read one opening of the source to its end; the next opening, or ``None``."""
        helper = self._new_helper()
        reason = "it ended"
        before = self.stats.captured
        try:
            self._read(helper, reader)
        except SourceError as error:
            if not self._finished() and not self._comes_back:
                raise
            # Not the error: its traceback would hold the reader.
            reason = str(error).removeprefix(f"'{self.spec.name}': ")
        finally:
            self._close(helper, reader)
        if self._finished():
            return None
        if self._comes_back:
            self._barren = 0 if self.stats.captured > before else min(self._barren + 1, 16)
            return self._reopen(reason)
        if self._options.loop and self.stats.captured > before:
            self._offset = self._last + (1 / self.rate if self.rate else 0.04)
            self._clock = None
            return self._first()
        return None

    def _first(self) -> Reader:
        """The source, opened in one attempt: where it cannot be, someone has to know."""
        reader = self._attempt()
        self._paced = self._options.realtime and not reader.live
        self._shelf.live = self._paced or reader.live
        self.rate = reader.rate
        return reader

    @property
    def _comes_back(self) -> bool:
        """Whether the source is worth waiting for: live, and it was there once."""
        return self.live and not self._paced and self.stats.captured > 0

    def _reopen(self, reason: str) -> Reader | None:
        """Open a lost live source, however long it takes."""
        from tenacity import (  # imports asyncio, and most runs never lose their source
            Retrying,
            retry_if_exception_type,
            stop_after_delay,
            stop_never,
            wait_exponential,
            wait_random,
        )

        self._tell_of_loss(reason)
        give_up = self._options.give_up
        retrying = Retrying(
            retry=retry_if_exception_type(SourceError),
            wait=wait_exponential(_FIRST_PAUSE, _LONGEST_PAUSE) + wait_random(0, _JITTER),
            stop=stop_never if give_up is None else stop_after_delay(give_up),
            sleep=self._pause,
            reraise=True,
        )
        # A source that opens and gives nothing again and again is as good as one that does not.
        self._pause(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._barren))
        try:
            reader: Reader = retrying(self._attempt)
        except SourceError as error:
            raise SourceError(
                f"'{self.spec.name}' was lost ({reason}) and has not come back within "
                f"{give_up:g} s: {error}"
            ) from error
        self.stats.reconnects += 1
        self._offset = perf_counter() - self.stats.first_at
        return reader

    def _tell_of_loss(self, reason: str) -> None:
        now = perf_counter()
        if self.stats.away_since is None:
            self.stats.away_since = self.stats.arrived_at
            # One that comes and goes the whole time is told of now and then, with its return.
            self._told = now - self._told_at >= _TELL_EVERY
            if self._told:
                self._told_at = now
                self._notify(f"'{self.spec.name}' lost: {reason}; trying again")

    def _attempt(self) -> Reader:
        helper = self._new_helper()
        try:
            return self._open(helper)
        finally:
            helper.retire()

    def _open(self, helper: Helper) -> Reader:
        limit = self._options.open_timeout
        try:
            return helper.call(
                lambda: self._opener(self.spec, self._options),
                limit + _SLACK,
                late=lambda reader: reader.close() if reader is not None else None,
            )
        except StalledError as error:
            raise SourceError(f"'{self.spec.name}' did not open within {limit:g} s") from error

    def _close(self, helper: Helper, reader: Reader) -> None:
        self.stats.decode_errors = self._errors_before + reader.decode_errors
        self._errors_before = self.stats.decode_errors
        self.stats.truncated = self.stats.truncated or reader.truncated
        if helper.usable:
            try:
                helper.call(reader.close, _SLACK)
            except (StalledError, StoppedError):
                return  # it is closed by the thread left behind
            helper.retire()

    def _pause(self, seconds: float) -> None:
        """Sleep, unless no more frames are wanted; raises ``StoppedError`` then."""
        until = perf_counter() + seconds
        while not self._finished():
            left = until - perf_counter()
            if left <= 0:
                return
            self._stop.wait(min(left, _TICK))
        raise StoppedError

    def _new_helper(self) -> Helper:
        return Helper(f"read {self.spec.name}", self._stop)

    def _finished(self) -> bool:
        return self._stop.is_set() or self._enough.is_set()

    # -- reading -----------------------------------------------------------------------------

    def _read(self, helper: Helper, reader: Reader) -> None:
        lateness = Lateness()
        hurried = reader if isinstance(reader, Hurried) else None
        while not self._finished():
            if hurried is not None:
                hurried.haste = lateness.haste
                before = hurried.left_out
            begin, damaged = perf_counter(), reader.decode_errors
            head = self._call(helper, reader.grab, reader)
            self.stats.decode_errors = self._errors_before + reader.decode_errors
            # They have numbers too: what comes after them is labelled as the source counts.
            self._count += reader.decode_errors - damaged
            if head is None:
                return
            decoding = perf_counter() - begin
            if hurried is not None:
                self._leave_out(hurried.left_out - before)
            if not head.height:
                continue
            now, waited = self._arrived(head)
            index, self._count = self._count, self._count + 1
            self._last = self._offset + head.timestamp
            if self.live and not lateness.see(now, head.timestamp, waited):
                self.stats.count_late()
                continue
            if index % (self._skip + 1):
                self.stats.skipped += 1
                continue
            job = self._shelf.borrow((head.height, head.width))
            if job is None:
                continue
            begin = perf_counter()
            try:
                self._call(helper, partial(reader.retrieve, job.bgr), reader)
            except BaseException:
                # A call that was left behind may still write into these buffers one day.
                self._shelf.give(job if helper.usable else new_job(*job.size, job.region))
                raise
            job.index, job.timestamp = index, self._last
            job.decoded_at, job.captured_at = now, now - lateness.lag
            self.stats.stages["capture"].add(decoding + perf_counter() - begin)
            self._shelf.publish(job)

    def _leave_out(self, frames: int) -> None:
        """Count frames that the reader left out before it decoded them."""
        if frames:
            self._count += frames
            self.stats.captured += frames
            self.stats.count_late(frames)

    def _call(self, helper: Helper, task: Callable[[], T], reader: Reader) -> T:
        limit = self._options.read_timeout
        try:
            return helper.call(task, limit + _SLACK, late=lambda _result: reader.close())
        except StalledError as error:
            raise SourceError(f"'{self.spec.name}': nothing came for {limit:g} s") from error

    def _arrived(self, head: Head) -> tuple[float, float]:
        """When the frame came (paced: when its time has), and how long it was waited for."""
        now, waited = perf_counter(), head.waited
        if self._paced:
            waited = 0.0
            if head.timestamp < self._last - self._offset - SET_BACK:
                # Or all would be overdue until it is where it was; so nothing is piled up.
                self._clock, waited = None, WAITED
            began, first = self._clock = self._clock or (now, head.timestamp)
            due = began + head.timestamp - first
            if due > now:
                self._pause(due - now)
                waited, now = due - now, perf_counter()
        stats = self.stats
        if stats.captured == 0:
            stats.first_at = now
        stats.captured += 1
        if self.live and not self._paced:
            if self._told and stats.away_since is not None:
                self._told = False
                self._notify(f"'{self.spec.name}' is back after {now - stats.away_since:.1f} s")
            stats.count_arrival(now, self.rate)
        return now, waited
