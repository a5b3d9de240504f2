"""What the figures say, in sentences that the page and the pull-request comment share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.report.schema import Attribution, FloatLayers, PatchEdges, Range, Report
from pipeline.report.verdict import signed
from pipeline.wording import counted, flattered


def lead(report: Report) -> str:
    """What happened to mIoU, and what was allowed."""
    verb = "loses" if report.drop >= 0 else "gains"
    return (
        f"{report.candidate.name} {verb} {abs(report.drop):.2f} points of mIoU against "
        f"{report.reference.name}{interval_text(report.drop_interval, flip=report.drop < 0)}; "
        f"a loss of {report.limits.max_drop:g} is allowed."
    )


def worst(report: Report) -> str:
    """What happened to the worst class."""
    worst_class = report.worst_class
    row = next(row for row in report.classes if row.name == worst_class.name)
    return (
        f"Worst class: {row.name}, {row.reference:.2f} → {row.candidate:.2f} "
        f"({signed(-row.drop)}); a loss of {report.limits.max_class_drop:g} is allowed."
    )


def sureness(report: Report) -> str:
    """Whether other frames would say the same."""
    if report.confidence == "unknown":
        scored, rest = report.scored_frames, report.frames - report.scored_frames
        others = f" (of {report.frames}; the rest have no scored pixel)" if rest else ""
        alone = "this frame" if scored == 1 else "these frames"
        return f"{_too_few(scored)} no interval{others}: take the figures for {alone} alone."
    if report.confidence == "clear":
        side = "within" if report.miou_passed else "beyond"
        return f"The whole interval of the mIoU drop lies {side} the limit."
    other = "fail" if report.miou_passed else "pass"
    return (
        "The interval of the mIoU drop crosses the limit: another sample of frames could "
        f"{other}. More frames would tell."
    )


def calibrated(report: Report) -> str:
    """That frames which calibrated the candidate score it; empty where that is not so, or not
    known."""
    if not report.calibrated_frames:
        return ""
    return flattered(report.calibrated_frames, report.frames, report.candidate.name)


def edges(section: PatchEdges) -> str:
    """The verdict on patch edges."""
    excess = section.candidate.excess
    size = (
        f"Of 100 pixels within {section.near_within:g} pixels of an edge, {abs(excess):.2f} "
        f"{'more' if excess >= 0 else 'fewer'} are wrong than of like pixels beside them"
        f"{interval_text(section.candidate.interval)}."
    )
    claims = {
        "as good": f"Edges are as good as interiors, within {section.margin:g} point.",
        "worse": f"Edges are worse than interiors, by more than {section.margin:g} point.",
        "undecided": f"Undecided: the interval does not lie on one side of {section.margin:g} "
        "point.",
    }
    if section.candidate.interval is None:
        claims["undecided"] = f"Undecided: {_too_few(section.compared_frames)} no interval."
    return f"{claims[section.verdict]} {size}"


def attribution(section: Attribution) -> str:
    """Whose the drop is."""
    claims = {
        "quantization": "The drop is quantization's: the engine follows its graph.",
        "engine": "The drop is the engine's: its graph, executed exactly, does not lose it.",
        "both": "Quantization and the engine each take their part of the drop.",
        "neither": "Neither quantization nor the engine loses more than chance would.",
        "unknown": f"{_too_few(section.scored_frames)} no interval, so quantization's part cannot "
        "be told from the engine's.",
    }
    parts = (
        f"Quantization {signed(-section.quantization_drop)}"
        f"{interval_text(section.quantization_interval, flip=True)}, engine "
        f"{signed(-section.engine_drop)}{interval_text(section.engine_interval, flip=True)} points "
        f"of mIoU over {counted(section.frames, 'frame')}; engine and exact graph share "
        f"{section.agreement:.2f} % of all labels."
    )
    first = section.first_difference
    return f"{claims[section.cause]} {parts}" + (f" They part first at {first}." if first else "")


def sensitivity(report: Report) -> str:
    """The layer that costs most on its own."""
    rows = report.sensitivity or []
    first = rows[0]
    frames = report.sensitivity_frames
    on = "" if frames is None else f" on {counted(frames, 'frame')}"
    return (
        f"Most sensitive of {len(rows)} layers{on}: {first.layer}, which quantized alone moves the "
        f"logits by {100 * first.logits_error:.2f} % of their norm."
    )


def data(report: Report) -> str:
    """How many frames of what."""
    dataset = report.provenance.get("dataset", {})
    named = [str(dataset[key]) for key in ("split", "root") if dataset.get(key)]
    return " of ".join([counted(report.frames, "frame"), *named])


def speed(report: Report) -> str:
    """Both latencies and their ratio."""
    before, after = (c.latency_ms.frame.p50 for c in (report.reference, report.candidate))
    ratio = report.speedup
    claim = f"{max(ratio, 1 / ratio):.2f} times as {'fast' if ratio > 1 else 'slow'}"
    if abs(ratio - 1) < 0.02:
        claim = "equally fast"
    return (
        f"{report.candidate.name} takes {after:.1f} ms for a frame where {report.reference.name} "
        f"takes {before:.1f} ms: {claim}, frame by frame."
    )


def interval_text(found: Range | None, *, flip: bool = False) -> str:
    """`` (95 % interval a to b)``, of the negated value if ``flip``; nothing without one."""
    if found is None:
        return ""
    low, high = (-found.high, -found.low) if flip else (found.low, found.high)
    return f" (95 % interval {signed(low).lstrip('+')} to {signed(high).lstrip('+')})"


def _too_few(frames: int) -> str:
    """``1 frame gives``, ``2 frames give``."""
    return f"{counted(frames, 'frame')} {'gives' if frames == 1 else 'give'}"


def float_layers(found: FloatLayers) -> str:
    """Whether every layer that was quantized runs in int8."""
    fell, kept = len(found.fallback), len(found.by_design)
    rest = f" (left in float by the quantizer: {kept})" if kept else ""
    if not fell:
        return f"Every heavy layer that was quantized runs in int8{rest}."
    were, run = ("was", "runs") if fell == 1 else ("were", "run")
    return f"{counted(fell, 'heavy layer')} that {were} quantized {run} in float{rest}."


@dataclass(frozen=True)
class Fact:
    """One line of provenance: a dotted name, and its value or its many values."""

    name: str
    value: str
    items: tuple[str, ...] = ()


MAX_INLINE = 6
"""A list of more entries than this is folded away."""


def facts(value: dict[str, Any]) -> list[Fact]:
    """Nested plain JSON as lines."""
    return list(_facts("", value))


def _facts(prefix: str, value: Any) -> Iterator[Fact]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _facts(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list | tuple) and len(value) > MAX_INLINE:
        yield Fact(prefix, f"{len(value)} entries", tuple(_plain(item) for item in value))
    elif isinstance(value, list | tuple):
        yield Fact(prefix, ", ".join(_plain(item) for item in value) or "none")
    else:
        yield Fact(prefix, _plain(value))


def _plain(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
