"""A window on the desktop: ``q`` quits, space pauses, ``s`` saves the frame as pictures.

The window lives in a child process (``window_process.py`` says why) and is fed the newest frame
by a thread, so that neither a slow nor a vanished display holds anything up.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from pipeline.errors import SinkError
from pipeline.video.frames import Pixels
from pipeline.video.output import Controls
from pipeline.video.sinks.base import Shown
from pipeline.video.sinks.window_process import HEADER

_CHILD = Path(__file__).with_name("window_process.py")
_PATIENCE = 2.0
_MOST_WORDS = 4096


def display_available() -> bool:
    """Whether there is a display to open a window on."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class WindowSink:
    """Shows the canvas of one stream.

    Args:
        title: of the window, and the stream's name.
        controls: told what the person wants, and of a display that vanished.
        alone: whether the window is all the run is for: then its end is an error.
    """

    needs_canvas = True

    def __init__(self, title: str, controls: Controls, *, alone: bool = False) -> None:
        self._title = title
        self._controls = controls
        self._alone = alone
        self._gone: str | None = None
        self._closing = False
        self._next: Pixels = np.empty((0, 0, 3), np.uint8)
        self._fresh = False
        self._changed = threading.Condition()
        self._child: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []

    def write(self, shown: Shown) -> None:
        """Show a frame as soon as the window is ready for one; a newer one replaces it."""
        if shown.canvas is not None:
            self._offer(shown.canvas)
        if self._gone is not None and self._alone:
            raise SinkError(f"{self._gone}; use --headless with --output or --http")

    def stale(self, canvas: Pixels) -> None:
        """Show the marked picture."""
        self._offer(canvas)

    def close(self) -> str | None:
        """Close the window.

        No pipe is closed before the thread that uses it has ended: its number would soon be that
        of another file, and the rest of a frame would be written there.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        child, self._child = self._child, None
        if child is None:
            return None
        sender, listener = self._threads
        sender.join(_PATIENCE)
        if sender.is_alive():  # in the middle of a frame that the window does not take
            child.kill()
            sender.join()
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended before us
                child.stdin.close()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        listener.join()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        return None

    def discard(self) -> None:
        """The same as ``close``."""
        self.close()

    def _offer(self, canvas: Pixels) -> None:
        if self._gone is not None:
            return
        if self._child is None and not self._closing:
            self._start()
        with self._changed:
            if self._next.shape != canvas.shape:
                self._next = np.empty_like(canvas)
            np.copyto(self._next, canvas)
            self._fresh = True
            self._changed.notify_all()

    def _start(self) -> None:
        settings = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT"}
        self._child = child = subprocess.Popen(
            [sys.executable, str(_CHILD), self._title],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=settings, start_new_session=True, bufsize=0,
        )  # fmt: skip
        self._threads = [
            threading.Thread(target=work, args=(child,), name="window", daemon=True)
            for work in (self._show, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def _show(self, child: subprocess.Popen[bytes]) -> None:
        """Send the newest frame whenever the window has taken the last one."""
        sent: Pixels = np.empty((0, 0, 3), np.uint8)
        pipe = child.stdin
        while pipe is not None:
            with self._changed:
                while not self._fresh and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                self._fresh = False
                # The two buffers change places: one is filled while the other is sent.
                if sent.shape != self._next.shape:
                    sent = np.empty_like(self._next)
                sent, self._next = self._next, sent
            try:
                _send(pipe.fileno(), HEADER.pack(sent.shape[0], sent.shape[1]))
                _send(pipe.fileno(), sent.data.cast("B"))
            except OSError:
                return  # _listen sees why

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Pass on what the person wants; notice when the window ends."""
        pipe = child.stdout
        while pipe is not None:
            wish = pipe.read(1)
            if wish == b"q":
                self._controls.stop.set()
            elif wish == b" ":
                self._controls.pause_or_go_on()
            elif wish == b"s":
                self._controls.save(self._title)
            elif not wish:
                break
        if not self._closing and not self._controls.stop.is_set():
            self._gone = f"the window of '{self._title}' is gone: {_last_words(child)}"
            if not self._alone:
                self._controls.notices.append(f"{self._gone}; going on without it")


def _last_words(child: subprocess.Popen[bytes]) -> str:
    """Why the window ended, in its own words: Qt's, that is."""
    said = b""
    if child.stderr is not None:
        # Not until its end: what else Qt started may hold the pipe open.
        os.set_blocking(child.stderr.fileno(), False)
        said = child.stderr.read(_MOST_WORDS) or b""
    for line in said.decode(errors="replace").splitlines():
        if "display" in line:
            return line.strip()
    return "its display does not answer"


def _send(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
