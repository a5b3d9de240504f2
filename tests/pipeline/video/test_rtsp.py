"""Against a real RTSP server: played, killed, restarted, stalled mid-frame, slowed.

The server is GStreamer's. Between it and the runner lies a relay that can hold bytes back, as a
bad network does. Every picture says its number, so the lag behind the stream's own clock can be
read off what is shown.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from calibration.streets import StreetScene
from pipeline.inference import FrameSegmenter
from pipeline.video.draw import Painter, Style
from pipeline.video.lateness import Haste
from pipeline.video.readers.omission import Omission
from pipeline.video.runner import Runner
from pipeline.video.sinks.base import Shown
from pipeline.video.source import SourceOptions, parse_source
from tests.pipeline.video.clips import Pixels, numbered, write_clip
from tests.pipeline.video.fakes import ColourEngine, Recorder

RATE = 25
FRAMES = 500
HEIGHT, WIDTH = 128, 256
SERVER = Path(__file__).with_name("rtsp_server.py")


def _python_with_gstreamer() -> str | None:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            if (
                subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode
                == 0
            ):
                return python
    return None


PYTHON = _python_with_gstreamer()
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="GStreamer's RTSP server is not installed: gir1.2-gst-rtsp-server-1.0, python3-gi, "
    "gstreamer1.0-plugins-good",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streets, each frame with its number above."""
    scene = StreetScene(3, HEIGHT, WIDTH)
    views = [scene.render(number).bgr for number in range(8)]

    def picture(number: int) -> Pixels:
        frame = numbered(number, HEIGHT, WIDTH)
        frame[HEIGHT // 2 :] = views[number % len(views)][HEIGHT // 2 :]
        return frame

    path = tmp_path_factory.mktemp("rtsp") / "street.mp4"
    options = {"preset": "ultrafast", "tune": "zerolatency"}
    return write_clip(
        path, FRAMES, height=HEIGHT, width=WIDTH, rate=RATE, picture=picture, coder=options
    )


class Server:
    """The server's process, started and killed at will on one port."""

    def __init__(self, clip: Path) -> None:
        self._clip = clip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [str(PYTHON), str(SERVER), str(self._clip), str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def server(clip: Path) -> Iterator[Server]:
    found = Server(clip)
    try:
        found.start()
        yield found
    finally:
        found.kill()


class Relay:
    """Forwards TCP connections; holds the server's bytes back when told to.

    Attributes:
        rate: bytes a second let through; ``None`` for all.
    """

    def __init__(self, port: int) -> None:
        self.rate: float | None = None
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._running = True
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._running = False
        for one in [self._listener, *self._open]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while self._running:
            try:
                client, _address = self._listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                continue
            self._open += [client, upstream]
            for pair in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, throttled: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2048):
                while throttled and self.rate == 0:
                    sleep(0.02)
                if throttled and self.rate:
                    sleep(len(data) / self.rate)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    found = Relay(server.port)
    yield found
    found.close()


class Lag(Recorder):
    """Records how far each shown frame lies behind the stream's own clock, from its first on."""

    def __init__(self) -> None:
        super().__init__(needs_canvas=True)
        self.lags: list[float] = []
        self._origin: float | None = None

    def write(self, shown: Shown) -> None:
        super().write(shown)
        self.canvases.clear()
        self.labels.clear()
        begun = perf_counter() - self.numbers[-1] / RATE
        self._origin = begun if self._origin is None else min(begun, self._origin)
        self.lags.append(begun - self._origin)


def play(
    port: int, script: Callable[[Lag, Runner], Iterator[Callable[[], bool]]], *, delay: float = 0.0
) -> tuple[Lag, Runner]:
    """Run until each condition that the script yields has come true, one after the other."""
    engine = ColourEngine(HEIGHT, WIDTH, slots=1, delay=delay)
    runner = Runner(
        FrameSegmenter(engine), engine.slots,
        source_options=SourceOptions(open_timeout=5.0, read_timeout=1.0),
    )  # fmt: skip
    sink = Lag()
    spec = parse_source(f"rtsp://127.0.0.1:{port}/street")
    runner.add(spec, [sink], Painter(Style(), spec.name))
    steps = script(sink, runner)
    current = next(steps)
    deadline = perf_counter() + 25

    def poll() -> None:
        nonlocal current
        try:
            if current():
                current = next(steps)
        except StopIteration:
            runner.controls.stop.set()
        assert perf_counter() < deadline, f"shown {len(sink.indices)} frames, lost at {current}"

    runner.run(poll)
    return sink, runner


def test_plays(server: Server) -> None:
    def script(sink: Lag, _runner: Runner) -> Iterator[Callable[[], bool]]:
        yield lambda: len(sink.indices) >= 30

    sink, runner = play(server.port, script)
    stats = runner.streams[0].stats
    assert runner.streams[0].feed.live
    assert (stats.reconnects, stats.decode_errors) == (0, 0)
    steps = np.diff(sink.numbers)
    assert (steps >= 1).all()
    np.testing.assert_allclose(np.diff(sink.timestamps), steps / RATE, atol=0.005)
    assert np.median(sink.lags) < 0.3


def test_lag_stays_bounded_when_the_engine_is_slow(server: Server) -> None:
    """25 frames a second come, about 7 are segmented: the lag must not grow with the backlog."""

    def script(sink: Lag, _runner: Runner) -> Iterator[Callable[[], bool]]:
        yield lambda: len(sink.indices) >= 20

    sink, runner = play(server.port, script, delay=0.14)
    assert runner.streams[0].stats.dropped > 25
    early, late = np.median(sink.lags[3:10]), np.median(sink.lags[-7:])
    assert late < early + 0.3
    assert max(sink.lags[5:]) < 1.5


def test_killed_and_restarted(server: Server) -> None:
    def script(sink: Lag, runner: Runner) -> Iterator[Callable[[], bool]]:
        yield lambda: len(sink.indices) >= 15
        server.kill()
        yield lambda: sink.stale_shown >= 2
        server.start()
        shown = len(sink.indices)
        yield lambda: len(sink.indices) >= shown + 15
        assert runner.streams[0].stats.away_since is None

    sink, runner = play(server.port, script)
    assert runner.streams[0].stats.reconnects == 1
    assert sink.timestamps == sorted(sink.timestamps)


def test_stalled_in_the_middle_of_a_frame(relay: Relay) -> None:
    """The connection stays open and says nothing more: only a timeout can tell."""

    def script(sink: Lag, runner: Runner) -> Iterator[Callable[[], bool]]:
        yield lambda: len(sink.indices) >= 15
        relay.rate = 0
        yield lambda: runner.streams[0].stats.away_since is not None
        yield lambda: sink.stale_shown >= 1
        relay.rate = None
        shown = len(sink.indices)
        yield lambda: len(sink.indices) >= shown + 15

    _sink, runner = play(relay.port, script)
    assert runner.streams[0].stats.reconnects >= 1


def test_slowed_and_let_go(relay: Relay) -> None:
    """After a slow spell the backlog is run through, not shown late for ever."""

    def script(sink: Lag, _runner: Runner) -> Iterator[Callable[[], bool]]:
        yield lambda: len(sink.indices) >= 20
        relay.rate = 25_000
        until = perf_counter() + 2
        yield lambda: perf_counter() > until
        relay.rate = None
        shown = len(sink.indices)
        yield lambda: len(sink.indices) >= shown + 35

    sink, _runner = play(relay.port, script)
    assert max(sink.lags) > 0.5, "it was slow indeed"
    assert np.median(sink.lags[-15:]) < 0.6


def test_lag_stays_bounded_when_decoding_is_slow(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 packets a second come, 8 can be decoded: after ten seconds, 6 would lie in the socket."""
    decoded = Omission.decoded

    def slowly(self: Omission, packet: object, pictures: int, haste: Haste) -> None:
        sleep(0.12)
        decoded(self, packet, pictures, haste)

    monkeypatch.setattr(Omission, "decoded", slowly)
    until = perf_counter() + 10

    def script(_sink: Lag, _runner: Runner) -> Iterator[Callable[[], bool]]:
        yield lambda: perf_counter() > until

    sink, runner = play(server.port, script)
    assert max(sink.lags) < 4
    stats = runner.streams[0].stats
    assert stats.dropped > 50
    assert (stats.reconnects, stats.decode_errors) == (0, 0)
    np.testing.assert_allclose(sink.ages, sink.lags, atol=0.4)
