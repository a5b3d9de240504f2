"""The report's charts, each a function from figures to an SVG string.

Drawn about 360 units wide, the width of a phone, so that their letters stay readable there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.report.schema import (
    Confusions,
    Contender,
    DistanceRow,
    EdgeEffectRow,
    PatchEdges,
    Range,
    SensitivityRow,
)
from pipeline.report.svg import Svg
from pipeline.report.verdict import signed

MOST_LAYERS = 20
"""Shown of those that were ranked; ``report.json`` has all."""


def gauge(drop: float, found: Range | None, limit: float, passed: bool) -> str:
    """The drop with its interval, beside its limit, on a scale that begins below zero."""
    ends = [0.0, limit, drop] + ([found.low, found.high] if found else [])
    low, high = min(ends), max(ends)
    room = 0.12 * (high - low) or 0.1
    low, high = low - room, high + room
    drawing = Svg(360, 74, f"mIoU drop {drop:.2f} points, limit {limit:g} points")

    def x(value: float) -> float:
        return 8 + 344 * (value - low) / (high - low)

    drawing.rect(8, 30, x(limit) - 8, 12, "allowed", radius=3)
    drawing.rect(x(limit), 30, 352 - x(limit), 12, "refused", radius=3)
    drawing.line(x(0), 24, x(0), 48, "axis")
    drawing.line(x(limit), 22, x(limit), 50, "limit")
    mark = "good" if passed else "bad"
    if found:
        drawing.line(x(found.low), 36, x(found.high), 36, f"whisker {mark}")
    drawing.dot(x(drop), 36, 6, mark)
    said = f"{'loses' if drop >= 0 else 'gains'} {abs(drop):.2f} points"
    drawing.text(_within(x(drop), 60), 15, said, "strong", anchor="middle")
    if abs(x(0) - x(limit)) > 70:
        drawing.text(_within(x(0), 40), 64, "no loss", "small", anchor="middle")
    drawing.text(_within(x(limit), 40), 64, f"limit {limit:g}", "small", anchor="middle")
    return str(drawing)


def change_row(drop: float, found: Range | None, limit: float, span: float, passed: bool) -> str:
    """One class of the table: its change (right is better) and interval within +-``span``.

    What lies beyond is drawn as an arrow at the end.
    """
    drawing = Svg(150, 22, f"change {signed(-drop)} points")

    def x(value: float) -> float:
        return 75 + 68 * max(-span, min(span, value)) / span

    drawing.line(75, 2, 75, 20, "axis")
    if limit <= span:
        drawing.line(x(-limit), 3, x(-limit), 19, "limit")
    mark = "bad" if not passed else "neutral"
    if found is not None:
        drawing.line(x(-found.high), 11, x(-found.low), 11, f"whisker {mark}")
        if passed and found.high < 0:
            mark = "good"
    if abs(drop) <= span:
        drawing.dot(x(-drop), 11, 4.5, mark)
    else:
        out = -1 if drop > 0 else 1
        tip = 75 + 75 * out
        drawing.path([(tip - 9 * out, 5), (tip, 11), (tip - 9 * out, 17)], f"arrow {mark}")
    return str(drawing)


def change_span(drops: Sequence[tuple[float, Range | None]], limit: float) -> float:
    """A common scale for ``change_row``: holds the limit and all values up to three times it."""
    ends = [abs(drop) for drop, _found in drops]
    ends += [abs(end) for _drop, found in drops if found for end in (found.low, found.high)]
    most = max(ends, default=0.0)
    return 1.05 * max(limit, min(most, 3 * limit) if limit else most, 0.1)


def heat_map(confusions: Confusions, truths: Sequence[str]) -> str:
    """Change of every truth's share that is labelled so; orange where it became more."""
    before, after = confusions.reference, confusions.candidate
    rows = [confusions.classes.index(name) for name in truths]
    cols = [
        p
        for p in range(len(confusions.classes))
        if p in rows or any(before[t][p] or after[t][p] for t in rows)
    ]
    changes = {
        (t, p): 100.0 * (after[t][p] - before[t][p]) / sum(before[t]) for t in rows for p in cols
    }
    peak = max((abs(value) for value in changes.values()), default=0.0) or 1.0
    cell = 17
    left = 8 + 6.3 * max(len(confusions.classes[t]) for t in rows)
    top = 10 + 6.3 * max(len(confusions.classes[p]) for p in cols)
    drawing = Svg(
        left + cell * len(cols) + 6, top + cell * len(rows) + 6,
        "change of the confusion matrix, truth by prediction",
    )  # fmt: skip
    for j, p in enumerate(cols):
        x = left + cell * j + cell / 2 + 4
        drawing.text(x, top - 6, confusions.classes[p], "small", turned=True)
    for i, t in enumerate(rows):
        y = top + cell * i
        drawing.text(left - 6, y + 12, confusions.classes[t], "small", anchor="end")
        for j, p in enumerate(cols):
            value = changes[t, p]
            # The root shows small changes beside large ones.
            strength = math.sqrt(abs(value) / peak)
            said = f"{confusions.classes[t]} labelled {confusions.classes[p]}: {signed(value)}"
            worse = (value < 0) if t == p else (value > 0)
            x = left + cell * j
            drawing.rect(x, y, cell - 1, cell - 1, "cell", title=f"{said} points")
            if strength > 0.02:
                css = "fill-cand" if worse else "fill-ref"
                drawing.rect(
                    x, y, cell - 1, cell - 1, css, opacity=strength, title=f"{said} points"
                )
            if t == p:
                drawing.rect(x, y, cell - 1, cell - 1, "diagonal")
    return str(drawing)


