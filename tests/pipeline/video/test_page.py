"""The page in a real browser: headless Chromium, driven over its own debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pytest

from calibration.cityscapes import CLASS_NAMES
from pipeline.video.draw import Painter, Style
from pipeline.video.metrics import StreamStats
from pipeline.video.sinks.base import Shown
from pipeline.video.sinks.http import Address, VideoServer
from tests.pipeline.video.test_sinks import shown

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Browser:
    """Chromium, spoken to in the DevTools protocol over file descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()

        def arrange() -> None:
            # dup2 makes descriptors that the child inherits; 3 and 4 may be taken, so via 100.
            os.dup2(read_commands, 100)
            os.dup2(write_answers, 101)
            os.dup2(100, 3)
            os.dup2(101, 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), "--headless=new", "--remote-debugging-pipe", "--no-sandbox",
             "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--window-size=1280,900",
             f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=arrange, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_commands)
        os.close(write_answers)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = None
        self._session = self.call(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )["sessionId"]  # fmt: skip

    _session: str | None = None

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 40.0) -> Any:
        deadline = perf_counter() + seconds
        while perf_counter() < deadline:
            if value := self.evaluate(expression):
                return value
        raise AssertionError(f"never true in the page: {expression}")

    def screenshot(self) -> np.ndarray[Any, Any]:
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        return np.asarray(picture)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        line, _zero, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(params=[None, "-".join(["a", "token", "of", "good", "length"])])
def server(request: pytest.FixtureRequest) -> Iterator[VideoServer]:
    found = VideoServer(
        Address("127.0.0.1", 0), token=request.param,
        engine={"summary": "edge-s int8"},
    )  # fmt: skip
    yield found
    found.close()


def fact(name: str) -> str:
    return f"document.querySelector('[data-fact={name}]').textContent"


def test_page_shows_pictures_figures_and_legend(server: VideoServer, browser: Browser) -> None:
    """Red pictures come in, so what the page shows must be red where the picture is."""
    stats, painter = StreamStats("cam0"), Painter(Style(), "cam0")
    sink = server.add(stats, painter)
    red = np.zeros((180, 320, 3), np.uint8)
    red[..., 2] = 230
    stop = threading.Event()

    def feed() -> None:
        one = shown(13)
        while not stop.wait(0.02):
            now = perf_counter()
            painter.paint(one.frame, one.segmentation, stats, None)
            sink.write(Shown(one.frame, one.segmentation, red, stats))
            stats.captured += 1
            stats.count_shown(now - 0.042, now)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        browser.call("Page.enable")
        browser.call("Runtime.enable")
        browser.call("Log.enable")
        browser.call("Page.navigate", url=server.url)
        browser.until("document.querySelector('#link')?.className === 'up'")
        browser.until("document.querySelector('img')?.naturalWidth === 320")
        browser.until(f"Number({fact('fps')}) > 5")
        browser.until(f"/^4[0-9] ms$/.test({fact('latency')})")
        assert browser.evaluate("document.querySelector('h2').textContent") == "cam0"
        assert browser.evaluate("document.querySelector('#engine').textContent") == "edge-s int8"
        legend = browser.evaluate(
            "[...document.querySelectorAll('.legend li')].map(item => item.textContent)"
        )
        assert set(legend) == {CLASS_NAMES[c] for c in painter.present}
        assert "token" not in browser.evaluate("location.href"), "the token left the address bar"
        box = browser.evaluate(
            "(() => { const r = document.querySelector('img').getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2].map(Math.round) })()"
        )
        picture = browser.screenshot()
        blue, green, red_part = picture[box[1], box[0]]
        assert red_part > 200
        assert max(blue, green) < 40
        stats.away_since = perf_counter() - 7
        badge = "document.querySelector('.badge:not([hidden])')?.textContent"
        browser.until(f"/^stale ([7-9]|[1-9]\\d) s$/.test({badge})")  # a slow page may see 8
        stats.away_since = None
        stats.replaced = 3
        browser.until(fact("dropped") + " === '3'")
        if os.environ.get("REPMLP_EDGE_KEEP_PICTURES"):
            cv2.imwrite(os.environ["REPMLP_EDGE_KEEP_PICTURES"], browser.screenshot())
    finally:
        stop.set()
        feeder.join()
    complaints = [
        event for event in browser.events
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
    ]  # fmt: skip
    assert complaints == [], "the browser complains, of the page's policy perhaps"
    server.close()
    browser.until("document.querySelector('#link').className === 'down'")


def test_many_streams_leave_a_connection_for_the_figures(browser: Browser) -> None:
    """Seven running pictures would take all six connections that a browser opens to a host."""
    count = 7
    server = VideoServer(Address("127.0.0.1", 0), token=None, engine={})
    sinks, figures = [], []
    for number in range(count):
        stats = StreamStats(f"cam{number}")
        sinks.append(server.add(stats, Painter(Style(), stats.source)))
        figures.append(stats)
    stop = threading.Event()

    def feed() -> None:
        one = shown(13)
        while not stop.wait(0.05):
            for number, (sink, stats) in enumerate(zip(sinks, figures, strict=True)):
                picture = np.full((90, 160 + 2 * number, 3), 120, np.uint8)
                sink.write(Shown(one.frame, one.segmentation, picture, stats))
                stats.shown += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        browser.call("Page.navigate", url=server.url)
        for number in range(count):
            browser.until(
                f"document.querySelectorAll('img')[{number}]?.naturalWidth === {160 + 2 * number}"
            )
        frames = "document.querySelectorAll('[data-fact=frames]')[6].textContent"
        before = int(browser.evaluate(frames))
        browser.until(f"Number({frames}) > {before + 20}")
    finally:
        stop.set()
        feeder.join()
        server.close()
