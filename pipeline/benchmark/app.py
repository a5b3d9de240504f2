"""OpenVINO's own benchmark_app on our engine: its word against ours, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.benchmark.contenders import NOT_ASKED, Entry, Facts, skipped
from pipeline.benchmark.turns import Contender, Samples
from pipeline.errors import EngineError

APP_LATENCY, APP_THROUGHPUT = "benchmark_app latency", "benchmark_app throughput"
_GIVE_UP: Final = 300.0

WHAT: Final[Mapping[str, str]] = {
    APP_LATENCY: "OpenVINO's benchmark_app on the same engine, -hint latency -api sync; its median",
    APP_THROUGHPUT: "OpenVINO's benchmark_app on the same engine, as many streams as the runner, "
    "-api async; 1 / its throughput",
}


def find_app() -> Path | None:
    """The program, beside this interpreter or on the path."""
    beside = Path(sys.executable).with_name("benchmark_app")
    if beside.is_file():
        return beside
    found = shutil.which("benchmark_app")
    return Path(found) if found else None


def app_entry(
    name: str, engine: Path, precision: str, streams: int, *, asked: bool, seconds: int
) -> Entry:
    """One of the two ways to run it.

    Args:
        name: ``APP_LATENCY`` or ``APP_THROUGHPUT``.
        engine: the ``.xml``.
        precision: of the engine, for the row.
        streams: for throughput.
        asked: whether ``--against`` names it.
        seconds: it measures, each time.
    """
    if not asked:
        return skipped(NOT_ASKED)
    program = find_app()
    if program is None:
        return skipped("benchmark_app is not installed; it comes with the openvino wheel")

    def turn() -> Samples:
        figures = measure(program, engine, seconds, None if name == APP_LATENCY else streams)
        if name == APP_LATENCY:
            return {name: [figures["latency (ms)"]]}
        return {name: [1e3 / figures["throughput"]]}

    return Entry(Contender((name,), turn), Facts(precision))


def measure(program: Path, engine: Path, seconds: int, streams: int | None) -> dict[str, float]:
    """Its ``execution_results``, times in milliseconds.

    Args:
        program: benchmark_app.
        engine: the ``.xml``.
        seconds: it measures.
        streams: as many requests at once; ``None`` for one at a time.

    Raises:
        EngineError: it failed, was not done in time, or said nothing we understand.
    """
    way = ["-hint", "latency", "-api", "sync"]
    if streams is not None:
        way = ["-hint", "none", "-nstreams", str(streams), "-api", "async"]
    with tempfile.TemporaryDirectory() as folder:
        # Its caching is left off: it measures after compiling, whatever that takes.
        command = [
            str(program), "-m", str(engine), "-d", "CPU", "-infer_precision", "f32",
            "-t", str(seconds), *way, "-report_type", "no_counters", "-report_folder", folder,
            "-json_stats",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_GIVE_UP
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"benchmark_app did not run: {error}") from error
        if done.returncode:
            told = [line for line in done.stdout.splitlines() if "ERROR" in line]
            raise EngineError(f"benchmark_app failed: {(told or ['it does not say why'])[0]}")
        report = Path(folder) / "benchmark_report.json"
        try:
            return _figures(json.loads(report.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"benchmark_app's report cannot be understood: {error!r}") from error


def _figures(report: Any) -> dict[str, float]:
    """The two figures, which it writes as text; ``ValueError`` where one is not above 0."""
    results = report["execution_results"]
    found = {name: float(results[name]) for name in ("latency (ms)", "throughput")}
    for name, value in found.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}")
    return found
