"""How fast streets render on one core: frames a second per size and weather.

    python tests/benchmarks/bench_streets.py [FRAMES]

Prints the median time per frame of nine streets (every weather) at 512x1024, then the ratio of
other sizes to it, all measured in this run. Wall time is what a caller sees; CPU time is what is
left of it when other processes do not share the core.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.streets import StreetScene


def say(line: str) -> None:
    """One line of the report."""
    sys.stdout.write(line + "\n")


def measure(scene: StreetScene, frames: int) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of frames spread over a drive."""
    wall, cpu = [], []
    scene.render(0)
    for i in range(frames):
        w, c = perf_counter(), process_time()
        scene.render(1 + 40 * i)
        wall.append(perf_counter() - w)
        cpu.append(process_time() - c)
    return wall, cpu


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    every_wall: list[float] = []
    every_cpu: list[float] = []
    for seed in range(9):
        begin = process_time()
        scene = StreetScene(seed)
        setup = process_time() - begin
        wall, cpu = measure(scene, frames)
        every_wall += wall
        every_cpu += cpu
        say(
            f"street {seed} {scene.light.name:9s} setup {setup:4.2f} s   "
            f"median {1e3 * np.median(wall):5.1f} ms wall, {1e3 * np.median(cpu):5.1f} ms CPU"
        )
    wall_ms, cpu_ms = 1e3 * float(np.median(every_wall)), 1e3 * float(np.median(every_cpu))
    say(
        f"512x1024: median {wall_ms:.1f} ms wall ({1e3 / wall_ms:.1f} fps), "
        f"{cpu_ms:.1f} ms CPU ({1e3 / cpu_ms:.1f} fps), "
        f"95th percentile {1e3 * np.percentile(every_cpu, 95):.1f} ms CPU"
    )
    for height, width in ((256, 512), (384, 512), (1024, 2048)):
        _, cpu = measure(StreetScene(0, height, width), frames)
        _, base = measure(StreetScene(0), frames)
        say(f"{height}x{width}: {np.median(cpu) / np.median(base):.2f} times 512x1024")


if __name__ == "__main__":
    main()
