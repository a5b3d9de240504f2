"""The runner as users have it: file to labels, file to overlay, and how soon it starts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter, sleep
from typing import Final

from pipeline.benchmark.contenders import Entry, Facts, facts_of
from pipeline.benchmark.turns import Contender
from pipeline.engines.base import Engine
from pipeline.errors import EngineError, last_line
from pipeline.video.session import Request, Session
from pipeline.video.source import SourceOptions, parse_source

BUSY = "engine, all streams"
LABELS, OVERLAY = "file to labels", "file to overlay"
IMPORT, FIRST_FRAME = "import", "first frame"

WHAT: Final[Mapping[str, str]] = {
    BUSY: "the engine alone with every stream busy, nothing decoded or written",
    LABELS: "the runner: decode, resize, engine, argmax; the opening of the file included",
    OVERLAY: "the same, drawn and encoded as H.264 into an .mp4",
    IMPORT: "all that scripts/run_video.py imports, in a fresh interpreter",
    FIRST_FRAME: "from the command to the first labels on disk, the engine being cached",
}

_ROOT: Final = Path(__file__).resolve().parents[2]
_COMMAND: Final = _ROOT / "scripts" / "run_video.py"
_LEAST_FRAMES, _MOST_FRAMES = 20, 400
_GIVE_UP: Final = 120.0

_IMPORT: Final = """
import runpy, sys, time
begin = time.perf_counter()
runpy.run_path(sys.argv[1], run_name="imported")
print(time.perf_counter() - begin, "torch" in sys.modules)
"""


def runner_entry(engine: Engine, clip: Path, output: Path | None, seconds: float) -> Entry:
    """The runner over a file, as many frames as take about ``seconds``; one sample a turn.

    Args:
        engine: open, with a stream for every CPU.
        clip: read again from its beginning as often as needed.
        output: the overlay video; ``None`` for labels that nobody keeps.
        seconds: of one turn.
    """
    name = LABELS if output is None else OVERLAY
    frames = 0

    def run(count: int) -> float:
        """Milliseconds a frame."""
        request = Request(
            [parse_source(str(clip))], SourceOptions(loop=True), output=output, max_frames=count
        )
        with Session(engine, request) as session:
            begin = perf_counter()
            session.run()
            return (perf_counter() - begin) * 1e3 / count

    def turn() -> dict[str, list[float]]:
        nonlocal frames
        if not frames:
            # The first run also pays for first-time allocations, which are nobody's cost.
            frames = round(seconds * 1e3 / run(_LEAST_FRAMES))
            frames = min(_MOST_FRAMES, max(_LEAST_FRAMES, frames))
        return {name: [run(frames)]}

    return Entry(Contender((name,), turn), facts_of(engine))


def import_entry() -> Entry:
    """How long the runner's imports take, in a fresh interpreter each time."""
    return Entry(Contender((IMPORT,), lambda: {IMPORT: [measure_import() * 1e3]}), Facts())


def measure_import() -> float:
    """Seconds. Raises ``EngineError`` where the runner cannot be imported or loads torch."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(_COMMAND)],
        capture_output=True, text=True, check=False, timeout=_GIVE_UP,
    )  # fmt: skip
    if done.returncode:
        raise EngineError(f"the runner cannot be imported: {last_line(done.stderr)}")
    seconds, torch = done.stdout.split()
    if torch != "False":
        raise EngineError("the runner imports torch, which an edge box does not have")
    return float(seconds)


def first_frame_entry(engine: Path, clip: Path) -> Entry:
    """From the command to the first frame. The first turn also fills the runtime's cache."""
    warm = False

    def turn() -> dict[str, list[float]]:
        nonlocal warm
        if not warm:
            measure_first_frame(engine, clip)
            warm = True
        return {FIRST_FRAME: [measure_first_frame(engine, clip) * 1e3]}

    return Entry(Contender((FIRST_FRAME,), turn), Facts())


def measure_first_frame(engine: Path, clip: Path) -> float:
    """Seconds until the labels of the first frame lie on disk, from before the process began.

    Raises:
        EngineError: the command failed, or wrote none.
    """
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels"
        command = [
            sys.executable, str(_COMMAND), str(clip), "--engine", str(engine), "--headless",
            "--max-frames", "1", "--labels", str(labels),
        ]  # fmt: skip
        begin = perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            seconds = None
            # Looking every 2 ms costs little and errs by no more.
            while seconds is None and process.poll() is None:
                if next(labels.glob("frame_*.png"), None) is not None:
                    seconds = perf_counter() - begin
                elif perf_counter() - begin > _GIVE_UP:
                    process.kill()
                sleep(0.002)
            told = process.communicate()[1]
        if seconds is None and process.returncode == 0 and any(labels.glob("frame_*.png")):
            seconds = perf_counter() - begin  # it came between two looks at a process that ended
        if process.returncode or seconds is None:
            raise EngineError(f"the runner came to no first frame: {last_line(told)}")
        return seconds
