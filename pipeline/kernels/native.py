"""The one binding: arrays to addresses, return codes to exceptions. ctypes releases the GIL."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_uint, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.kernels.axis import Axis, Int32Array
from pipeline.kernels.build import BuildError
from pipeline.kernels.colours import Colours
from pipeline.kernels.reference import Int64Array, LabelTiles, LogitTiles, UInt8Array
from pipeline.kernels.taps import Taps

MODES = ("scalar", "avx2", "avx512", "neon")
"""Names in the order of ``enum edge_mode``."""

_ABI = 2  # EDGE_ABI in kernels.h
_OK, _NO_MEMORY, _BAD_TABLE = 0, -1, -2


class _CAxis(ctypes.Structure):
    _fields_ = (
        ("tiles", c_int32),
        ("size", c_int32),
        ("extent", c_int32),
        ("samples", c_int32),
        ("origins", c_void_p),
        ("weights", c_void_p),
        ("cells", c_void_p),
        ("fractions", c_void_p),
    )


class _CTaps(ctypes.Structure):
    _fields_ = (
        ("target", c_int32),
        ("taps", c_int32),
        ("first", c_void_p),
        ("weights", c_void_p),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "edge_resize": (
        *(c_int, c_void_p, c_int64, c_int64),
        *(POINTER(_CTaps), POINTER(_CTaps), c_void_p, c_int),
    ),
    "edge_cut_tiles": (
        (c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_int64, c_int)
    ),
    "edge_blend_argmax": (
        (c_int, c_void_p, c_int32, POINTER(_CAxis), POINTER(_CAxis), c_void_p, c_int)
    ),
    "edge_pick_labels": (
        *(c_void_p, c_int64, c_int64, c_int64, c_int64),
        *(c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int),
    ),
    "edge_overlay": (c_int, c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_int64, c_int),
    "edge_confusion": (c_void_p, c_void_p, c_int64, c_int32, c_int32, c_void_p, c_int),
}


class Library:
    """A compiled library, loaded.

    Raises:
        BuildError: it does not load, or is not of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._functions = ctypes.CDLL(str(path))
            abi = self._functions.edge_abi
        except (OSError, AttributeError) as error:
            raise BuildError(f"the compiled kernels do not load: {error}") from error
        if abi() != _ABI:
            raise BuildError(f"{path} is of another version")
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._functions, name)
            function.argtypes = arguments
            function.restype = c_int
        self._functions.edge_supported_modes.restype = c_uint

    def supported(self) -> tuple[str, ...]:
        """The modes this library holds and this CPU runs, slowest first."""
        bits = self._functions.edge_supported_modes()
        return tuple(mode for index, mode in enumerate(MODES) if bits >> index & 1)

    def call(self, name: str, *arguments: object) -> None:
        """Call a kernel and raise what its code means."""
        code = getattr(self._functions, name)(*arguments)
        if code == _NO_MEMORY:
            raise MemoryError(f"{name} found no memory")
        if code == _BAD_TABLE:
            raise ValueError(f"{name}: a table points outside its array")
        if code != _OK:
            raise RuntimeError(f"{name} returned {code}")


class NativeKernels:
    """The kernels of one library in one mode; the same methods as the reference's functions."""

    def __init__(self, library: Library, mode: str) -> None:
        self.mode = mode
        self._library = library
        self._index = MODES.index(mode)

    def resize(
        self, frame: UInt8Array, rows: Taps, cols: Taps, out: UInt8Array, threads: int
    ) -> None:
        """See ``calls.resize``."""
        self._library.call(
            "edge_resize",
            self._index,
            frame.ctypes.data,
            *frame.shape[:2],
            byref(_c_taps(rows)),
            byref(_c_taps(cols)),
            out.ctypes.data,
            threads,
        )

    def cut_tiles(
        self, frame: UInt8Array, origins: Int32Array, out: UInt8Array, threads: int
    ) -> None:
        """See ``calls.cut_tiles``."""
        self._library.call(
            "edge_cut_tiles",
            frame.ctypes.data,
            *frame.shape[:2],
            origins.ctypes.data,
            len(origins),
            out.ctypes.data,
            *out.shape[1:3],
            threads,
        )

    def blend_argmax(
        self,
        tiles: LogitTiles,
        rows: Axis,
        cols: Axis,
        out: UInt8Array,
        threads: int,
    ) -> None:
        """See ``calls.blend_argmax``."""
        self._library.call(
            "edge_blend_argmax",
            self._index,
            _addresses(tiles),
            len(tiles[0]),
            byref(_c_axis(rows)),
            byref(_c_axis(cols)),
            out.ctypes.data,
            threads,
        )

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
        self._library.call(
            "edge_pick_labels",
            _addresses(tiles),
            len(tiles),
            per_row,
            *tiles[0].shape,
            rows.ctypes.data,
            cols.ctypes.data,
            out.ctypes.data,
            *out.shape,
            threads,
        )

    def overlay(
        self,
        frame: UInt8Array,
        labels: UInt8Array,
        colours: Colours,
        out: UInt8Array,
        threads: int,
    ) -> None:
        """See ``calls.overlay``."""
        self._library.call(
            "edge_overlay",
            self._index,
            frame.ctypes.data,
            labels.ctypes.data,
            colours.entries.ctypes.data,
            colours.alpha,
            out.ctypes.data,
            labels.size,
            threads,
        )

    def confusion(
        self, truth: UInt8Array, prediction: UInt8Array, classes: int, ignore: int, threads: int
    ) -> Int64Array:
        """See ``reference.confusion``."""
        counts = np.zeros((classes + 1, classes + 1), np.int64)
        self._library.call(
            "edge_confusion",
            truth.ctypes.data,
            prediction.ctypes.data,
            truth.size,
            classes,
            ignore,
            counts.ctypes.data,
            threads,
        )
        return counts


def _addresses(arrays: LogitTiles | LabelTiles) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _c_axis(axis: Axis) -> _CAxis:
    return _CAxis(
        axis.tiles,
        axis.size,
        axis.extent,
        axis.samples,
        axis.origins.ctypes.data,
        axis.weights.ctypes.data,
        axis.cells.ctypes.data,
        axis.fractions.ctypes.data,
    )


def _c_taps(taps: Taps) -> _CTaps:
    first, weights = taps.first.ctypes.data, taps.weights.ctypes.data
    return _CTaps(taps.target, taps.weights.shape[1], first, weights)