def distances(rows: Sequence[DistanceRow], axis: str, *, shade_below: float | None = None) -> str:
    """Error of both engines, and their disagreement, by distance."""
    left, right, top, bottom = 40, 352, 12, 178
    drawing = Svg(360, 224, f"error and disagreement by {axis}")
    rates = [(row.reference_error, row.candidate_error, row.disagreement) for row in rows]
    peak = _nice(max((max(rate) for rate in rates), default=1.0) or 1.0)
    step = (right - left) / max(1, len(rows))

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / peak

    if shade_below is not None:
        near = sum(1 for row in rows if row.stop is not None and row.stop <= shade_below)
        drawing.rect(left, top, step * near, bottom - top, "shade")
    for tick in range(5):
        value = peak * tick / 4
        drawing.line(left, y(value), right, y(value), "grid")
        drawing.text(left - 6, y(value) + 4, f"{value:g}", "small", anchor="end")
    places = [left + step * (i + 0.5) for i in range(len(rows))]
    for x, row in zip(places, rows, strict=True):
        height = bottom - y(row.disagreement)
        drawing.rect(
            x - 0.3 * step, y(row.disagreement), 0.6 * step, height, "fill-differ",
            title=f"{row.disagreement:.2f} % differ", radius=2,
        )  # fmt: skip
        drawing.text(x, bottom + 16, _range_text(row), "small", anchor="middle")
    for kind, css in ((0, "ref"), (1, "cand")):
        drawing.path([(x, y(rate[kind])) for x, rate in zip(places, rates, strict=True)], css)
        for x, rate in zip(places, rates, strict=True):
            drawing.dot(x, y(rate[kind]), 3.5, f"fill-{css}", title=f"{rate[kind]:.2f} % wrong")
    drawing.text((left + right) / 2, bottom + 36, axis, "small", anchor="middle")
    return str(drawing)


def shares(rows: Sequence[tuple[str, float]], unit: str) -> str:
    """Horizontal bars, longest on top."""
    ordered = sorted(rows, key=lambda row: -row[1])
    peak = max((value for _name, value in ordered), default=0.0) or 1.0
    drawing = Svg(360, 20 * len(ordered) + 4, f"{unit} by class")
    for i, (name, value) in enumerate(ordered):
        y = 20 * i + 3
        drawing.text(96, y + 12, name, "small", anchor="end")
        drawing.rect(102, y, 200 * value / peak, 15, "fill-differ", radius=2)
        drawing.text(108 + 200 * value / peak, y + 12, f"{value:.2f} %", "small")
    return str(drawing)


