"""Engines whose answer is painted into the frame, and frames painted so, for the report's tests.

Blue holds what the reference will say of a pixel, green what the candidate will, red what the
exact graph will. With frames of the engine's own size nothing is resized, and every count is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from pipeline.engines.base import EngineInfo, FrameBatch, OutputBatch, TensorSpec
from pipeline.inference import FrameSegmenter
from pipeline.report.evaluate import Contestant

Labels = npt.NDArray[np.uint8]
CLASSES = 19
SHAPE = (48, 64)
BLUE, GREEN, RED = 0, 1, 2


class PaintedEngine:
    """Labels each pixel with one channel of the frame; synchronous, one slot.

    Args:
        channel: of the frame.
        shape: (height, width) of its input.
        classes: ``None`` to give labels; otherwise logits at stride 4, of that many classes, with
            the label of each cell's first pixel on top.
        on_run: called before each run.
        transform: applied to the labels.
    """

    def __init__(
        self,
        channel: int = BLUE,
        shape: tuple[int, int] = SHAPE,
        *,
        classes: int | None = None,
        on_run: Callable[[], None] = lambda: None,
        transform: Callable[[Labels], Labels] = lambda labels: labels,
    ) -> None:
        height, width = shape
        self._channel, self._classes = channel, classes
        self._on_run, self._transform = on_run, transform
        self.inputs = (TensorSpec("frames", "uint8", (1, height, width, 3), "NHWC"),)
        self.outputs = (
            TensorSpec("labels", "uint8", (1, height, width), "NHW")
            if classes is None
            else TensorSpec("logits", "float32", (1, classes, height // 4, width // 4), "NCHW"),
        )
        self.info = EngineInfo("double", "none", "fp32", f"channel-{channel}")
        self.slots = 1
        self._buffer = np.zeros((1, height, width, 3), np.uint8)

    def input(self, slot: int) -> FrameBatch:
        return self._buffer

    def submit(self, slot: int) -> None:
        self._on_run()

    def wait(self, slot: int, timeout: float | None = None) -> OutputBatch:
        return self.infer(self._buffer)

    def infer(self, frames: FrameBatch) -> OutputBatch:
        labels = self._transform(np.ascontiguousarray(frames[..., self._channel]))
        if self._classes is None:
            return labels
        cells = labels[:, ::4, ::4]
        logits = (cells[:, None] == np.arange(self._classes)[:, None, None]).astype(np.float32)
        return np.ascontiguousarray(logits)

    def close(self) -> None:
        pass

    def __enter__(self) -> PaintedEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class PaintedFrames:
    """Frames in memory: lists of truth, reference, candidate and exact labels, (H, W) uint8."""

    def __init__(
        self,
        truth: Sequence[Labels],
        reference: Sequence[Labels],
        candidate: Sequence[Labels],
        exact: Sequence[Labels] | None = None,
    ) -> None:
        self._truth = truth
        self._painted = [
            np.ascontiguousarray(np.stack(channels, -1))
            for channels in zip(reference, candidate, exact or reference, strict=True)
        ]
        self.names = tuple(f"street_{i:06d}_000000" for i in range(len(truth)))

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], Labels]:
        return self._painted[index], self._truth[index]


class EndlessFrames:
    """Frames made when they are read, so that nothing of them is in memory before or after."""

    def __init__(self, count: int, shape: tuple[int, int] = SHAPE, error: float = 0.2) -> None:
        self.names = tuple(f"street_{i:06d}_000000" for i in range(count))
        self._shape, self._error = shape, error

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], Labels]:
        truth, said = scene(index, self._shape, error=self._error)
        return np.ascontiguousarray(np.stack(said, -1)), truth


def scene(
    seed: int, shape: tuple[int, int] = SHAPE, *, error: float = 0.2, ignored: float = 0.1
) -> tuple[Labels, list[Labels]]:
    """Truth in blocks of six classes, and three versions of it with random mistakes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, (-(-shape[0] // 8), -(-shape[1] // 8)))
    truth = np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]].astype(np.uint8)
    said = []
    for _ in range(3):
        wrong = rng.random(shape) < error
        said.append(np.where(wrong, rng.integers(0, CLASSES, shape), truth).astype(np.uint8))
    truth[rng.random(shape) < ignored] = 255
    return truth, said


def painted(count: int, shape: tuple[int, int] = SHAPE, *, error: float = 0.2) -> PaintedFrames:
    """Frames of ``scene``, as lists."""
    scenes = [scene(seed, shape, error=error) for seed in range(count)]
    versions = [[said[k] for _truth, said in scenes] for k in range(3)]
    return PaintedFrames([truth for truth, _said in scenes], *versions)


def contestants(
    shape: tuple[int, int] = SHAPE,
    on_run: Callable[[str], None] = lambda name: None,
) -> tuple[Contestant, Contestant, Contestant]:
    """Reference, candidate and exact graph over painted frames."""

    def make(name: str, channel: int) -> Contestant:
        engine = PaintedEngine(channel, shape, on_run=lambda: on_run(name))
        return Contestant(name, FrameSegmenter(engine))

    return make("fp32", BLUE), make("int8", GREEN), make("exact graph", RED)
