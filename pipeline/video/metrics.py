"""Counters and histograms whose memory does not grow with the length of a run."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter

STAGES = ("lag", "capture", "wait", "prepare", "infer", "decode", "queue", "draw", "sinks")
"""What a frame passes through, in order. See ``docs/video.md``."""

_LEAST, _MOST, _GROWTH = 1e-6, 1e4, 1.01
_BINS = math.ceil(math.log(_MOST / _LEAST) / math.log(_GROWTH)) + 1


_QUIET, _QUIET_FRAMES = 1.0, 5
"""A live source counts as away after a second without a frame, or after five frames' time if that
is longer: long before it counts as lost, since what is shown is already old."""


class Histogram:
    """Durations in bins that grow by 1 %, from 1 microsecond to 10,000 seconds.

    A quantile is exact to half a bin, 0.5 %. One thread adds; any may read.
    """

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0
        self.total = 0.0
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; what lies outside the range counts at its end."""
        bounded = min(max(seconds, _LEAST), _MOST)
        self._bins[int(math.log(bounded / _LEAST) / math.log(_GROWTH))] += 1
        self.count += 1
        self.total += seconds
        self.largest = max(self.largest, seconds)

    def merge(self, other: Histogram) -> None:
        """Add all that another has counted."""
        self._bins = [a + b for a, b in zip(self._bins, other._bins, strict=True)]
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    @property
    def mean(self) -> float:
        """The mean in seconds; NaN while nothing was added."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, share: float) -> float:
        """The duration that ``share`` of all do not exceed, in seconds; NaN while empty.

        The nearest-rank definition: the k-th smallest, k = ceil(share * count).
        """
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for index, number in enumerate(self._bins):
            seen += number
            if seen >= rank:
                middle: float = _LEAST * _GROWTH ** (index + 0.5)
                return min(middle, self.largest)
        return math.nan

    def cumulative(self, bounds: tuple[float, ...]) -> list[int]:
        """How many durations lie at or below each bound (ascending, seconds), to bin precision."""
        counts, seen, index = [], 0, 0
        for bound in bounds:
            while index < _BINS and _LEAST * _GROWTH**index < bound:
                seen += self._bins[index]
                index += 1
            counts.append(seen)
        return counts


class Rate:
    """Events a second over the last moments.

    Args:
        window: seconds looked back on.
        depth: most events remembered.
    """

    def __init__(self, window: float = 2.0, depth: int = 256) -> None:
        self._window = window
        self._times: deque[float] = deque(maxlen=depth)
        self._lock = threading.Lock()

    def tick(self, now: float | None = None) -> None:
        """Count one event."""
        with self._lock:
            self._times.append(perf_counter() if now is None else now)

    def value(self, now: float | None = None) -> float:
        """Events a second; 0 while fewer than two lie in the window."""
        now = perf_counter() if now is None else now
        with self._lock:
            while self._times and self._times[0] < now - self._window:
                self._times.popleft()
            if len(self._times) < 2:
                return 0.0
            steps = len(self._times) - 1
            span = self._times[-1] - self._times[0]
            # A stream that has stopped must not keep the rate it had.
            silent = now - self._times[-1]
            return steps / max(span + max(0.0, silent - span / steps), 1e-9)


@dataclass
class StreamStats:
    """What happened to one source's frames. Each field is written by one thread only.

    ``replaced`` and ``late`` alone are counted by several, through their methods.

    Attributes:
        source: its name, without credentials.
        captured: frames that came, be it that they were left out before they were decoded.
        shown: frames that went through everything.
        replaced: live frames left out because a newer one was there.
        late: live frames left out because they were too old: older than ``--max-latency``, or part
            of a backlog that was run through.
        skipped: frames left out on request (``--skip``).
        decode_errors: packets or pictures that did not decode.
        reconnects: times a live source came back.
        away_since: when a lost live source gave its last frame; ``None`` while it is not lost.
        arrived_at: when a live source gave its newest frame.
        quiet_after: seconds without a frame from which a live source counts as away.
        interval: seconds between two frames of a live source, smoothed over about ten.
        truncated: a file ended before the length it states.
        recent_latency: capture to sinks, in seconds, smoothed over about ten frames.
    """

    source: str
    captured: int = 0
    shown: int = 0
    replaced: int = 0
    late: int = 0
    skipped: int = 0
    decode_errors: int = 0
    reconnects: int = 0
    away_since: float | None = None
    arrived_at: float = math.nan
    quiet_after: float = math.inf
    interval: float = 0.0
    truncated: bool = False
    recent_latency: float = math.nan
    first_at: float = math.nan
    last_at: float = math.nan
    latency: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(
        default_factory=lambda: {stage: Histogram() for stage in STAGES}
    )
    rate: Rate = field(default_factory=Rate)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count_shown(self, captured_at: float, now: float) -> None:
        """Count a frame that has reached every sink."""
        latency = now - captured_at
        self.latency.add(latency)
        before = self.recent_latency
        self.recent_latency = latency if math.isnan(before) else before + (latency - before) / 10
        self.shown += 1
        self.last_at = now
        self.rate.tick(now)

    def count_arrival(self, now: float, rate: float | None) -> None:
        """Note that a live source is there, and how long it may be silent from now on.

        Args:
            now: ``perf_counter()``.
            rate: frames a second that it states, if it does.
        """
        if self.away_since is None and self.arrived_at <= now:  # not so at first: it is NaN
            step = now - self.arrived_at
            self.interval += (step - self.interval) / 10 if self.interval else step
        usual = max(self.interval, 1 / rate if rate else 0.0)
        self.quiet_after = max(_QUIET, _QUIET_FRAMES * usual)
        self.arrived_at, self.away_since = now, None

    def count_replaced(self) -> None:
        """Count a frame that made room for a newer one. May be called by any thread."""
        with self._lock:
            self.replaced += 1

    def count_late(self, frames: int = 1) -> None:
        """Count frames that were too old. May be called by any thread."""
        with self._lock:
            self.late += frames

    @property
    def dropped(self) -> int:
        """Frames of a live source that nobody saw, for whatever reason but ``--skip``."""
        return self.replaced + self.late

    def away_for(self, now: float) -> float:
        """Seconds since a live source's last frame where it is lost or silent, else 0."""
        since = self.away_since
        if since is None:
            since = self.arrived_at
            if not now - since > self.quiet_after:  # also where it has not begun
                return 0.0
        return now - since
