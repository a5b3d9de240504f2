"""CUDA memory and streams by pycuda; graphs by cuda-python where that is installed too."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np

from pipeline.engines.cuda_memory import (
    AdapterLoadError,
    Bytes,
    cuda_error,
    installed,
    out_of_memory,
)
from pipeline.engines.cuda_python import Driver, Graphs
from pipeline.errors import EngineError, MissingDependencyError

_primary: list[Any] = []
_primary_lock = Lock()


def _primary_context(cuda: Any) -> Any:
    """GPU 0's primary context, retained once and for the rest of the process, pushed nowhere.

    It is the one that TensorRT uses, and GPU 0 the one that was asked whether an engine fits.
    ``pycuda.autoinit`` would make a context of its own. ``pycuda.autoprimaryctx`` leaves this one
    pushed in the thread that happens to import it, and pops it as the main thread ends: opened in
    a thread that is gone by then, the process would abort. It also takes its GPU from CUDA_DEVICE
    and a file, of which nothing else here knows.
    """
    with _primary_lock:
        if not _primary:
            cuda.init()
            _primary.append(cuda.Device(0).retain_primary_context())
        return _primary[0]


class PycudaMemory:
    """``CudaMemory`` by pycuda."""

    name = "pycuda"

    def __init__(self) -> None:
        try:
            self._cuda: Any = importlib.import_module("pycuda.driver")
        except ImportError as error:
            raise AdapterLoadError(f"pycuda is installed but does not load: {error}") from error
        try:
            self._context: Any = _primary_context(self._cuda)
        except (self._cuda.Error, RuntimeError) as error:
            if out_of_memory(str(error)):  # the context itself takes hundreds of megabytes
                raise cuda_error("the GPU's primary context", str(error)) from error
            raise EngineError(f"pycuda cannot reach the GPU: {error}") from error
        self._graphs = _graphs()
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._memory: list[Any] = []
        self._host: list[Any] = []

    @property
    def has_graphs(self) -> bool:
        """See the protocol."""
        return self._graphs is not None

    @contextmanager
    def active(self) -> Iterator[None]:
        """See the protocol."""
        self._guard(self._context.push)
        try:
            yield
        finally:
            self._guard(self._context.pop)

    def pinned(self, nbytes: int) -> Bytes:
        """See the protocol."""
        memory: Bytes = self._guard(self._cuda.pagelocked_zeros, nbytes, np.uint8)
        self._host.append(memory)
        return memory

    def device(self, nbytes: int) -> int:
        """See the protocol."""
        memory = self._guard(self._cuda.mem_alloc, nbytes)
        self._memory.append(memory)
        return int(memory)

    def stream(self) -> int:
        """See the protocol."""
        stream = self._guard(self._cuda.Stream, 1)  # CU_STREAM_NON_BLOCKING
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def event(self) -> int:
        """See the protocol. pycuda does not show an event's handle: the number is our own."""
        event = self._guard(self._cuda.Event, self._cuda.event_flags.DISABLE_TIMING)
        self._events[len(self._events)] = event
        return len(self._events) - 1

    def to_device(self, target: int, source: Bytes, stream: int) -> None:
        """See the protocol."""
        self._guard(self._cuda.memcpy_htod_async, target, source, self._streams[stream])

    def to_host(self, target: Bytes, source: int, stream: int) -> None:
        """See the protocol."""
        self._guard(self._cuda.memcpy_dtoh_async, target, source, self._streams[stream])

    def record(self, event: int, stream: int) -> None:
        """See the protocol."""
        self._guard(self._events[event].record, self._streams[stream])

    def happened(self, event: int) -> bool:
        """See the protocol."""
        return bool(self._guard(self._events[event].query))

    def begin_capture(self, stream: int) -> None:
        """See the protocol."""
        self._need_graphs().begin(stream)

    def end_capture(self, stream: int) -> int:
        """See the protocol."""
        return self._need_graphs().end(stream)

    def launch(self, graph: int, stream: int) -> None:
        """See the protocol."""
        self._need_graphs().launch(graph, stream)

    def close(self) -> None:
        """See the protocol. pycuda frees what nobody refers to any more."""
        with self.active():
            try:
                if self._graphs is not None:
                    self._graphs.close()
            finally:
                self._streams.clear()
                self._events.clear()
                self._memory.clear()
                self._host.clear()

    def _need_graphs(self) -> Graphs:
        if self._graphs is None:
            raise MissingDependencyError("cuda-python", "cuda", why="capturing a CUDA graph")
        return self._graphs

    def _guard(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._cuda.Error as error:
            raise cuda_error(getattr(function, "__name__", "pycuda"), str(error)) from error


def _graphs() -> Graphs | None:
    """Graphs by cuda-python; none where it is missing or does not load."""
    if not installed("cuda.bindings"):
        return None
    try:
        return Graphs(Driver())
    except AdapterLoadError:
        return None
