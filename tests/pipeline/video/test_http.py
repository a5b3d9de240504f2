"""The HTTP server, spoken to with plain sockets and urllib: pictures, figures, and who may see."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import SinkError, UsageError
from pipeline.video.draw import Painter, Style
from pipeline.video.metrics import StreamStats
from pipeline.video.sinks import http as http_sink
from pipeline.video.sinks.http import Address, VideoServer, parse_address
from pipeline.video.sinks.http_requests import Handler
from pipeline.video.sinks.mjpeg import MjpegSink
from pipeline.video.source import SourceOptions, open_reader, parse_source
from tests.pipeline.video.clips import HEIGHT, WIDTH, number_of
from tests.pipeline.video.fakes import wait_until
from tests.pipeline.video.test_sinks import shown

TOKEN = "-".join(["a", "token", "of", "good", "length"])
ANYWHERE = ".".join("0000")
Headers = dict[str, str]


@contextmanager
def serve(host: str = "127.0.0.1", token: str | None = None) -> Iterator[VideoServer]:
    server = VideoServer(Address(host, 0), token=token, engine={"summary": "fake"})
    try:
        yield server
    finally:
        server.close()


def ask(
    server: VideoServer, path: str, headers: Headers | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def add_stream(server: VideoServer, name: str = "cam0") -> tuple[MjpegSink, StreamStats, Painter]:
    stats, painter = StreamStats(name), Painter(Style(), name)
    return server.add(stats, painter), stats, painter


@contextmanager
def feeding(sink: MjpegSink, rate: float = 50.0) -> Iterator[None]:
    """Frames keep coming."""
    stop = threading.Event()

    def feed() -> None:
        number = 0
        while not stop.wait(1 / rate):
            sink.write(shown(number % 1000))
            number += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def parts(file: Any, count: int) -> list[bytes]:
    """The first pictures of a multipart stream, parsed by RFC 2046 and not by the server's code."""
    found = []
    for _ in range(count):
        assert file.readline() == b"--frame\r\n"
        length = 0
        while (line := file.readline()) != b"\r\n":
            name, _colon, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        found.append(file.read(length))
        assert file.readline() == b"\r\n"
    return found


def test_page_and_its_parts() -> None:
    with serve() as server:
        for path, kind in (
            ("/", "text/html"),
            ("/page.css", "text/css"),
            ("/page.js", "text/java"),
        ):
            status, headers, body = ask(server, path)
            assert status == 200
            assert headers["Content-Type"].startswith(kind)
            assert len(body) > 500
            assert headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert headers["X-Content-Type-Options"] == "nosniff"
        assert ask(server, "/", method="HEAD")[2] == b""
        assert ask(server, "/../../pyproject.toml")[0] == 404
        assert ask(server, "/streams/0.mjpg")[0] == 404, "there is no stream yet"
        assert ask(server, "/", method="POST")[0] == 501


def test_stream_is_a_multipart_of_newest_pictures() -> None:
    with serve() as server:
        sink, _stats, _painter = add_stream(server)
        assert not sink.needs_canvas, "nothing is drawn while nobody looks"
        with feeding(sink):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", "/streams/0.mjpg")
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            pictures = [
                cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR)
                for part in parts(answer, 5)
            ]
            assert sink.needs_canvas
            answer.close()
            connection.close()
        assert all(picture.shape == (HEIGHT, WIDTH, 3) for picture in pictures)
        numbers = [number_of(np.asarray(picture, np.uint8)) for picture in pictures]
        assert numbers == sorted(set(numbers))
        assert wait_until(lambda: not sink.needs_canvas or feed_one(sink)), "the viewer has gone"


def feed_one(sink: MjpegSink) -> bool:
    """The server notices a viewer's leaving when it next writes to it."""
    sink.write(shown(1))
    return False


def test_runner_reads_what_it_serves() -> None:
    """An HTTP camera: live, with the clock of its arrival, JPEGs having none."""
    with serve() as server:
        sink, _stats, _painter = add_stream(server)
        with feeding(sink, rate=10.0):
            spec = parse_source(f"http://127.0.0.1:{server.port}/streams/0.mjpg")
            reader = open_reader(spec, SourceOptions())
            out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
            numbers, times = [], []
            for _ in range(10):
                head = reader.grab()
                assert head is not None
                reader.retrieve(out)
                numbers.append(number_of(out))
                times.append(head.timestamp)
            live = reader.live
            reader.close()
    assert live
    assert numbers == sorted(set(numbers))
    np.testing.assert_allclose(times[-1] - times[3], (numbers[-1] - numbers[3]) / 10, rtol=0.4)


def test_single_picture() -> None:
    with serve() as server:
        sink, _stats, _painter = add_stream(server)
        with feeding(sink):
            status, headers, body = ask(server, "/streams/0.jpg")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert ask(server, "/streams/1.jpg")[0] == 404


