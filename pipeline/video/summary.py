"""What a run reports when it is over, as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.engines.base import EngineInfo
from pipeline.video.metrics import Histogram, StreamStats

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def summarise(
    streams: Sequence[StreamStats], info: EngineInfo, outputs: Sequence[str], stopped: str
) -> dict[str, Any]:
    """The whole run's figures, and each stream's below ``streams`` where there are several.

    Durations are milliseconds; a figure that was never measured is ``None``.

    Args:
        streams: their statistics, the run being over.
        info: of the engine.
        outputs: what was written.
        stopped: why it ended: ``end``, or ``stopped`` where somebody wanted it to.
    """
    total = _figures(streams)
    total |= {
        "source": streams[0].source if len(streams) == 1 else [s.source for s in streams],
        "engine": info.path,
        "backend": info.backend,
        "device": info.device,
        "precision": info.precision,
        "output": outputs[0] if len(outputs) == 1 else list(outputs) or None,
        "stopped": stopped,
    }
    if len(streams) > 1:
        total["streams"] = [{"source": s.source, **_figures([s])} for s in streams]
    return total


def _figures(streams: Sequence[StreamStats]) -> dict[str, Any]:
    latency = Histogram()
    for stats in streams:
        latency.merge(stats.latency)
    frames = sum(stats.shown for stats in streams)
    shown = [stats for stats in streams if stats.shown]
    span = (
        max(stats.last_at for stats in shown) - min(stats.first_at for stats in shown)
        if shown
        else 0.0
    )
    return {
        "frames": frames,
        "fps": _rounded(frames / span, 2) if span > 0 else None,
        "seconds": _rounded(span, 3),
        "latency_ms": {
            name: _rounded(latency.quantile(q) * 1e3, 2) for name, q in QUANTILES.items()
        },
        "dropped": sum(stats.dropped for stats in streams),
        "skipped": sum(stats.skipped for stats in streams),
        "decode_errors": sum(stats.decode_errors for stats in streams),
        "reconnects": sum(stats.reconnects for stats in streams),
        "truncated": any(stats.truncated for stats in streams),
        "stages_ms": _stages(streams),
    }


def _stages(streams: Sequence[StreamStats]) -> dict[str, dict[str, float | None]]:
    """Mean and p95 of each stage that took place."""
    found = {}
    for stage in streams[0].stages if streams else ():
        merged = Histogram()
        for stats in streams:
            merged.merge(stats.stages[stage])
        if merged.count:
            found[stage] = {
                "mean": _rounded(merged.mean * 1e3, 3),
                "p95": _rounded(merged.quantile(0.95) * 1e3, 3),
            }
    return found


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
