"""An engine whose answer is known, and sources whose frames are, for the tests of the runner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter, sleep
from types import TracebackType

import numpy as np

from pipeline.engines.base import EngineInfo, FrameBatch, OutputBatch, TensorSpec
from pipeline.errors import EngineError, SinkError, SourceError
from pipeline.video.sinks.base import Shown
from pipeline.video.source import Head
from tests.pipeline.video.clips import HEIGHT, WIDTH, Pixels, number_of, numbered

CLASSES = 19


class ColourEngine:
    """Labels each pixel by its blue channel: ``blue % 19``. Asynchronous, on threads of its own.

    Args:
        height: of the tile.
        width: of the tile.
        slots: requests at once.
        delay: seconds each run takes.
        fail_at: the run that fails, counted from 0; ``None`` for never.
        hang_at: the run that never ends.
    """

    def __init__(
        self,
        height: int = 64,
        width: int = 128,
        *,
        slots: int = 2,
        delay: float = 0.0,
        fail_at: int | None = None,
        hang_at: int | None = None,
    ) -> None:
        self.inputs = (TensorSpec("frames", "uint8", (1, height, width, 3), "NHWC"),)
        self.outputs = (TensorSpec("labels", "uint8", (1, height, width), "NHW"),)
        self.info = EngineInfo("fake", "none", "int8", "fake.xml")
        self.slots = slots
        self.runs = 0
        self._delay = delay
        self._fail_at = fail_at
        self._hang_at = hang_at
        self._in = [np.zeros(self.inputs[0].shape, np.uint8) for _ in range(slots)]
        self._out = [np.zeros(self.outputs[0].shape, np.uint8) for _ in range(slots)]
        self._threads: list[threading.Thread | None] = [None] * slots
        self._failed = [False] * slots
        self._closed = threading.Event()

    def input(self, slot: int) -> FrameBatch:
        return self._in[slot]

    def submit(self, slot: int) -> None:
        running = self._threads[slot]
        if running is not None and running.is_alive():
            raise EngineError(f"slot {slot} is in flight")
        number, self.runs = self.runs, self.runs + 1
        thread = threading.Thread(target=self._work, args=(slot, number), daemon=True)
        self._threads[slot] = thread
        thread.start()

    def _work(self, slot: int, number: int) -> None:
        if number == self._hang_at:
            self._closed.wait()
        if self._delay:
            sleep(self._delay)
        np.remainder(self._in[slot][..., 0], CLASSES, out=self._out[slot])
        self._failed[slot] = number == self._fail_at

    def wait(self, slot: int, timeout: float | None = None) -> OutputBatch:
        thread = self._threads[slot]
        if thread is None:
            raise EngineError(f"slot {slot} was never submitted")
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError
        if self._failed[slot]:
            raise EngineError("the device is gone")
        return self._out[slot]

    def infer(self, frames: FrameBatch) -> OutputBatch:
        self._in[0][...] = frames
        self.submit(0)
        return np.array(self.wait(0))

    def close(self) -> None:
        self._closed.set()

    def __enter__(self) -> ColourEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the condition came true in time."""
    deadline = perf_counter() + seconds
    while perf_counter() < deadline:
        if condition():
            return True
        sleep(0.01)
    return condition()


class CameraFake:
    """A live source that gives numbered frames at a steady rate, as a camera would.

    Args:
        rate: frames a second.
        frames: how many until it is lost; ``None`` for no end.
        stall_at: the frame before which it says nothing for ever.
        error_at: the frame at which it fails.
    """

    live = True
    truncated = False

    def __init__(
        self,
        rate: float = 100.0,
        frames: int | None = None,
        *,
        stall_at: int | None = None,
        error_at: int | None = None,
        first: int = 0,
    ) -> None:
        self.rate: float | None = rate
        self.decode_errors = 0
        self.closed = threading.Event()
        self._period = 1 / rate
        self._frames = frames
        self._stall_at = stall_at
        self._error_at = error_at
        self._first = first
        self._number = -1
        self._began = perf_counter()

    def grab(self) -> Head | None:
        self._number += 1
        if self._number == self._frames:
            return None
        if self._number == self._stall_at:
            self.closed.wait()
            return None
        if self._number == self._error_at:
            raise SourceError("the cable was pulled")
        due = self._began + self._number * self._period
        sleep(max(0.0, due - perf_counter()))
        return Head(HEIGHT, WIDTH, self._number * self._period)

    def retrieve(self, out: Pixels) -> None:
        out[...] = numbered(self._first + self._number)

    def close(self) -> None:
        self.closed.set()


class Recorder:
    """A sink that remembers what it was shown."""

    def __init__(
        self, *, needs_canvas: bool = False, delay: float = 0.0, fail_at: int | None = None
    ) -> None:
        self.needs_canvas = needs_canvas
        self.indices: list[int] = []
        self.numbers: list[int] = []
        self.timestamps: list[float] = []
        self.ages: list[float] = []
        self.labels: list[Pixels] = []
        self.canvases: list[Pixels] = []
        self.stale_shown = 0
        self.ended: str | None = None
        self._delay = delay
        self._fail_at = fail_at

    def write(self, shown: Shown) -> None:
        if len(self.indices) == self._fail_at:
            raise SinkError("the disk is full")
        if self._delay:
            sleep(self._delay)
        self.indices.append(shown.frame.index)
        self.numbers.append(number_of(shown.frame.bgr))
        self.timestamps.append(shown.frame.timestamp)
        self.ages.append(perf_counter() - shown.frame.captured_at)
        self.labels.append(shown.segmentation.labels.copy())
        if shown.canvas is not None:
            self.canvases.append(shown.canvas.copy())

    def stale(self, canvas: Pixels) -> None:
        self.stale_shown += 1
        self.canvases.append(canvas.copy())

    def close(self) -> str | None:
        self.ended = "closed"
        return None

    def discard(self) -> None:
        self.ended = "discarded"