def edge_effects(section: PatchEdges, names: tuple[str, str]) -> str:
    """The three excesses with their intervals, beside the margin."""
    kinds: list[tuple[str, EdgeEffectRow, str]] = [
        (f"{_tail(names[0], 10)} errors", section.reference, "ref"),
        (f"{_tail(names[1], 10)} errors", section.candidate, "cand"),
        ("disagreement", section.disagreement, "differ"),
    ]
    ends = [0.0, section.margin, -0.2 * section.margin]
    for _name, effect, _css in kinds:
        ends += [effect.excess]
        ends += [effect.interval.low, effect.interval.high] if effect.interval else []
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low)

    def x(value: float) -> float:
        return 124 + 228 * (value - low + room) / (high - low + 2 * room)

    drawing = Svg(360, 132, "excess at patch edges")
    drawing.rect(124, 6, x(section.margin) - 124, 92, "allowed", radius=3)
    drawing.line(x(0), 4, x(0), 102, "axis")
    drawing.line(x(section.margin), 4, x(section.margin), 102, "limit")
    for i, (name, effect, css) in enumerate(kinds):
        y = 24 + 28 * i
        drawing.text(116, y + 4, name, "small", anchor="end")
        if effect.interval:
            drawing.line(x(effect.interval.low), y, x(effect.interval.high), y, f"whisker {css}")
        drawing.dot(x(effect.excess), y, 5, f"fill-{css}", f"{signed(effect.excess)} points")
    drawing.text(x(0), 116, "0", "small", anchor="middle")
    drawing.text(x(section.margin), 116, f"+{section.margin:g}", "small", anchor="middle")
    drawing.text(238, 129, "points worse at edges than beside", "small", anchor="middle")
    return str(drawing)


def latencies(contenders: Sequence[tuple[Contender, str]]) -> str:
    """Median and 95th percentile of the whole frame, the engine's own part filled."""
    peak = max(c.latency_ms.frame.p95 for c, _css in contenders)
    drawing = Svg(360, 46 * len(contenders) + 6, "latency of both engines")
    for i, (contender, css) in enumerate(contenders):
        y, frame, engine = 46 * i + 4, contender.latency_ms.frame, contender.latency_ms.engine
        drawing.text(4, y + 11, contender.name, "small strong")
        drawing.text(
            356, y + 11, f"{frame.p50:.1f} ms, 95 % within {frame.p95:.1f} ms", "small",
            anchor="end",
        )  # fmt: skip
        drawing.rect(4, y + 17, 352 * frame.p50 / peak, 14, f"fill-{css} faint", radius=2)
        drawing.rect(
            4, y + 17, 352 * min(engine.p50, frame.p50) / peak, 14, f"fill-{css}", radius=2
        )
        end = 4 + 352 * frame.p95 / peak
        drawing.line(4 + 352 * frame.p50 / peak, y + 24, end, y + 24, "axis")
        drawing.line(end, y + 19, end, y + 29, "axis")
    return str(drawing)


def sensitivities(rows: Sequence[SensitivityRow]) -> str:
    """Layers by what quantizing each alone does to the logits, greatest on top."""
    ordered = sorted(rows, key=lambda row: -row.logits_error)[:MOST_LAYERS]
    peak = max((row.logits_error for row in ordered), default=0.0) or 1.0
    drawing = Svg(360, 34 * len(ordered) + 4, "sensitivity of each layer")
    for i, row in enumerate(ordered):
        y = 34 * i
        lost = "" if row.drop is None else f", {signed(-row.drop)} mIoU"
        changed = row.labels_changed
        said = row.layer if changed is None else f"{row.layer}: {changed:.2f} % of labels changed"
        drawing.text(4, y + 13, _tail(row.layer, 34), "small")
        drawing.text(356, y + 13, f"{100 * row.logits_error:.2f} %{lost}", "small", anchor="end")
        drawing.rect(4, y + 18, 352 * row.logits_error / peak, 8, "fill-cand", title=said, radius=2)
    return str(drawing)


def _range_text(row: DistanceRow) -> str:
    return f"{row.start:g}+" if row.stop is None else f"{row.start:g}–{row.stop:g}"


def _within(x: float, half: float) -> float:
    """Where the middle of a text may be so that it stays on a drawing 360 wide."""
    return max(half, min(360 - half, x))


def _nice(value: float) -> float:
    """The next of 1, 2, 4, 5, 10 times a power of ten: a scale of four even ticks."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 6, 8, 10, 20) if power * step >= value)


def _tail(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[-(most - 1) :]
