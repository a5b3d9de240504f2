"""Ten minutes of live video: memory must stay flat and latency must not drift.

    python tests/benchmarks/soak_runner.py [--minutes 10] [--engine FILE] [--source SOURCE ...]

Without ``--engine`` a stand-in of 20 ms a frame runs instead; without ``--source`` a clip of
streets is played in real time, for ever. Everything that a real run has takes part: overlay, an
encoded file, label PNGs, the HTTP server with a viewer, and a source that is lost and found every
half minute. Exits with 1 where memory grows by more than 5 % or the median latency by more than
25 % from the first to the last quarter, the first half minute, in which all is allocated, left out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.streets import StreetScene
from pipeline.engines.base import Engine
from pipeline.engines.opening import open_engine
from pipeline.errors import SourceError
from pipeline.video.frames import Pixels
from pipeline.video.session import Request, Session
from pipeline.video.sinks.http import Address
from pipeline.video.source import (
    Head,
    Reader,
    SourceOptions,
    SourceSpec,
    open_reader,
    parse_source,
)
from tests.pipeline.video.fakes import ColourEngine

SETTLE = 30.0
LOST_EVERY = 30.0


class Flaky:
    """A clip played in real time as if it were a camera, which fails every half minute."""

    live = True
    decode_errors = 0
    truncated = False

    def __init__(self, spec: SourceSpec, options: SourceOptions) -> None:
        self._spec, self._options = spec, options
        self._reader = open_reader(spec, options)
        self.rate = self._reader.rate
        self._began = perf_counter()
        self._offset = 0.0
        self._last = 0.0

    def grab(self) -> Head | None:
        """The next picture, when it is due; the clip begins anew at its end."""
        head = self._reader.grab()
        if head is None:
            self._reader.close()
            self._reader = open_reader(self._spec, self._options)
            self._offset = self._last + 1 / (self.rate or 25)
            head = self._reader.grab()
        if head is None or perf_counter() - self._began > LOST_EVERY:
            raise SourceError("lost, as it must be every half minute")
        self._last = self._offset + head.timestamp
        sleep(max(0.0, self._began + self._last - perf_counter()))
        return Head(head.height, head.width, self._last)

    def retrieve(self, out: Pixels) -> None:
        """Its pixels."""
        self._reader.retrieve(out)

    def close(self) -> None:
        """Close the clip."""
        self._reader.close()


def flaky(spec: SourceSpec, options: SourceOptions) -> Reader:
    """Files become flaky cameras; other sources are what they are."""
    return Flaky(spec, options) if spec.kind == "file" else open_reader(spec, options)


def resident() -> float:
    """This process' resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def watch(port: int, stop: threading.Event) -> None:
    """A viewer who reads the stream as it comes."""
    while not stop.is_set():
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/streams/0.mjpg")
            answer = connection.getresponse()
            while not stop.is_set() and answer.read(1 << 16):
                pass
            connection.close()
        stop.wait(0.2)


def write_clip(path: Path) -> Path:
    """Four seconds of streets."""
    scene = StreetScene(2, 512, 1024)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (1024, 512))
    for number in range(100):
        writer.write(scene.render(number).bgr)
    writer.release()
    return path


def soak(engine: Engine, sources: list[str], minutes: float, folder: Path) -> dict[str, Any]:
    """Run, sample each second, and judge."""
    clip = [] if sources else [str(write_clip(folder / "streets.mp4"))]
    request = Request(
        [parse_source(source) for source in sources or clip],
        output=folder / "out.mp4", labels=folder / "labels", http=Address("127.0.0.1", 0),
    )  # fmt: skip
    samples: list[tuple[float, float, float]] = []
    stop = threading.Event()
    with Session(engine, request, opener=flaky) as session:
        assert session.server is not None
        threading.Thread(target=watch, args=(session.server.port, stop), daemon=True).start()
        begin = perf_counter()

        def poll() -> None:
            now = perf_counter() - begin
            if now > minutes * 60:
                session.controls.stop.set()
            if now - (samples[-1][0] if samples else -1.0) < 1.0:
                return
            latency = max(stream.stats.recent_latency for stream in session.streams)
            samples.append((now, resident(), latency * 1e3))
            for old in sorted((folder / "labels").rglob("frame_*.png"))[:-100]:
                old.unlink(missing_ok=True)  # it is memory that is tested, not the disk

        summary = session.run(poll)
    stop.set()
    settled = [sample for sample in samples if sample[0] > min(SETTLE, minutes * 15)]
    quarter = max(1, len(settled) // 4)
    first, last = settled[:quarter], settled[-quarter:]
    result: dict[str, Any] = {
        "minutes": round(samples[-1][0] / 60, 2),
        "frames": summary["frames"],
        "fps": summary["fps"],
        "dropped": summary["dropped"],
        "reconnects": summary["reconnects"],
        "latency_ms": summary["latency_ms"],
    }
    for name, column in (("memory_mib", 1), ("latency_median_ms", 2)):
        pair = [statistics.median(sample[column] for sample in part) for part in (first, last)]
        result[name] = {"first": round(pair[0], 1), "last": round(pair[1], 1)}
    result["ok"] = (
        result["memory_mib"]["last"] <= 1.05 * result["memory_mib"]["first"]
        and result["latency_median_ms"]["last"] <= 1.25 * result["latency_median_ms"]["first"] + 5
    )
    return result


def main() -> int:
    """Parse, soak, print; 1 where something grew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--source", action="append", default=[])
    options = parser.parse_args()
    # Streams are of a CPU.
    streams = 0 if options.engine and options.engine.suffix == ".engine" else 1
    with tempfile.TemporaryDirectory() as name:
        opened: Engine = (
            open_engine(options.engine, streams=streams, slots=2)
            if options.engine
            else ColourEngine(512, 1024, slots=2, delay=0.02)
        )
        with opened as engine:
            result = soak(engine, options.source, options.minutes, Path(name))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
