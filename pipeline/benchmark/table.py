"""The README's table, made from the kept results.

    python -m pipeline.benchmark.table --readme README.md [--results DIR] [--check]

Whatever stands between the two markers is replaced. With --check nothing is written and exit code 1
says that the table is not what the results give. Every row is shown, lost comparisons included.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from pipeline.artifact import write_whole
from pipeline.benchmark.schema import Benchmark, Group, Machine, Row
from pipeline.console import EXIT_OK, EXIT_REGRESSION, Parser, run_command, say
from pipeline.errors import UsageError
from pipeline.wording import counted

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
RESULTS: Final = Path("docs/benchmarks")
SCHEMA_NAME: Final = "benchmark.schema.json"
MAX_RESULT_BYTES: Final = 8 << 20

_TITLES: Final[dict[Group, str]] = {
    "engines": "one tile, one at a time",
    "end to end": "many frames, all streams",
    "stages": "stage of a frame's path",
    "start": "start",
}
_SENTENCES: Final = ("stages", "start")


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the table, or check it."""
    parser = Parser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    options = parser.parse_args(arguments)
    try:
        before = options.readme.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"'{options.readme}' is not UTF-8 text") from error
    folder = os.path.relpath(options.results, options.readme.parent)
    results = {
        f"{Path(folder, path.name).as_posix()}": read_result(path)
        for path in sorted(options.results.glob("*.json"))
        if path.name != SCHEMA_NAME
    }
    after = rewrite(before, results, str(options.readme))
    if options.check:
        if before == after:
            return EXIT_OK
        say(f"the table in '{options.readme}' is not what '{options.results}' gives: run this "
            "again without --check")  # fmt: skip
        return EXIT_REGRESSION
    if before != after:
        write_whole(options.readme, after.encode())
    return EXIT_OK


def read_result(path: Path) -> Benchmark:
    """One kept result.

    Raises:
        UsageError: the file is no result, naming what is wrong with it.
    """
    if path.stat().st_size > MAX_RESULT_BYTES:
        raise UsageError(f"'{path}' is too large to be a benchmark's result")
    try:
        return Benchmark.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UsageError(
            f"'{path}' is not a benchmark's result: {where}: {first['msg']}"
        ) from error


def rewrite(text: str, results: Mapping[str, Benchmark], name: str = "README.md") -> str:
    """``text`` with the short form of all results between the markers.

    Args:
        text: a Markdown file that holds both markers.
        results: by the path of their file, as seen from the text's.
        name: of the text's file, for messages.

    Raises:
        UsageError: the markers are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UsageError(f"'{name}' must hold '{BEGIN}' and '{END}', once each, in this order")
    head, _begin, rest = text.partition(BEGIN)
    _old, _end, tail = rest.partition(END)
    tables = "".join(
        f"\n{as_markdown(result, brief=True)}\nEverything: [{path}]({path}).\n\n"
        for path, result in results.items()
    )
    return f"{head}{BEGIN}\n{tables}{END}{tail}"


def as_markdown(benchmark: Benchmark, *, brief: bool = False) -> str:
    """One result: what was run on what, and every row and pair.

    Args:
        benchmark: the result.
        brief: stages and start in a sentence each rather than a table; of the pairs, those that
            have an aim.
    """
    network, machine = benchmark.network, benchmark.machine
    height, width = network.shape
    loaded = machine.loaded is not None
    blocks = [
        f"**`{network.preset}` at {height}x{width}** ({network.multiply_adds / 1e9:.1f} G "
        f"multiply-adds) on {describe(machine)}, {benchmark.created_at[:10]}. Medians of "
        f"{counted(benchmark.rounds, 'round')} in turns; in brackets, the least and the greatest "
        f"of them. Clip: {benchmark.video}.",
    ]
    if loaded:
        blocks.append(f"**Not a quiet machine: {machine.loaded}; ratios are marked ~.**")
    for group, title in _TITLES.items():
        rows = [row for row in benchmark.rows if row.group == group]
        if rows and brief and group in _SENTENCES:
            blocks.append(f"{title[0].upper()}{title[1:]}, ms: {', '.join(map(_short, rows))}.")
        elif rows:
            blocks.append("\n".join(_table(title, rows, loaded=loaded)))
    if benchmark.comparisons:
        blocks.append("\n".join(_comparisons(benchmark, brief=brief)))
    if benchmark.roofline is not None:
        roof = benchmark.roofline
        blocks.append(
            f"The int8 engine reaches {roof.gmacs:.0f} G multiply-adds a second, "
            f"{roof.share_of_peak:.0%} of the {roof.peak.int8_gmacs:.0f} G of a plain int8 MatMul "
            "here."
        )
    return "\n\n".join(blocks) + "\n"


def _short(row: Row) -> str:
    if row.skipped is not None:
        return f"{row.name} not measured ({_cell(row.skipped)})"
    limit = "" if row.limit_ms is None else f" (at most {row.limit_ms:.0f})"
    return f"{row.name} {figure(row.median_ms)}{limit}"


def describe(machine: Machine) -> str:
    """The machine in half a line."""
    telling = [i for i in machine.instructions if "vnni" in i or "amx" in i or "bf16" in i]
    has = ", ".join(telling) or "no int8 dot products"
    runtime = machine.versions.get("openvino", "not installed")
    return f"{machine.cpus} CPUs of {machine.cpu} ({has}), OpenVINO {runtime}"


def _table(title: str, rows: Sequence[Row], *, loaded: bool) -> list[str]:
    baseline = next((row.ratio.baseline for row in rows if row.ratio is not None), None)
    fps = any(row.fps is not None for row in rows)
    heads = [title, "ms", "p95", *(["frames/s"] if fps else [])]
    if baseline is not None:
        heads.append(f"times as fast as {baseline}")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = [row.name]
        if row.skipped is not None:
            cells += [f"not measured: {_cell(row.skipped)}", *[""] * (len(heads) - 2)]
        else:
            cells += [figure(row.median_ms), figure(row.p95_ms)]
            cells += [figure(row.fps)] if fps else []
            cells += [_ratio(row, loaded=loaded)] if baseline is not None else []
        if row.limit_ms is not None and row.median_ms is not None:
            cells[1] += f" (at most {row.limit_ms:.0f})"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(row: Row, *, loaded: bool) -> str:
    if row.ratio is None:
        return "1"
    ratio = row.ratio
    mark = "~" if loaded else ""
    return f"{mark}{figure(ratio.value)} ({figure(ratio.low)} to {figure(ratio.high)})"


def _comparisons(benchmark: Benchmark, *, brief: bool) -> list[str]:
    """A table of the pairs; ``brief`` leaves out those without an aim, if any has one."""
    targets = any(each.target is not None for each in benchmark.comparisons)
    aimed = [each for each in benchmark.comparisons if each.target is not None]
    pairs = aimed if brief and targets else benchmark.comparisons
    heads = ["aims" if pairs is aimed else "", "against", "times as fast"]
    heads += ["aim", ""] if targets else []
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    mark = "~" if benchmark.machine.loaded is not None else ""
    for each in pairs:
        cells = [each.name, each.against]
        cells.append(f"{mark}{figure(each.ratio)} ({figure(each.low)} to {figure(each.high)})")
        if targets:
            aim = "" if each.target is None else f"{each.target:g}"
            cells += [aim, {True: "met", False: "**missed**", None: ""}[each.met]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def figure(value: float | None) -> str:
    """A number to three significant digits, never in powers of ten; a dash for none."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text that cannot end a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    run_command(main)
