"""How much of the engine's own speed is left end to end: file to labels, file to overlay video.

    python tests/benchmarks/bench_runner.py [--engine FILE.xml] [--video FILE] [--rounds 5]

Engine, labels and overlay take turns within each round, so that whatever else the machine does
hits all three; the ratios are medians over the rounds. With OpenVINO its own ``benchmark_app``
takes a turn as well, at the same number of streams. Ratios are given of wall time and of
processor time: on a machine that is shared, only the latter is steady.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.streets import StreetScene
from pipeline.engines.base import Engine
from pipeline.engines.opening import find_engine, open_engine
from pipeline.video.session import Request, Session
from pipeline.video.source import SourceOptions, parse_source

FRAMES = 100


@dataclass(frozen=True)
class Cost:
    """Milliseconds a frame."""

    wall: float
    processor: float


def engine_alone(engine: Engine, frames: int = FRAMES) -> Cost:
    """All slots kept busy, nothing else done."""
    slots = engine.slots
    for slot in range(slots):
        engine.submit(slot)
    begin, spent = perf_counter(), process_time()
    for number in range(frames):
        engine.wait(number % slots)
        engine.submit(number % slots)
    cost = Cost((perf_counter() - begin) / frames * 1e3, (process_time() - spent) / frames * 1e3)
    for slot in range(slots):
        engine.wait((frames + slot) % slots)
    return cost


def runner(engine: Engine, video: Path, output: Path | None, frames: int = FRAMES) -> Cost:
    """The runner from file to labels, or to an encoded overlay."""
    request = Request(
        [parse_source(str(video))], SourceOptions(loop=True), output=output, max_frames=frames
    )
    with Session(engine, request) as session:
        begin, spent = perf_counter(), process_time()
        session.run()
        return Cost(
            (perf_counter() - begin) / frames * 1e3, (process_time() - spent) / frames * 1e3
        )


def benchmark_app(engine: Path, streams: int, seconds: int = 5) -> float | None:
    """Milliseconds a frame by OpenVINO's own measure, or ``None`` where it is not there."""
    program = shutil.which("benchmark_app") or str(Path(sys.executable).with_name("benchmark_app"))
    if engine.suffix != ".xml" or not Path(program).exists():
        return None
    done = subprocess.run(
        [program, "-m", str(engine), "-d", "CPU", "-hint", "none", "-nstreams", str(streams),
         "-infer_precision", "f32", "-t", str(seconds)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Throughput:\s*([\d.]+) FPS", done.stdout)
    return 1e3 / float(found[1]) if found else None


def write_streets(path: Path, frames: int = 60) -> Path:
    """A clip of streets at the engine's usual size."""
    scene = StreetScene(1, 512, 1024)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (1024, 512))
    for number in range(frames):
        writer.write(scene.render(number).bgr)
    writer.release()
    return path


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure in turns, print a table and the ratios."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=2)
    options = parser.parse_args()
    path = options.engine or find_engine(root / "engines")
    found: dict[str, list[Cost]] = {"engine": [], "labels": [], "overlay": []}
    apps: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_engine(path, streams=options.streams, slots=options.streams + 1) as engine,
    ):
        video = options.video or write_streets(Path(folder) / "streets.mp4")
        runner(engine, video, None, 20)  # first-time allocations are nobody's cost
        for number in range(options.rounds):
            found["engine"].append(engine_alone(engine))
            found["labels"].append(runner(engine, video, None))
            found["overlay"].append(runner(engine, video, Path(folder) / "out.mp4"))
            app = benchmark_app(path, options.streams)
            apps += [app] if app is not None else []
            line = "  ".join(
                f"{name} {costs[-1].wall:6.1f} / {costs[-1].processor:5.1f}"
                for name, costs in found.items()
            )
            say(f"round {number + 1}: {line}" + (f"  benchmark_app {app:6.1f}" if app else ""))
    say(f"{path.name}, {video.name}, {options.streams} streams; ms a frame, wall / processor")
    for name in ("labels", "overlay"):
        walls = [e.wall / c.wall for e, c in zip(found["engine"], found[name], strict=True)]
        spent = [
            e.processor / c.processor for e, c in zip(found["engine"], found[name], strict=True)
        ]
        text = f"{name}: {statistics.median(walls):.2f} of the engine's speed by wall time, "
        text += f"{statistics.median(spent):.2f} by processor time"
        if len(apps) == len(found[name]):
            ratios = [a / c.wall for a, c in zip(apps, found[name], strict=True)]
            text += f"; {statistics.median(ratios):.2f} of benchmark_app's"
        say(text)


if __name__ == "__main__":
    main()
