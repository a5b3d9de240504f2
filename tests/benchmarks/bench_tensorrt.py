#!/usr/bin/env python3
"""Latency of TensorRT engines on this machine's GPU: percentiles, CUDA graphs on and off.

    python tests/benchmarks/bench_tensorrt.py engines/edge-s-*.engine [--runs 500] \\
        [--save docs/benchmarks/tensorrt/NAME.json]

One run of the program measures every engine named, in turn and repeatedly, so that their ratios
are of one machine in one state. Latency is from writing the frame to reading the result: the
copies are in it. Throughput keeps every slot busy. ``--save`` keeps the figures with the engines'
hashes, what built them and what ran them; not in docs/benchmarks itself, whose files are of the
format that the README's table is made from.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.artifact import Manifest, open_artifact, write_whole
from pipeline.console import EXIT_OK, run_command
from pipeline.engines.opening import manifest_of
from pipeline.engines.tensorrt import TensorRTEngine, open_tensorrt

WARM_UP = 50
ROUNDS = 5


def latencies(engine: TensorRTEngine, frame: np.ndarray, runs: int) -> Iterator[float]:
    """Seconds of one inference after another on slot 0."""
    for _ in range(runs):
        start = perf_counter()
        np.copyto(engine.input(0), frame)
        engine.submit(0)
        engine.wait(0)
        yield perf_counter() - start


def throughput(engine: TensorRTEngine, frame: np.ndarray, runs: int) -> float:
    """Inferences a second with every slot busy."""
    start = perf_counter()
    for i in range(runs + engine.slots):
        slot = i % engine.slots
        if i >= engine.slots:
            engine.wait(slot)
        if i < runs:
            np.copyto(engine.input(slot), frame)
            engine.submit(slot)
    return runs / (perf_counter() - start)


def row(manifest: Manifest, engine: TensorRTEngine) -> dict[str, Any]:
    """What was measured: the engine, by content, what built it and what runs it."""
    facts, info = manifest.facts, engine.info
    return {
        "engine": manifest.main, "sha256": manifest.files[manifest.main],
        "preset": facts.get("preset"), "precision": info.precision, "output": facts.get("output"),
        "shape": list(engine.inputs[0].shape), "multiply_adds": facts.get("multiply_adds"),
        "built_with": facts["built_with"], "device": info.device, "backend": info.backend,
        "slots": engine.slots, "runtime": dict(info.extra), "executed": dict(info.executed),
        "float_fallback": facts.get("float_fallback"), "agreement": facts.get("agreement"),
    }  # fmt: skip


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="keep the figures")
    options = parser.parse_args()
    opened = []
    manifests = {path.stem: open_artifact(manifest_of(path)).manifest for path in options.engines}
    for path, graphs in product(options.engines, (False, True)):
        engine = open_tensorrt(path, manifests[path.stem], cuda_graphs=graphs)
        opened.append((path.stem, graphs, engine))
    random = np.random.default_rng(0)
    times: dict[tuple[str, bool], list[float]] = {}
    rates: dict[tuple[str, bool], list[float]] = {}
    for round_number in range(ROUNDS + 1):
        for name, graphs, engine in opened:
            frame = random.integers(0, 256, engine.inputs[0].shape, np.uint8)
            runs = WARM_UP if round_number == 0 else options.runs // ROUNDS
            found = list(latencies(engine, frame, runs))
            rate = throughput(engine, frame, runs)
            if round_number:
                times.setdefault((name, graphs), []).extend(found)
                rates.setdefault((name, graphs), []).append(rate)
    info = opened[0][2].info
    print(f"{info.device}, {info.backend} {info.extra['version']}, {info.extra['memory']}")
    print(f"{'engine':<32}{'graph':<7}{'p50':>8}{'p95':>8}{'p99 ms':>9}{'fps':>9}")
    rows = []
    for name, graphs, engine in opened:
        p50, p95, p99 = np.percentile(np.array(times[name, graphs]) * 1e3, (50, 95, 99))
        rows.append(
            row(manifests[name], engine)
            | {"ms": {"p50": p50, "p95": p95, "p99": p99}}
            | {"fps": {"median": np.median(rates[name, graphs]), "rounds": rates[name, graphs]}}
        )
        print(
            f"{name:<32}{'on' if graphs else 'off':<7}{p50:8.2f}{p95:8.2f}{p99:9.2f}"
            f"{np.median(rates[name, graphs]):9.1f}"
        )
    for _name, _graphs, engine in opened:
        engine.close()
    if options.save is not None:
        about = {
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv), "rounds": ROUNDS, "runs": options.runs,
        }  # fmt: skip
        text = json.dumps(about | {"rows": rows}, indent=1, default=float)
        write_whole(options.save, text.encode())
    return EXIT_OK


if __name__ == "__main__":
    run_command(main)
