"""Pictures for viewers who come and go: the newest one, encoded once, however many are watching."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import cv2
import numpy as np

from pipeline.video.frames import Pixels
from pipeline.video.sinks.base import Shown

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]


class Channel:
    """One stream's newest picture as a JPEG.

    Frames are copied in by the outlet, only while someone watches; a thread of the channel's own
    encodes the newest of them, so a slow encoder skips pictures and never delays the stream.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._viewers = 0
        self._waiting: Pixels = np.empty((0, 0, 3), np.uint8)
        self._fresh = False
        self._jpeg = b""
        self._number = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        """Whether the stream is over."""
        return self._closed

    @property
    def watched(self) -> bool:
        """Whether there is a viewer."""
        return self._viewers > 0

    def offer(self, canvas: Pixels) -> None:
        """Take a copy of the canvas, if anyone is watching."""
        with self._changed:
            if not self._viewers or self._closed:
                return
            if self._waiting.shape != canvas.shape:
                self._waiting = np.empty_like(canvas)
            np.copyto(self._waiting, canvas)
            self._fresh = True
            self._changed.notify_all()

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Be counted as watching."""
        with self._changed:
            self._viewers += 1
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._encode, name="jpeg", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._viewers -= 1
                if not self._viewers:
                    self._jpeg = b""  # a later viewer shall not be shown this old one

    def newer_than(self, number: int, timeout: float) -> tuple[int, bytes] | None:
        """(number, JPEG) of a picture after the given one; ``None`` once closed or out of time."""
        deadline = perf_counter() + timeout
        with self._changed:
            while not (self._jpeg and self._number > number):
                left = deadline - perf_counter()
                if self._closed or left <= 0:
                    return None
                self._changed.wait(left)
            return self._number, self._jpeg

    def close(self) -> None:
        """End every viewer's stream."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _encode(self) -> None:
        taken: Pixels = np.empty((0, 0, 3), np.uint8)
        while True:
            with self._changed:
                while not self._fresh and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._fresh = False
                if taken.shape != self._waiting.shape:
                    taken = np.empty_like(self._waiting)
                taken, self._waiting = self._waiting, taken
            done, data = cv2.imencode(".jpg", taken, _QUALITY)
            if done:
                with self._changed:
                    self._jpeg, self._number = data.tobytes(), self._number + 1
                    self._changed.notify_all()


class MjpegSink:
    """Shows the canvas to a channel's viewers. The server is closed by its owner."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def needs_canvas(self) -> bool:
        """Whether anyone is watching: nothing is drawn for nobody."""
        return self._channel.watched

    def write(self, shown: Shown) -> None:
        """Offer the frame."""
        if shown.canvas is not None:
            self._channel.offer(shown.canvas)

    def stale(self, canvas: Pixels) -> None:
        """Offer the marked picture."""
        self._channel.offer(canvas)

    def close(self) -> str | None:
        """Nothing remains of it."""
        return None

    def discard(self) -> None:
        """Nothing remains of it."""
