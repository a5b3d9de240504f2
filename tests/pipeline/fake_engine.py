"""An engine of the protocol that is plain NumPy, and what a segmenter over it must answer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.engines.base import EngineInfo, TensorSpec
from pipeline.errors import EngineError

CLASSES = 6
# Fractions of pi: no mean of sixteen bytes lies exactly between two of them.
MIXES = np.pi * np.array([[9, -4, 1], [2, 8, -5], [-7, 3, 6], [5, 5, -9], [1, 1, 1], [-3, -2, 8]])


def network(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A network that sees four by four pixels: class scores are mixtures of their mean colour."""
    batch, height, width, _ = frames.shape
    means = frames.reshape(batch, height // 4, 4, width // 4, 4, 3).mean(axis=(2, 4))
    return np.ascontiguousarray(np.einsum("bhwk,ck->bchw", means, MIXES).astype(np.float32))


class FakeEngine:
    """A test double of the protocol: ``network`` run when waited for, with the protocol's checks.

    It computes at ``wait`` from the slot's buffer, so that a caller who touches the buffer of a
    slot in flight gets a wrong result, and it refuses what the protocol forbids.
    """

    def __init__(
        self,
        tile: tuple[int, int] = (32, 64),
        *,
        batch: int = 1,
        slots: int = 2,
        labels: bool = False,
    ) -> None:
        self.inputs = (TensorSpec("frames", "uint8", (batch, *tile, 3), "NHWC"),)
        logits = TensorSpec(
            "logits", "float32", (batch, CLASSES, tile[0] // 4, tile[1] // 4), "NCHW"
        )
        ids = TensorSpec("labels", "uint8", (batch, *tile), "NHW")
        self.outputs = (ids if labels else logits,)
        self.info = EngineInfo("fake", "none", "fp32", "fake.engine")
        self.slots = slots
        self.runs = 0
        self.slow: set[int] = set()
        self.broken: set[int] = set()
        self._inputs = [np.zeros((batch, *tile, 3), np.uint8) for _ in range(slots)]
        spec = self.outputs[0]
        self._outputs = [np.zeros(spec.shape, spec.dtype) for _ in range(slots)]
        self._seen: list[bytes | None] = [None] * slots

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        if self._seen[slot] is not None:
            raise EngineError(f"slot {slot} is in flight")
        return self._inputs[slot]

    def submit(self, slot: int) -> None:
        if self._seen[slot] is not None:
            raise EngineError(f"slot {slot} is in flight")
        self._seen[slot] = self._inputs[slot].tobytes()
        self.runs += 1

    def wait(self, slot: int, timeout: float | None = None) -> npt.NDArray[Any]:
        seen = self._seen[slot]
        if seen is None:
            raise EngineError(f"slot {slot} was never submitted")
        if slot in self.slow and timeout is not None:
            raise TimeoutError("still running")
        self._seen[slot] = None
        if slot in self.broken:
            raise EngineError("the device is gone")
        assert seen == self._inputs[slot].tobytes(), "written to while in flight"
        values: npt.NDArray[Any] = network(self._inputs[slot])
        if self.outputs[0].layout == "NHW":
            values = values.argmax(axis=1).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
        self._outputs[slot][...] = values
        return self._outputs[slot]

    def infer(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        self.input(0)[...] = frames
        self.submit(0)
        output: npt.NDArray[Any] = self.wait(0).copy()
        return output

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Colours that change smoothly over some ten pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8)
    frame: npt.NDArray[np.uint8] = cv2.resize(
        coarse, (width, height), interpolation=cv2.INTER_CUBIC
    )
    return frame


def whole_frame_labels(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """One tile as large as the frame, reflected up to a multiple of 4; OpenCV's own resize.

    An enlargement by exactly 4 is sampled at half-pixel positions by OpenCV too.
    """
    height, width = frame.shape[:2]
    right = np.pad(frame, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
    logits = network(right[None])[0]
    size = (right.shape[1], right.shape[0])
    full = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in logits]
    labels: npt.NDArray[np.uint8] = np.stack(full).argmax(axis=0).astype(np.uint8)
    return labels[:height, :width]


def assert_nearly_equal(got: npt.NDArray[np.uint8], want: npt.NDArray[np.uint8]) -> None:
    """But for single pixels on a border between classes, where rounding decides."""
    assert got.shape == want.shape
    assert (got != want).mean() < 2e-3
