"""CUDA memory, streams and graphs behind one small protocol, with an adapter for each package.

``pycuda`` is taken when it is installed and loads, for it is what many Jetson users have; else
``cuda-python`` (package ``cuda.bindings``). Both use the device's primary context, the one that
TensorRT uses, so their handles are plain integers that mean the same to both. pycuda has no calls
for CUDA graphs; where ``cuda.bindings`` is installed beside it, they are captured and replayed
with that, on pycuda's stream. No package is imported before ``open_memory``.

Everything is asynchronous on the given stream unless it says otherwise. Every call is made inside
``with memory.active()``: a CUDA context is current in one thread at a time per stack, and pycuda
aborts the process when a thread ends with its context still pushed.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import EngineError, MissingDependencyError

Bytes = npt.NDArray[np.uint8]
ADAPTERS = ("pycuda", "cuda-python")
_PACKAGES = {"pycuda": "pycuda", "cuda-python": "cuda.bindings"}


class AdapterLoadError(EngineError):
    """A CUDA package is installed and cannot be imported; another one may do."""


class CudaMemory(Protocol):
    """What an executor needs of CUDA. Addresses, streams and events are integers."""

    @property
    def name(self) -> str:
        """The package, ``pycuda`` or ``cuda-python``, and why not the one before it."""

    @property
    def has_graphs(self) -> bool:
        """Whether the graph calls below work here."""

    def active(self) -> AbstractContextManager[None]:
        """The context is current in the calling thread within this block. A microsecond or so."""

    def pinned(self, nbytes: int) -> Bytes:
        """Page-locked host memory, uint8 (nbytes,), zeroed, valid until ``close``."""

    def device(self, nbytes: int) -> int:
        """Address of device memory, valid until ``close``, aligned to 256 bytes or more."""

    def stream(self) -> int:
        """A new stream that does not wait for the default stream."""

    def event(self) -> int:
        """A new event without timing."""

    def to_device(self, target: int, source: Bytes, stream: int) -> None:
        """Copy pinned host memory to the device."""

    def to_host(self, target: Bytes, source: int, stream: int) -> None:
        """Copy from the device to pinned host memory."""

    def record(self, event: int, stream: int) -> None:
        """The event happens when all that is on the stream now has run."""

    def happened(self, event: int) -> bool:
        """Whether a recorded event has happened. Does not wait. Raises what the device raised."""

    def begin_capture(self, stream: int) -> None:
        """From here on the stream's work is written into a graph instead of run."""

    def end_capture(self, stream: int) -> int:
        """The graph, ready to launch, valid until ``close``."""

    def launch(self, graph: int, stream: int) -> None:
        """Run a graph."""

    def close(self) -> None:
        """Free all of the above that can be, then raise the first failure. Safe to call twice."""


def open_memory(adapter: str | None = None) -> CudaMemory:
    """An adapter: the named one, or the first of ``ADAPTERS`` whose package loads.

    Raises:
        MissingDependencyError: neither package, or not the named one, is installed.
        EngineError: it is installed but does not load, or cannot reach the GPU.
    """
    unloaded: AdapterLoadError | None = None
    chosen = ADAPTERS if adapter is None else (adapter,)
    for name in chosen:
        package = _PACKAGES.get(name)
        if package is None:
            raise EngineError(f"no CUDA adapter '{name}': choose from {', '.join(ADAPTERS)}")
        if not installed(package):
            continue
        if name == "pycuda":
            from pipeline.engines.cuda_pycuda import PycudaMemory

            try:
                return PycudaMemory()
            except AdapterLoadError as error:
                unloaded = error
                continue
        from pipeline.engines.cuda_python import CudaPythonMemory

        return CudaPythonMemory(instead=None if unloaded is None else str(unloaded))
    if unloaded is not None:
        raise unloaded
    package, extra = ("pycuda", "pycuda") if adapter == "pycuda" else ("cuda-python", "cuda")
    raise MissingDependencyError(package, extra, why="running a TensorRT engine")


def any_adapter() -> bool:
    """Whether a package of any is there; without, nothing can be run."""
    return any(map(installed, _PACKAGES.values()))


def installed(package: str) -> bool:
    """Whether the package is there; what is there may still not load."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        return False
    except ImportError:
        return True
    return True


def out_of_memory(reason: str) -> bool:
    """Whether that is how CUDA or a package over it says that memory ran out."""
    low = reason.lower()
    return any(each in low for each in ("out_of_memory", "out of memory", "memory_allocation"))


def cuda_error(call: str, reason: str) -> EngineError:
    """What a failed CUDA call means, in one line; running out of memory is called that."""
    if out_of_memory(reason):
        return EngineError(
            f"out of GPU memory ({call})",
            hint="use fewer slots, a smaller batch or shape, or close other programs on the GPU",
        )
    return EngineError(f"CUDA failed: {reason} ({call})")
