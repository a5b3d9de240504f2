"""One request on a TensorRT engine: its buffers, its stream, and the order of what happens there.

    host input --copy--> device input --execute--> device output --copy--> host output, event

All of it is queued on the request's own stream and nothing waits for it but ``wait``, which asks
again and again: a call that waits inside CUDA never ends when the device hangs. Where CUDA graphs
are to be had, the three steps are recorded once and launched as one from then on, which saves the
processor the queueing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any, Protocol

import numpy as np

from pipeline.engines.base import FrameBatch, OutputBatch, TensorSpec
from pipeline.engines.cuda_memory import CudaMemory
from pipeline.engines.trt_kernels import Kernels
from pipeline.errors import EngineError

_POLL_SECONDS = 50e-6
DRAIN_SECONDS = 5.0
RUN_SECONDS = 300.0
"""No network that fits a GPU takes as long, once it is queued; a GPU that hangs does."""
OWN_RUNS = 3
"""Of a TensorRT that captures by itself: it allocates, it captures, it replays.

Without them it would capture in the runner's first frames, while another thread polls an event: a
call that a capture of the global kind forbids.
"""


class Context(Protocol):
    """What is used of TensorRT's ``IExecutionContext``."""

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Where an input or output lies on the device."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue an inference."""


class Request:
    """One slot: buffers for one input and one output, a stream, an event, maybe a graph.

    Args:
        memory: where to take them from.
        context: an execution context of its own; it holds the request's activations.
        given: the input.
        gives: the output.
        failure: the error for what TensorRT refuses, given what could not be done.
    """

    def __init__(
        self, memory: CudaMemory, context: Context, given: TensorSpec, gives: TensorSpec,
        failure: Callable[[str], EngineError],
    ) -> None:  # fmt: skip
        self._memory, self._context, self._failure = memory, context, failure
        self._graph: int | None = None
        self._state = "idle"
        self._queued = 0.0  # when, by perf_counter
        self._unmarked = False  # whether the stream may hold work that no event marks the end of
        with memory.active():
            self._stream = memory.stream()
            self._event = memory.event()
            self._host = [memory.pinned(_nbytes(spec)) for spec in (given, gives)]
            self._device = [memory.device(_nbytes(spec)) for spec in (given, gives)]
        for spec, address in zip((given, gives), self._device, strict=True):
            if not context.set_tensor_address(spec.name, address):
                raise failure(f"refused the buffer of '{spec.name}'")
        self.input: FrameBatch = self._host[0].view(given.dtype).reshape(given.shape)
        self.output: OutputBatch = self._host[1].view(gives.dtype).reshape(gives.shape)

    def warm_up(self, *, capture: bool, runs: int = 1) -> str | None:
        """Run, each time to its end, and record the graph if asked to.

        TensorRT allocates and loads on its first run, which a graph may not hold. Where it captures
        by itself, it does so on its second run: ``OWN_RUNS`` are wanted.

        Args:
            capture: record a graph here.
            runs: before that.

        Returns:
            Why there is no graph, ``None`` when there is one or none was asked for.

        Raises:
            EngineError: TensorRT or the device failed, or the device hangs: then the run counts as
                under way, and ``drain`` says that nothing may be freed.
        """
        with self._memory.active():
            for _ in range(runs):
                self._queue()
                self._started()
                if not self._done(self._queued + RUN_SECONDS):
                    self._state = "hung"
                    raise _hangs("the engine's first run")
                self._state = "idle"
            return self._record() if capture else None

    def own_graph_refused(self) -> str | None:
        """Why TensorRT's own capture cannot have worked, as far as the context says."""
        capturable = getattr(self._context, "is_stream_capturable", None)
        with self._memory.active():
            if capturable is None or capturable(self._stream):
                return None
        return "TensorRT says that it cannot be captured"

    def _record(self) -> str | None:
        if not self._memory.has_graphs:
            return f"{self._memory.name} alone has no CUDA graphs"
        try:
            self._memory.begin_capture(self._stream)
        except EngineError as error:
            return str(error)  # nothing was begun, so nothing has to end
        problem: str | None = None
        try:
            self._queue()
        except EngineError as error:
            problem = str(error)
        try:
            # The capture must end even when it failed, or the stream is lost.
            graph = self._memory.end_capture(self._stream)
        except EngineError as error:
            return problem or str(error)
        finally:
            self._unmarked = False  # it was recorded, and does not run
        if problem is None:
            self._graph = graph
        return problem

    def _queue(self) -> None:
        self._unmarked = True
        self._memory.to_device(self._device[0], self._host[0], self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise self._failure("could not be run")
        self._memory.to_host(self._host[1], self._device[1], self._stream)

    def submit(self, slot: int) -> None:
        """Queue the inference of what is in ``input``."""
        if self._state in ("running", "hung"):
            raise EngineError(f"slot {slot} is still in flight")
        with self._memory.active():
            if self._graph is None:
                self._queue()
            else:
                self._unmarked = True
                self._memory.launch(self._graph, self._stream)
            self._started()

    def _started(self) -> None:
        """Mark the end of what was queued a moment ago: it is under way from here on."""
        self._memory.record(self._event, self._stream)
        self._unmarked = False
        self._state, self._queued = "running", perf_counter()

    def wait(self, slot: int, timeout: float | None) -> OutputBatch:
        """Wait for the inference; see the engine protocol.

        Without a timeout it waits until ``RUN_SECONDS`` after the run was queued, and then raises
        ``EngineError``: the device hangs. Counted from there, so that whoever waits for one slot
        after another waits no longer for all of them.
        """
        if self._state == "idle":
            raise EngineError(f"slot {slot} was never submitted")
        if self._state == "running":
            end = self._queued + RUN_SECONDS if timeout is None else perf_counter() + timeout
            try:
                with self._memory.active():
                    done = self._done(end)
            except EngineError:
                self._state = "idle"
                raise
            if not done and timeout is not None:
                raise TimeoutError(f"slot {slot} did not finish within {timeout} s")
            self._state = "done" if done else "hung"
        if self._state == "hung":
            raise _hangs("a run of the engine")
        return self.output

    def _done(self, end: float) -> bool:
        """Wait until then, by ``perf_counter``, for what was recorded; whether it has run."""
        while not self._memory.happened(self._event):
            if perf_counter() >= end:
                return False
            sleep(_POLL_SECONDS)
        return True

    def drain(self, timeout: float = DRAIN_SECONDS) -> bool:
        """Wait for what is under way, at most so many seconds; whether the device is done with it.

        Raises nothing, whatever comes: it is for closing. After a failure the device runs nothing
        more, so what it held can be freed; after a hang it may still use it. Of a run that TensorRT
        refused, the copy before it is under way all the same.
        """
        if self._state not in ("running", "hung") and not self._unmarked:
            return True
        self._state = "idle"
        try:
            with self._memory.active():
                if self._unmarked:
                    self._memory.record(self._event, self._stream)
                return self._done(perf_counter() + timeout)
        except EngineError:
            return True


def _hangs(what: str) -> EngineError:
    return EngineError(
        f"the GPU did not finish {what} within {RUN_SECONDS:g} s",
        hint="dmesg shows what the driver says of the GPU; restart the machine if it hangs",
    )


def _nbytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def open_context(
    trt: Any, engine: Any, *, graphs: bool, kernels: Kernels | None = None
) -> tuple[Any, bool]:
    """(execution context, whether TensorRT itself is to run it as a CUDA graph).

    TensorRT for RTX captures by itself when its runtime configuration says so; its kernels are
    compiled on first use, which a capture from outside would not survive.

    Args:
        trt: the module.
        engine: deserialised.
        graphs: whether CUDA graphs are wanted.
        kernels: compiled before or by another context, see ``open_kernels``.
    """
    if not hasattr(trt, "CudaGraphStrategy"):
        return _quiet(trt, engine.create_execution_context()), False
    config = engine.create_runtime_config()
    if graphs:
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    if kernels is not None:
        kernels.give(config)
    return _quiet(trt, engine.create_execution_context(config)), graphs


def _quiet(trt: Any, context: Any) -> Any:
    """It, without marks for a profiler.

    The builder's table of layers needs detailed verbosity, which a context takes over from its
    engine, and which makes queueing an inference slower.
    """
    if hasattr(context, "nvtx_verbosity"):
        context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
    return context