def test_viewer_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.5)
    with serve() as server:
        sink, _stats, _painter = add_stream(server)
        lazy = socket.create_connection(("127.0.0.1", server.port))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"GET /streams/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wait_until(lambda: sink.needs_canvas)
        # Noise does not compress, so the lazy viewer's buffers are soon full.
        noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
        large = dataclasses.replace(shown(0), canvas=noise)
        begin = perf_counter()
        for _ in range(100):
            sink.write(large)
        assert perf_counter() - begin < 2
        assert ask(server, "/")[0] == 200

        def sent_away() -> bool:
            sink.write(large)
            return not server.channels[0].watched

        assert wait_until(sent_away)
        lazy.close()


def test_status_tells_the_figures_and_the_legend() -> None:
    with serve() as server:
        _sink, stats, painter = add_stream(server, "rtsp://cam/1")
        one = shown(3)
        stats.captured, stats.replaced, stats.decode_errors, stats.reconnects = 9, 4, 2, 1
        now = perf_counter()
        for step in range(5):
            stats.count_shown(now - 0.03, now + step * 0.05)
        painter.paint(one.frame, one.segmentation, stats, None)
        status = json.loads(ask(server, "/status.json")[2])
        (stream,) = status["streams"]
        assert stream["name"] == "rtsp://cam/1"
        assert (stream["dropped"], stream["decode_errors"], stream["reconnects"]) == (4, 2, 1)
        assert stream["frames"] == 5
        assert stream["latency_ms"] > 25
        there = {c["name"]: c["color"] for c in stream["classes"]}
        assert there["road"] == "#804080", "Cityscapes' colour of road"
        assert status["engine"] == {"summary": "fake"}


def test_metrics_are_what_prometheus_reads() -> None:
    with serve() as server:
        _sink, stats, _painter = add_stream(server)
        stats.captured, stats.replaced = 12, 5
        for milliseconds in (8, 18, 45, 900):
            stats.count_shown(0.0, milliseconds / 1e3)
        status, headers, body = ask(server, "/metrics")
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
        families = {f.name: f for f in text_string_to_metric_families(body.decode())}
        assert families["repmlp_edge_frames"].samples[0].value == 4
        labels = {"stream": "0", "source": "cam0"}
        assert families["repmlp_edge_dropped_frames"].samples[0].labels == labels
        assert families["repmlp_edge_dropped_frames"].samples[0].value == 5
        buckets = {
            sample.labels["le"]: sample.value
            for sample in families["repmlp_edge_latency_seconds"].samples
            if sample.name.endswith("_bucket")
        }
        assert (buckets["0.005"], buckets["0.01"], buckets["0.02"], buckets["0.06"]) == (0, 1, 2, 3)
        assert buckets["+Inf"] == 4


def test_streams_of_one_name_have_metrics_of_their_own() -> None:
    """Two samples with the same labels make Prometheus refuse all of them."""
    with serve() as server:
        for shown_so_far in (3, 5):
            add_stream(server, "cam0")[1].shown = shown_so_far
        text = ask(server, "/metrics")[2].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = {s.labels["stream"]: s.value for s in families["repmlp_edge_frames"].samples}
    assert found == {"0": 3, "1": 5}
    names = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(names) == len(set(names))


def test_too_many_viewers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_sink, "MAX_CONNECTIONS", 2)
    with serve() as server:
        sink, _stats, _painter = add_stream(server)
        with feeding(sink):
            viewers = []
            for _ in range(2):
                viewer = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
                viewer.request("GET", "/streams/0.mjpg")
                parts(viewer.getresponse(), 1)
                viewers.append(viewer)
            assert ask(server, "/")[0] == 503
            assert ask(server, "/metrics")[0] == 200, "viewers do not crowd out Prometheus"
            for viewer in viewers:
                viewer.close()
            assert wait_until(lambda: ask(server, "/")[0] == 200)


def test_scrapes_have_a_bound_of_their_own() -> None:
    with serve() as server:
        for _ in range(http_sink.MAX_SCRAPES):
            assert server.scrapes.acquire(blocking=False)
        assert ask(server, "/metrics?x=1")[0] == 503
        assert ask(server, "/")[0] == 200
        server.scrapes.release()
        for _ in range(3):  # each gives it back, though perhaps after its answer is read
            assert wait_until(lambda: ask(server, "/metrics")[0] == 200)


def test_port_in_use_is_one_line() -> None:
    with serve() as server, pytest.raises(SinkError, match=f":{server.port}: Address already"):
        VideoServer(Address("127.0.0.1", server.port), token=None, engine={})


def test_closing_ends_the_viewers_streams() -> None:
    with serve() as server:
        sink, _stats, _painter = add_stream(server)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", "/streams/0.mjpg")
        answer = connection.getresponse()
        with feeding(sink):
            parts(answer, 2)
        sleep(0.1)
        server.close()
        assert answer.read().endswith(b"--frame--\r\n")


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("8080", "127.0.0.1", 8080, True),
        (":8080", "127.0.0.1", 8080, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:9", "::1", 9, True),
        (f"{ANYWHERE}:80", ANYWHERE, 80, False),
        ("box.lan:80", "box.lan", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)


@pytest.mark.parametrize("text", ["", "http", "host:", "1:2:x", "70000", "-1", "9" * 5000])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--http"):
        parse_address(text)
