"""One page with everything: the machine, every row with its bar, the pairs, the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from pipeline.benchmark.schema import Benchmark, Comparison, Group, Machine, Roofline, Row
from pipeline.benchmark.table import describe, figure
from pipeline.publish import write_output
from pipeline.wording import counted

LAYERS: Final = 40
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #16191d; --muted: #5c6570; --line: #dfe3e8; --bg: #fff;
  --bar: #0072b2; --span: #7fb8d8; --bad: #b3261e; --good: #0a7d55; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebee; --muted: #9aa4af; --line: #2c333b;
  --bg: #101316; --bar: #56b4e9; --span: #2b5d7a; --bad: #ff8a80; --good: #4cc796; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 20px 16px 64px; background: var(--bg);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2em; font-size: 1.2rem; }
.muted, small { color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; }
th { color: var(--muted); font-weight: 500; font-size: 0.85em; }
th:first-child, td:first-child { text-align: left; }
td.left { text-align: left; }
td.bar { width: 34%; }
svg { display: block; width: 100%; height: 14px; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
"""
_TITLES: Final[dict[Group, str]] = {
    "engines": "The network on one tile, one at a time",
    "end to end": "Many frames, all streams busy",
    "stages": "A frame's path, stage by stage",
    "start": "Start",
}


def write_page(path: Path, benchmark: Benchmark) -> None:
    """Write the page whole. Raises ``SinkError`` where that cannot be."""
    write_output(path, render(benchmark).encode())


def render(benchmark: Benchmark) -> str:
    """The page: one file without scripts or anything from elsewhere."""
    network = benchmark.network
    height, width = network.shape
    title = f"{network.preset} at {height}x{width}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(describe(benchmark.machine))}, {escape(benchmark.created_at)}.<br>"
        f"<code>{escape(benchmark.command)}</code></p>",
        f"<p class=muted>Medians of {counted(benchmark.rounds, 'round')} in which all took turns. "
        "Bars: the median; the light part, the slowest round. Ratios are paired by round; in "
        f"brackets the least and the greatest. Clip: {escape(benchmark.video)}. Checkpoint: "
        f"{escape(network.checkpoint)}, {escape(network.checkpoint_sha256[:12])}.</p>",
    ]
    if benchmark.machine.loaded is not None:
        parts.append(f"<p class=bad>Not a quiet machine: {escape(benchmark.machine.loaded)}.</p>")
    for group, heading in _TITLES.items():
        rows = [row for row in benchmark.rows if row.group == group]
        parts += [f"<h2>{heading}</h2>", _rows(rows)] if rows else []
    if benchmark.comparisons:
        parts += ["<h2>Pairs</h2>", _pairs(benchmark.comparisons)]
    parts += ["<h2>Machine</h2>", _machine(benchmark.machine)]
    if benchmark.roofline is not None:
        parts += ["<h2>Roofline of the int8 engine</h2>", _roofline(benchmark.roofline)]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th scope=col>{escape(each)}</th>" for each in heads)
    return f"<div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _rows(rows: Sequence[Row]) -> str:
    longest = max((row.high_ms or 0.0 for row in rows), default=0.0) or 1.0
    made = []
    for row in rows:
        name = f"<td>{escape(row.name)}<br><small>{escape(row.what)}</small></td>"
        if row.skipped is not None or row.median_ms is None:
            made.append(
                f"<tr>{name}<td class=left colspan=6>not measured: {escape(row.skipped or '')}"
                "</td></tr>"
            )
            continue
        ratio = row.ratio
        told = "-" if ratio is None else (
            f"{figure(ratio.value)} <small>({figure(ratio.low)} to {figure(ratio.high)})<br>"
            f"{escape(ratio.baseline)}</small>"
        )  # fmt: skip
        slow = row.limit_ms is not None and row.median_ms > row.limit_ms
        limit = "" if row.limit_ms is None else f"<br><small>at most {row.limit_ms:.0f}</small>"
        made.append(
            f"<tr>{name}<td{' class=bad' if slow else ''}>{figure(row.median_ms)}{limit}</td>"
            f"<td>{figure(row.p95_ms)}</td><td>{figure(row.fps)}</td><td>{told}</td>"
            f"<td>{escape(row.precision or '-')}</td>"
            f"<td class=bar>{_bar(row, longest)}</td></tr>"
        )
    return _table(("", "ms", "p95", "frames/s", "times as fast as", "precision", ""), made)


