"""What a run reports when it is over, as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.engines.base import EngineInfo
from pipeline.video.metrics import Histogram, StreamStats
from pipeline.wording import counted

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

_NEARLY = 0.85
"""Share of the time between two frames at which a stage counts as what bounds the run."""

_SEVERAL = 1.2
"""Frames in the engine at a time from which its time is no longer that from frame to frame."""

_ENOUGH = 10
"""Frames before that can be told: the first ones wait for whatever has to be warmed up."""


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


def describe(summary: dict[str, Any]) -> list[str]:
    """The summary in a few lines, for people.

    Args:
        summary: from ``summarise``.

    Returns:
        The figures, below them each of several streams' own, what bounded the speed where that
        can be told, and what was written.
    """
    lines = ["; ".join(_words(summary))]
    streams = summary.get("streams", [])
    lines += [f"  {stream['source']}: {'; '.join(_words(stream))}" for stream in streams]
    bound = _bound(summary)
    if bound is not None:
        at_once = bound[1] * summary["fps"] / 1e3
        several = f", {at_once:.2g} frames at a time" if at_once >= _SEVERAL else ""
        lines.append(f"bound by: {bound[0]} {bound[1]:.3g} ms{several}")
    made = summary["output"]
    if made:
        lines.append(f"wrote {made if isinstance(made, str) else ', '.join(made)}")
    return lines


def truncated(summary: dict[str, Any]) -> list[str]:
    """The sources that ended before the length they state."""
    streams = summary.get("streams", [summary])
    return [stream["source"] for stream in streams if stream["truncated"]]


def _words(figures: dict[str, Any]) -> list[str]:
    latency = figures["latency_ms"]
    words = [counted(figures["frames"], "frame")]
    if figures["fps"]:
        words += [
            f"{figures['fps']} fps",
            f"latency {latency['p50']} ms, p99 {latency['p99']} ms",
        ]
    words += [f"{figures[name]} {name}" for name in ("dropped", "skipped") if figures[name]]
    for name in ("decode error", "reconnect"):
        number = figures[f"{name.replace(' ', '_')}s"]
        if number:
            words.append(counted(number, name))
    return words


def _bound(summary: dict[str, Any]) -> tuple[str, float] | None:
    """(what a frame took as long as there was from one to the next, its milliseconds).

    Reading, labelling and showing each have a thread, which serves one frame at a time: where its
    stages take (nearly) the time from frame to frame, nothing else can be slower. Frames are in
    the engine several at a time, so its own time is looked at last. Several streams have several
    threads for reading and showing, and then those cannot be judged together.
    """
    stages = {stage: figures["mean"] for stage, figures in summary["stages_ms"].items()}
    if not summary["fps"] or "infer" not in stages or summary["frames"] < _ENOUGH:
        return None
    period = 1e3 / summary["fps"]
    if "streams" in summary:
        threads: tuple[tuple[str, ...], ...] = (("prepare",), ("decode",))
    else:
        threads = (("capture",), ("prepare",), ("decode",), ("draw", "sinks"))
    times = {" + ".join(group): sum(stages.get(s, 0.0) for s in group) for group in threads}
    for name, spent in sorted(times.items(), key=lambda pair: -pair[1]):
        if spent >= _NEARLY * period:
            return name, spent
    return ("infer", stages["infer"]) if stages["infer"] >= _NEARLY * period else None


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
