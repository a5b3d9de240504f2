"""The runner's figures in Prometheus' text format, read from the statistics when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pipeline.video.metrics import Histogram, StreamStats

CONTENT_TYPE = CONTENT_TYPE_LATEST

_BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the latency buckets, in seconds."""

_LABELS = ["stream", "source"]
"""The number, as in ``/streams/0.mjpg``, stays what it is where a source changes its name."""

_COUNTERS: tuple[tuple[str, str, Callable[[StreamStats], float]], ...] = (
    ("frames", "Frames that went through everything", lambda s: s.shown),
    ("captured_frames", "Frames that came", lambda s: s.captured),
    ("dropped_frames", "Live frames left out: a newer one was there, or too old",
     lambda s: s.dropped),
    ("skipped_frames", "Frames left out on request", lambda s: s.skipped),
    ("decode_errors", "Packets or pictures that did not decode", lambda s: s.decode_errors),
    ("reconnects", "Times a live source came back", lambda s: s.reconnects),
)  # fmt: skip


class _StreamCollector(Collector):
    def __init__(self, streams: Sequence[StreamStats]) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        """Read every stream's figures, at this moment."""
        for name, text, read in _COUNTERS:
            counter = CounterMetricFamily(f"repmlp_edge_{name}", text, labels=_LABELS)
            for labels, stats in self._labelled():
                counter.add_metric(labels, read(stats))
            yield counter
        now = perf_counter()
        rate = GaugeMetricFamily(
            "repmlp_edge_fps", "Frames a second, over the last two seconds", labels=_LABELS
        )
        away = GaugeMetricFamily(
            "repmlp_edge_away_seconds", "How long a live source has been away", labels=_LABELS
        )
        for labels, stats in self._labelled():
            rate.add_metric(labels, stats.rate.value(now))
            away.add_metric(labels, stats.away_for(now))
        yield rate
        yield away
        latency = HistogramMetricFamily(
            "repmlp_edge_latency_seconds", "From capture until every sink had the frame",
            labels=_LABELS,
        )  # fmt: skip
        stages = HistogramMetricFamily(
            "repmlp_edge_stage_seconds", "Time a frame spends in each stage",
            labels=[*_LABELS, "stage"],
        )  # fmt: skip
        for labels, stats in self._labelled():
            latency.add_metric(labels, _buckets(stats.latency), stats.latency.total)
            for stage, histogram in stats.stages.items():
                stages.add_metric([*labels, stage], _buckets(histogram), histogram.total)
        yield latency
        yield stages

    def _labelled(self) -> Iterator[tuple[list[str], StreamStats]]:
        """Each stream with its labels' values."""
        for number, stats in enumerate(self._streams):
            yield [str(number), stats.source], stats


class Exposition:
    """Renders the figures of a fixed list of streams."""

    def __init__(self, streams: Sequence[StreamStats]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_StreamCollector(streams))

    def render(self) -> bytes:
        """The text Prometheus scrapes."""
        return generate_latest(self._registry)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    counts = histogram.cumulative(_BOUNDS)
    pairs = [(repr(bound), float(n)) for bound, n in zip(_BOUNDS, counts, strict=True)]
    return [*pairs, ("+Inf", float(histogram.count if not math.isnan(histogram.total) else 0))]