def _bar(row: Row, longest: float) -> str:
    middle, slowest = (100 * (value or 0.0) / longest for value in (row.median_ms, row.high_ms))
    return (
        f'<svg viewBox="0 0 100 14" preserveAspectRatio=none aria-hidden=true>'
        f'<rect width="{slowest:.2f}" height=14 fill="var(--span)"/>'
        f'<rect width="{middle:.2f}" height=14 fill="var(--bar)"/></svg>'
    )


def _pairs(pairs: Sequence[Comparison]) -> str:
    made = []
    for each in pairs:
        verdict = {True: "<td class=good>met</td>", False: "<td class=bad>missed</td>"}
        aim = "-" if each.target is None else f"{each.target:g}"
        made.append(
            f"<tr><td>{escape(each.name)}</td><td class=left>{escape(each.against)}</td>"
            f"<td>{figure(each.ratio)} <small>({figure(each.low)} to {figure(each.high)})</small>"
            f"</td><td>{aim}</td>{'<td></td>' if each.met is None else verdict[each.met]}</tr>"
        )
    return _table(("", "against", "times as fast", "aim", ""), made)


def _machine(machine: Machine) -> str:
    def share(value: float | None) -> str:
        return "not known" if value is None else f"{value:.1%}"

    facts = {
        "CPU": f"{machine.cpu}, {machine.cpus} usable",
        "instructions": ", ".join(machine.instructions),
        "system": f"{machine.system}, Python {machine.python}",
        "versions": ", ".join(f"{name} {found}" for name, found in machine.versions.items()),
        "used by others": f"{share(machine.load_before.busy)} before, {share(machine.others)} "
        f"during, {share(machine.load_after.busy)} after",
        "load average": f"{machine.load_before.one_minute} before, "
        f"{machine.load_after.one_minute} after",
    }
    rows = [
        f"<tr><td>{escape(k)}</td><td class=left>{escape(v)}</td></tr>" for k, v in facts.items()
    ]
    return _table(("", ""), rows)


def _roofline(roof: Roofline) -> str:
    peak = roof.peak
    text = (
        f"<p>{roof.macs / 1e9:.2f} G multiply-adds in {figure(roof.engine_ms)} ms: "
        f"{roof.gmacs:.0f} G a second, {roof.share_of_peak:.0%} of the {peak.int8_gmacs:.0f} G of "
        f"a plain int8 MatMul. Layers: {figure(roof.layers_ms)} ms; at their roofs "
        f"{figure(roof.roof_ms)} ms.</p>"
    )
    rows = [
        f"<tr><td>{escape(layer.name)}</td><td class=left>{escape(layer.kind)}</td>"
        f"<td class=left>{escape(layer.kernel)}</td><td>{layer.ms:.3f}</td>"
        f"<td>{layer.share:.1%}</td><td>{layer.macs / 1e6:.1f}</td><td>{layer.bytes / 1e6:.2f}</td>"
        f"<td>{layer.gmacs:.0f}</td><td>{layer.roof_ms:.3f}</td><td>{layer.bound}</td></tr>"
        for layer in roof.layers[:LAYERS]
    ]
    heads = ("layer", "kind", "kernel", "ms", "share", "M multiply-adds", "MB", "G a second",
             "roof ms", "bound")  # fmt: skip
    return text + _table(heads, rows)
