"""The kernels against the way users write it and against the best composition of OpenCV calls.

    python tests/benchmarks/bench_kernels.py [--threads N] [--rounds N] [--noise] [--json FILE]

Every way is first checked to give the same result (but for rounding), then all ways of a case are
timed in turn, round after round, so that what slows the machine down for a while slows all of
them. A time is the median of its rounds; a ratio is between medians of one run. Every way, OpenCV's
included, writes into memory it allocated beforehand where its calls allow that, and may use
``--threads`` threads. Labels are a street's; logits are those labels at stride 4, blurred, with
noise. ``--noise`` takes white noise for both: no two neighbours agree, the kernels' worst case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.kernels import dispatch
from tests.benchmarks.frame_cases import counting, cutting, fitting, padding, painting
from tests.benchmarks.kernel_case import TILE, Case, labels_of, logits_of, noise_frame
from tests.benchmarks.label_cases import fitted_tile, many_tiles, single_tile


def cases(threads: int, *, noise: bool) -> Iterator[Case]:
    for height, width in (TILE, (1080, 1920)):
        labels = labels_of(height, width, noise=noise)
        frame = noise_frame(height, width)
        logits = logits_of(labels, noise=noise)
        if (height, width) == TILE:
            yield single_tile(labels, logits, threads)
            yield padding(frame, threads)
            yield fitting(noise_frame(720, 960), threads)
            yield fitting(noise_frame(1024, 2048), threads)
        else:
            yield fitted_tile(labels, threads, noise=noise)
            yield many_tiles(labels, logits, threads)
            yield cutting(frame, threads)
            yield fitting(frame, threads)
        yield painting(frame, labels, threads)
        yield counting(labels, threads)


def check(case: Case) -> None:
    """Refuse to time ways that do not do the same."""
    want = case.ways[0].run().astype(np.int64)
    for way in case.ways[1:]:
        got = way.run().astype(np.int64)
        if way.exact or case.kernel in ("overlay", "resize"):
            same = np.abs(got - want).max() <= (0 if way.exact else 1)
        else:
            # Rounding decides between near-equal classes. A crop to whole cells moves every
            # border a little, and white noise is nothing but borders: no bound would mean much.
            same = "crop" in way.name or (got != want).mean() < 0.01
        if not same:
            raise SystemExit(f"{case.kernel}, {case.what}: '{way.name}' gives something else")


def measure(case: Case, rounds: int) -> list[float]:
    """Median milliseconds of each way, taken in turn, each round beginning with another."""
    times: list[list[float]] = [[] for _ in case.ways]
    for turn in range(rounds):
        for step in range(len(case.ways)):
            index = (turn + step) % len(case.ways)
            begin = perf_counter()
            case.ways[index].run()
            times[index].append((perf_counter() - begin) * 1e3)
    return [statistics.median(each) for each in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="for every way (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="times each way (%(default)s)")
    parser.add_argument("--noise", action="store_true", help="the kernels' worst case")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    mode = dispatch.active().mode
    show = sys.stdout.write
    show(f"kernels {mode}, OpenCV {cv2.__version__}, threads {options.threads}\n")
    show(f"{'kernel':13} {'case':29} {'ours ms':>8}  {'others':46} {'ms':>8} {'ratio':>7}\n")
    rows = []
    for case in cases(options.threads, noise=options.noise):
        check(case)
        medians = measure(case, options.rounds)
        for way, median in zip(case.ways[1:], medians[1:], strict=True):
            ratio = median / medians[0]
            head = f"{case.kernel:13} {case.what:29} {medians[0]:8.2f}"
            show(f"{head}  {way.whose + ': ' + way.name:46} {median:8.2f} {ratio:6.1f}x\n")
            rows.append(
                {
                    "kernel": case.kernel,
                    "case": case.what,
                    "ours_ms": medians[0],
                    "whose": way.whose,
                    "way": way.name,
                    "ms": median,
                    "ratio": ratio,
                }
            )
    if options.json:
        report = {"mode": mode, "threads": options.threads, "noise": options.noise, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
