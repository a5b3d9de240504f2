"""One page with everything: the machine, every row with its bar, the pairs, the roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.benchmark.schema import Benchmark, Group, Machine
from pipeline.benchmark.table import describe, figure
from pipeline.pages import environment
from pipeline.publish import write_output
from pipeline.wording import counted

LAYERS: Final = 40
"""Of the roofline, slowest first; the result has all."""

_TITLES: Final[dict[Group, str]] = {
    "engines": "The network on one tile, one at a time",
    "end to end": "Many frames, all streams busy",
    "stages": "A frame's path, stage by stage",
    "start": "Start",
}


def write_page(path: Path, benchmark: Benchmark) -> None:
    """Write the page whole. Raises ``SinkError`` where that cannot be, and as ``render``."""
    write_output(path, render(benchmark).encode())


def render(benchmark: Benchmark) -> str:
    """The page: one file without scripts or anything from elsewhere.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    templates = environment(Path(__file__).parent / "templates", why="the benchmark's page")
    templates.filters["figure"] = figure
    grouped = {group: [r for r in benchmark.rows if r.group == group] for group in _TITLES}
    return templates.get_template("page.html").render(
        benchmark=benchmark,
        described=describe(benchmark.machine),
        rounds=counted(benchmark.rounds, "round"),
        groups=[
            {
                "heading": _TITLES[group],
                "rows": rows,
                "longest": max(row.high_ms or 0.0 for row in rows) or 1.0,
            }
            for group, rows in grouped.items()
            if rows
        ],
        facts=_facts(benchmark.machine),
        most_layers=LAYERS,
    )


def _facts(machine: Machine) -> dict[str, str]:
    """What the page tells of the machine, by name."""

    def share(value: float | None) -> str:
        return "not known" if value is None else f"{value:.1%}"

    return {
        "CPU": f"{machine.cpu}, {machine.cpus} usable",
        "instructions": ", ".join(machine.instructions),
        "system": f"{machine.system}, Python {machine.python}",
        "versions": ", ".join(f"{name} {found}" for name, found in machine.versions.items()),
        "used by others": f"{share(machine.load_before.busy)} before, {share(machine.others)} "
        f"during, {share(machine.load_after.busy)} after",
        "load average": f"{machine.load_before.one_minute} before, "
        f"{machine.load_after.one_minute} after",
    }
