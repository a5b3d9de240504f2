"""CUDA memory, streams and graphs by cuda-python (``cuda.bindings``)."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.engines.cuda_memory import AdapterLoadError, Bytes, cuda_error
from pipeline.errors import EngineError


class Driver:
    """``cuda.bindings.driver``, its (status, results...) tuples turned into results or errors."""

    def __init__(self) -> None:
        try:
            self.api: ModuleType = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise AdapterLoadError(
                f"cuda-python is installed but does not load: {error}"
            ) from error

    def __call__(self, name: str, *arguments: Any) -> Any:
        """The results of that call; a status other than success is an ``EngineError``."""
        try:
            status, *results = getattr(self.api, name)(*arguments)
        except RuntimeError as error:
            # Older and newer releases say in their own ways that there is no libcuda.
            raise cuda_error(name, str(error)) from error
        if status != self.api.CUresult.CUDA_SUCCESS:
            raise cuda_error(name, getattr(status, "name", str(status)))
        return results[0] if len(results) == 1 else tuple(results)

    def query(self, name: str, *arguments: Any) -> bool:
        """Of a call that answers ``CUDA_ERROR_NOT_READY`` while it has to wait."""
        (status,) = getattr(self.api, name)(*arguments)
        if status == self.api.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if status != self.api.CUresult.CUDA_SUCCESS:
            raise cuda_error(name, getattr(status, "name", str(status)))
        return True


class Graphs:
    """CUDA graphs by ``cuda.bindings``, on any adapter's streams."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._graphs: dict[int, tuple[Any, Any]] = {}

    def begin(self, stream: int) -> None:
        """Start to capture the stream."""
        # Thread-local: another slot's thread may allocate meanwhile.
        mode = self._driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._driver("cuStreamBeginCapture", self._driver.api.CUstream(stream), mode)

    def end(self, stream: int) -> int:
        """What was captured, instantiated."""
        graph = self._driver("cuStreamEndCapture", self._driver.api.CUstream(stream))
        try:
            ready = self._driver("cuGraphInstantiate", graph, 0)
        except EngineError:
            with suppress(EngineError):  # what it says first is the reason
                self._driver("cuGraphDestroy", graph)
            raise
        self._graphs[int(ready)] = (graph, ready)
        return int(ready)

    def launch(self, graph: int, stream: int) -> None:
        """Run one of them."""
        self._driver("cuGraphLaunch", self._graphs[graph][1], self._driver.api.CUstream(stream))

    def close(self) -> None:
        """Destroy them all, then raise the first failure."""
        _free(self._driver, self.take())

    def take(self) -> list[tuple[str, Any]]:
        """The calls that destroy them, for the caller to make; they are forgotten here."""
        calls = [
            call
            for graph, ready in self._graphs.values()
            for call in (("cuGraphExecDestroy", ready), ("cuGraphDestroy", graph))
        ]
        self._graphs.clear()
        return calls


def _free(driver: Driver, calls: Iterable[tuple[str, Any]]) -> None:
    """Make every call, then raise what the first that failed said.

    After a fault on the device every call fails; what can still be freed must be.
    """
    first: EngineError | None = None
    for name, thing in calls:
        try:
            driver(name, thing)
        except EngineError as error:
            first = first or error
    if first is not None:
        raise first


_primary: list[Any] = []
_primary_lock = Lock()


def _primary_context(driver: Driver) -> Any:
    """GPU 0's primary context, retained once and for the rest of the process.

    The last release would reset the device under whatever else is alive on it: TensorRT's objects
    that a traceback still holds, another library's memory. pycuda keeps it as long.
    """
    with _primary_lock:
        if not _primary:
            driver("cuInit", 0)
            _primary.append(driver("cuDevicePrimaryCtxRetain", driver("cuDeviceGet", 0)))
        return _primary[0]


class CudaPythonMemory:
    """``CudaMemory`` by cuda-python.

    Args:
        instead: why the adapter that would come first is not used, for the name.
    """

    has_graphs = True

    def __init__(self, *, instead: str | None = None) -> None:
        self.name = "cuda-python" if instead is None else f"cuda-python ({instead})"
        self._call = driver = Driver()
        self._context = _primary_context(driver)
        self._graphs = Graphs(driver)
        self._host: list[int] = []
        self._memory: list[Any] = []
        self._streams: list[Any] = []
        self._events: list[Any] = []
        self._open = True

    @contextmanager
    def active(self) -> Iterator[None]:
        """See the protocol."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def pinned(self, nbytes: int) -> Bytes:
        """See the protocol."""
        address = int(self._call("cuMemHostAlloc", nbytes, 0))
        self._host.append(address)
        view = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        view.fill(0)
        return view

    def device(self, nbytes: int) -> int:
        """See the protocol."""
        pointer = self._call("cuMemAlloc", nbytes)
        self._memory.append(pointer)
        return int(pointer)

    def stream(self) -> int:
        """See the protocol."""
        flag = self._call.api.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = self._call("cuStreamCreate", flag)
        self._streams.append(stream)
        return int(stream)

    def event(self) -> int:
        """See the protocol."""
        flag = self._call.api.CUevent_flags.CU_EVENT_DISABLE_TIMING
        event = self._call("cuEventCreate", flag)
        self._events.append(event)
        return int(event)

    def to_device(self, target: int, source: Bytes, stream: int) -> None:
        """See the protocol."""
        api = self._call.api
        self._call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes,
                   api.CUstream(stream))  # fmt: skip

    def to_host(self, target: Bytes, source: int, stream: int) -> None:
        """See the protocol."""
        api = self._call.api
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes,
                   api.CUstream(stream))  # fmt: skip

    def record(self, event: int, stream: int) -> None:
        """See the protocol."""
        api = self._call.api
        self._call("cuEventRecord", api.CUevent(event), api.CUstream(stream))

    def happened(self, event: int) -> bool:
        """See the protocol."""
        return self._call.query("cuEventQuery", self._call.api.CUevent(event))

    def begin_capture(self, stream: int) -> None:
        """See the protocol."""
        self._graphs.begin(stream)

    def end_capture(self, stream: int) -> int:
        """See the protocol."""
        return self._graphs.end(stream)

    def launch(self, graph: int, stream: int) -> None:
        """See the protocol."""
        self._graphs.launch(graph, stream)

    def close(self) -> None:
        """See the protocol."""
        if not self._open:
            return
        self._open = False
        calls = self._graphs.take()
        calls += [("cuStreamDestroy", stream) for stream in self._streams]
        calls += [("cuEventDestroy", event) for event in self._events]
        calls += [("cuMemFree", pointer) for pointer in self._memory]
        calls += [("cuMemFreeHost", address) for address in self._host]
        with self.active():
            _free(self._call, calls)
