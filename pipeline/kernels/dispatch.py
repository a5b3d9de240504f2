"""Which implementation runs: chosen once per process, when a kernel is first called.

Not at import, for the first use on a machine compiles for some seconds, and ``--help`` must not.
``REPMLP_EDGE_KERNELS`` forces ``reference``, ``scalar``, ``avx2``, ``avx512`` or ``neon``; unset,
the widest that this CPU runs is taken. Without a compiler the NumPy reference serves, with one
warning.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pipeline.engines.cpu import cpu_count
from pipeline.errors import UsageError
from pipeline.kernels import reference
from pipeline.kernels.axis import Axis, Int32Array
from pipeline.kernels.build import BuildError, UnsafeCacheError, build, cache_folder
from pipeline.kernels.colours import Colours
from pipeline.kernels.native import MODES, Library, NativeKernels
from pipeline.kernels.reference import Int64Array, LabelTiles, LogitTiles, UInt8Array
from pipeline.kernels.taps import Taps

MODE_VARIABLE = "REPMLP_EDGE_KERNELS"
THREADS_VARIABLE = "REPMLP_EDGE_KERNEL_THREADS"
REFERENCE = "reference"
MAX_THREADS = 64
DEFAULT_THREADS = 4
"""At most: beyond this the kernels wait for memory. Never more than half of the CPUs, since the
engine is at work on the next frame meanwhile."""


class Kernels(Protocol):
    """What an implementation offers. Arguments were checked by ``calls``."""

    @property
    def mode(self) -> str:
        """Its name in ``REPMLP_EDGE_KERNELS``."""

    def resize(
        self, frame: UInt8Array, rows: Taps, cols: Taps, out: UInt8Array, threads: int
    ) -> None:
        """See ``calls.resize``."""

    def cut_tiles(
        self, frame: UInt8Array, origins: Int32Array, out: UInt8Array, threads: int
    ) -> None:
        """See ``calls.cut_tiles``."""

    def blend_argmax(
        self,
        tiles: LogitTiles,
        rows: Axis,
        cols: Axis,
        out: UInt8Array,
        threads: int,
    ) -> None:
        """See ``calls.blend_argmax``."""

    def pick_labels(
        self,
        tiles: LabelTiles,
        rows: Int32Array,
        cols: Int32Array,
        per_row: int,
        out: UInt8Array,
        threads: int,
    ) -> None:
        """See ``calls.pick_labels``."""

    def overlay(
        self,
        frame: UInt8Array,
        labels: UInt8Array,
        colours: Colours,
        out: UInt8Array,
        threads: int,
    ) -> None:
        """See ``calls.overlay``."""

    def confusion(
        self, truth: UInt8Array, prediction: UInt8Array, classes: int, ignore: int, threads: int
    ) -> Int64Array:
        """See ``reference.confusion``."""


class ReferenceKernels:
    """The NumPy reference."""

    mode = REFERENCE
    resize = staticmethod(reference.resize)
    cut_tiles = staticmethod(reference.cut_tiles)
    blend_argmax = staticmethod(reference.blend_argmax)
    pick_labels = staticmethod(reference.pick_labels)
    overlay = staticmethod(reference.overlay)
    confusion = staticmethod(reference.confusion)


_lock = threading.Lock()
_chosen: Kernels | None = None


def active() -> Kernels:
    """The implementation in use, chosen now if it was not yet.

    Raises:
        UsageError: ``REPMLP_EDGE_KERNELS`` names none, or one that cannot run here.
    """
    global _chosen
    if _chosen is None:
        with _lock:
            if _chosen is None:
                _chosen = _choose(os.environ.get(MODE_VARIABLE))
    return _chosen


@contextmanager
def forced(mode: str) -> Iterator[Kernels]:
    """Use one mode in this whole process for a while: for tests and benchmarks.

    Raises:
        UsageError: it is none, or cannot run here.
    """
    global _chosen
    before = _chosen
    _chosen = _choose(mode)
    try:
        yield _chosen
    finally:
        _chosen = before


def available() -> tuple[str, ...]:
    """Every mode that can be forced here, slowest first.

    Raises:
        BuildError: there is no library; only the reference is to be had.
    """
    return (REFERENCE, *library().supported())


def thread_count(threads: int | None) -> int:
    """Threads a kernel may use: the argument, else the variable, else a default of at most 4.

    Raises:
        UsageError: ``REPMLP_EDGE_KERNEL_THREADS`` is no number from 1 to 64.
        ValueError: ``threads`` is none.
    """
    if threads is None:
        return _default_threads(os.environ.get(THREADS_VARIABLE))
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads}, not within 1 .. {MAX_THREADS}")
    return threads


@lru_cache(maxsize=8)
def _default_threads(variable: str | None) -> int:
    if variable:
        # Nine digits: int() refuses thousands with an error of its own.
        if not re.fullmatch(r"\d{1,9}", variable) or not 1 <= int(variable) <= MAX_THREADS:
            raise UsageError(
                f"{THREADS_VARIABLE}={variable} is not a number within 1 .. {MAX_THREADS}"
            )
        return int(variable)
    return max(1, min(DEFAULT_THREADS, cpu_count() // 2))


@lru_cache(maxsize=1)
def library() -> Library:
    """The compiled library, loaded; compiled if the cache does not hold it.

    Where the cache cannot be trusted or written it is compiled for this process alone.

    Raises:
        BuildError: no compiler, or it failed.
    """
    try:
        return Library(build(cache_folder()))
    except UnsafeCacheError as error:
        warnings.warn(
            f"{error}; compiling the kernels for this process alone", RuntimeWarning, stacklevel=2
        )
        folder = tempfile.mkdtemp(prefix="repmlp-edge-")
        try:
            return Library(build(Path(folder)))
        except UnsafeCacheError as worse:
            raise BuildError(str(worse)) from worse
        finally:
            shutil.rmtree(folder)  # what is loaded stays loaded


def _choose(wanted: str | None) -> Kernels:
    if wanted and wanted != REFERENCE and wanted not in MODES:
        raise UsageError(
            f"{MODE_VARIABLE}={wanted} is no mode; choose one of {', '.join((REFERENCE, *MODES))}"
        )
    if wanted == REFERENCE:
        return ReferenceKernels()
    try:
        compiled = library()
    except BuildError as error:
        if wanted:
            raise UsageError(f"{MODE_VARIABLE}={wanted} cannot be had: {error}") from error
        warnings.warn(
            f"{error}; the kernels run in NumPy, many times slower. Install a C compiler "
            f"(or set CC), or silence this with {MODE_VARIABLE}={REFERENCE}",
            RuntimeWarning,
            stacklevel=3,
        )
        return ReferenceKernels()
    modes = compiled.supported()
    if wanted and wanted not in modes:
        raise UsageError(
            f"{MODE_VARIABLE}={wanted} does not run on this CPU, which runs {', '.join(modes)}"
        )
    return NativeKernels(compiled, wanted or modes[-1])
