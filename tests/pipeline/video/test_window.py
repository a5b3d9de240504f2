"""The window, on a real X server without a screen (Xvfb): keys, and a display that vanishes."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.video.output import Controls
from pipeline.video.sinks import window
from pipeline.video.sinks.window import WindowSink, display_available
from tests.pipeline.video.fakes import wait_until
from tests.pipeline.video.test_sinks import shown

needs_display = pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None,
    reason="Xvfb and xdotool are not installed",
)
TITLE = "street one"


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    # Without -noreset the server starts over when its last client leaves, and refuses meanwhile.
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp",
         "-noreset"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as answer:
        monkeypatch.setenv("DISPLAY", f":{answer.readline().strip()}")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield server
    server.kill()
    server.wait()


def find_window() -> str:
    done = subprocess.run(
        ["xdotool", "search", "--name", TITLE], capture_output=True, text=True, check=False
    )
    return done.stdout.split()[0] if done.stdout else ""


def press(key: str, effect: Callable[[], bool]) -> None:
    """Press a key until it shows: without a window manager the keyboard is not always ours yet."""
    window = find_window()
    for _ in range(6):
        subprocess.run(["xdotool", "mousemove", "--window", window, "30", "30"], check=True)
        subprocess.run(["xdotool", "windowfocus", window], check=False)
        subprocess.run(["xdotool", "key", key], check=True)
        if wait_until(effect, 2):
            return
    pytest.fail(f"the key {key} has no effect")


@contextmanager
def open_window(controls: Controls, *, alone: bool) -> Iterator[WindowSink]:
    sink = WindowSink(TITLE, controls, alone=alone)
    numbers = iter(range(10**6))

    def appeared() -> bool:
        sink.write(shown(next(numbers) % 1000))
        return bool(find_window())

    with closing(sink):
        assert wait_until(appeared, 20), f"no window; {list(controls.notices)}"
        yield sink


@needs_display
@pytest.mark.usefixtures("display")
def test_keys(tmp_path: Path) -> None:
    controls = Controls(snapshots=tmp_path)
    with open_window(controls, alone=True):
        press("space", controls.paused.is_set)
        press("space", lambda: not controls.paused.is_set())
        press("s", lambda: controls.take_wish(TITLE))
        press("q", controls.stop.is_set)
    assert wait_until(lambda: not find_window(), 5)


@needs_display
def test_display_that_vanishes_does_not_take_the_run_along(
    display: subprocess.Popen[bytes],
) -> None:
    controls = Controls()
    with open_window(controls, alone=False) as sink:
        display.kill()

        def noticed() -> bool:
            sink.write(shown(1))
            return bool(controls.notices)

        assert wait_until(noticed, 10)
        assert "going on without it" in controls.notices[0]
        assert not controls.stop.is_set()
        sink.write(shown(2))


@needs_display
def test_display_that_vanishes_ends_a_run_that_has_nothing_else(
    display: subprocess.Popen[bytes],
) -> None:
    with open_window(Controls(), alone=True) as sink:
        display.kill()

        def write_for_ever() -> bool:
            sink.write(shown(1))
            return False

        with pytest.raises(SinkError, match=r"is gone: .*; use --headless"):
            wait_until(write_for_ever, 10)


def test_display_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with closing(WindowSink(TITLE, Controls(), alone=True)) as sink:

        def write_for_ever() -> bool:
            sink.write(shown(1))
            return False

        with pytest.raises(SinkError, match=r"could not connect to display :987; use --headless"):
            wait_until(write_for_ever, 20)


def test_window_that_takes_no_frame_is_closed_before_its_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the pipe closed first, the rest of the frame would go to the next file opened."""
    stuck = tmp_path / "stuck.py"
    stuck.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(window, "_CHILD", stuck)
    monkeypatch.setattr(window, "_PATIENCE", 0.2)
    large = np.zeros((2000, 2000, 3), np.uint8)
    sink = WindowSink(TITLE, Controls())
    sink.write(dataclasses.replace(shown(1), canvas=large))
    sleep(0.3)  # by now the sender waits in the middle of the frame
    sink.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "window"]
    others = [(tmp_path / f"other{number}").open("wb") for number in range(8)]
    sleep(0.2)
    for other in others:
        other.close()
        assert Path(other.name).stat().st_size == 0


def test_headless_is_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not display_available()
    monkeypatch.setenv("DISPLAY", ":0")
    assert display_available()
