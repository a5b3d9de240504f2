"""An engine whose answer is known, and sources whose frames are, for the tests of the runner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter, sleep
from types import TracebackType

import numpy as np

from pipeline.engines.base import EngineInfo, FrameBatch, OutputBatch, TensorSpec
from pipeline.errors import EngineError

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
        return self.wait(0).copy()

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
