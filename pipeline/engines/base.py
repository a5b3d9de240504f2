"""The engine protocol: what every back end looks like to the code that runs frames.

An engine owns a fixed number of *slots*. A slot is one request with its own preallocated input
and output buffers, so the steady state allocates nothing and the caller writes tiles straight
into the memory the device reads:

    engine.input(slot)[...] = tiles     # uint8 BGR, NHWC
    engine.submit(slot)                 # returns at once
    logits = engine.wait(slot)          # a view, valid until the slot's next submit

Outputs come in one of two kinds, told apart by ``outputs[0].layout``:

* ``NCHW``: float32 logits at stride 4, shape (N, classes, H/4, W/4);
* ``NHW``: uint8 train ids at the input's full resolution, shape (N, H, W), already
  upsampled and argmaxed on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from pipeline.errors import EngineError
from pipeline.manifest import TensorSpec

__all__ = [
    "Engine", "EngineBase", "EngineInfo", "FrameBatch", "OutputBatch", "TensorSpec",
]  # fmt: skip

FrameBatch: TypeAlias = npt.NDArray[np.uint8]
OutputBatch: TypeAlias = npt.NDArray[Any]
Self = TypeVar("Self")  # typing has its own from Python 3.11 on


@dataclass(frozen=True)
class EngineInfo:
    """Who an engine is, for people and manifests.

    Attributes:
        backend: ``openvino``, ``tensorrt``, ``tensorrt-rtx`` or ``onnxruntime``.
        device: the device that executes it, as its runtime names it.
        precision: ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``int8+fp16``: what was asked for.
        executed: how many layers run in which precision, as the compiled model reports it.
        path: the file it was opened from.
        extra: further facts (threads, streams, versions), plain JSON values.
    """

    backend: str
    device: str
    precision: str
    path: str
    executed: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """A compiled network of fixed shape. A context manager; not safe for two threads on one slot.

    Different slots may be used from different threads at once.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The one input: uint8 BGR frames (N, H, W, 3), layout ``NHWC``."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The one output, see the module docstring for its two kinds."""

    @property
    def info(self) -> EngineInfo:
        """Back end, device, precision and provenance."""

    @property
    def slots(self) -> int:
        """How many requests may be under way at once (at least 1)."""

    def input(self, slot: int) -> FrameBatch:
        """The slot's own input buffer, writable, C-contiguous; hands off while in flight."""

    def submit(self, slot: int) -> None:
        """Start the slot. Raises ``EngineError`` if it is still in flight."""

    def wait(self, slot: int, timeout: float | None = None) -> OutputBatch:
        """The slot's output, a view valid until its next submit.

        Raises ``TimeoutError`` after ``timeout`` seconds; ``EngineError`` if the device failed
        or the slot was never submitted. Without a timeout it waits for as long as the device may
        still be at work; that a GPU hangs is an ``EngineError`` too.
        """

    def infer(self, frames: FrameBatch) -> OutputBatch:
        """Run one batch on slot 0 and return a copy of the output.

        Raises ``EngineError`` when ``frames`` is not exactly the engine's dtype and shape.
        """

    def close(self) -> None:
        """Release the device. Safe to call twice."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class EngineBase:
    """What every engine of ours does in the same way, in terms of the rest of the protocol."""

    def infer(self: Engine, frames: FrameBatch) -> OutputBatch:
        """See the protocol."""
        want = self.inputs[0].shape
        if frames.shape != want or frames.dtype != np.uint8:
            raise EngineError(f"engine takes uint8 {want}, got {frames.dtype} {frames.shape}")
        np.copyto(self.input(0), frames)
        self.submit(0)
        return np.array(self.wait(0))

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self: Engine,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
