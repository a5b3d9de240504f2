"""What is kept of each frame: one record of fixed size, about 20 KB, in a file that resumes.

A picture of 1024x2048 is 6 MB and its logits more, but all a report needs of it are counts. They
are appended to a state file frame by frame, so that an interrupted run goes on where it stopped:

    magic, length of the header, header as JSON, record, record, ...

The header holds a key over everything the records depend on (engines, files, options, machine);
records under another key are never read. Every record ends in its own CRC-32, so that one a
killed process left half-written is dropped, and the ones before it are kept. What was written is
read back through a memory map: the report's memory does not grow with the number of frames.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import NUM_CLASSES
from pipeline.artifact import canonical_json
from pipeline.errors import ArtifactError, SinkError
from pipeline.report.zones import OUTCOMES_SHAPE

LAYOUT_VERSION: Final = 1
"""Raised whenever a record of the same frame would come out otherwise."""

RECORD: Final = np.dtype(
    [
        ("frame", "<i4"),
        # Confusion matrices: truth by prediction, the last column counting "no class".
        ("reference", "<u4", (NUM_CLASSES, NUM_CLASSES + 1)),
        ("candidate", "<u4", (NUM_CLASSES, NUM_CLASSES + 1)),
        ("exact", "<u4", (NUM_CLASSES, NUM_CLASSES + 1)),
        ("has_exact", "<i4"),
        ("outcomes", "<u4", OUTCOMES_SHAPE),
        # From ``zones.edge_surplus``.
        ("edges", "<f8", (4,)),
        # Over all pixels of the frame, scored or not: how many there are, and on how many
        # reference and candidate, reference and exact, exact and candidate differ.
        ("pixels", "<i8"),
        ("differ", "<i8", (3,)),
        # Seconds of [reference, candidate] in [the engine, the whole frame].
        ("seconds", "<f8", (2, 2)),
        ("crc", "<u4"),
    ]
)

RecordArray: TypeAlias = npt.NDArray[Any]
"""(F,) of ``RECORD``."""

_MAGIC: Final = b"repmlp-edge evaluation\n"
_SYNC_EVERY: Final = 16


class Records(Protocol):
    """A list of records that only grows."""

    def __len__(self) -> int: ...

    def append(self, record: RecordArray) -> None:
        """Add one record, an array () of ``RECORD``, for the next frame."""

    def array(self) -> RecordArray:
        """All records, in order; not to be written to."""


class MemoryRecords:
    """Records that are gone with the process."""

    def __init__(self) -> None:
        self._records: list[RecordArray] = []

    def __len__(self) -> int:
        return len(self._records)

    def append(self, record: RecordArray) -> None:
        """See ``Records``."""
        self._records.append(record.copy())

    def array(self) -> RecordArray:
        """See ``Records``."""
        return np.array(self._records, RECORD)


class StateFile:
    """Records in a file. A context manager; one process at a time.

    Args:
        path: the file; its folder is made.
        key: what the records depend on. Records of another key are thrown away.

    Attributes:
        resumed: how many records of this key were found.

    Raises:
        ArtifactError: another process is writing it.
        SinkError: it cannot be written.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        header = canonical_json({"layout": LAYOUT_VERSION, "record": RECORD.itemsize, "key": key})
        self._header = _MAGIC + struct.pack("<I", len(header)) + header
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        except OSError as error:
            raise SinkError(f"'{path}' cannot be written: {error.strerror}") from error
        try:
            self._lock()
            self.resumed = self._adopt()
        except BaseException:
            self._file.close()
            raise
        self._count = self.resumed

    def __len__(self) -> int:
        return self._count

    def append(self, record: RecordArray) -> None:
        """See ``Records``. Raises ``SinkError`` when the disk is full, say."""
        sealed = record.copy()
        sealed["crc"] = _crc(sealed)
        try:
            self._file.seek(len(self._header) + self._count * RECORD.itemsize)
            self._file.write(sealed.tobytes())
            self._file.flush()
            if self._count % _SYNC_EVERY == 0:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise SinkError(f"'{self.path}' cannot be written: {error.strerror}") from error
        self._count += 1

    def array(self) -> RecordArray:
        """See ``Records``; a read-only map of the file."""
        if not self._count:
            return np.empty(0, RECORD)
        return np.memmap(
            self.path, RECORD, mode="r", offset=len(self._header), shape=(self._count,)
        )

    def clear(self) -> None:
        """Forget every record."""
        self._file.truncate(len(self._header))
        self._count = self.resumed = 0

    def close(self) -> None:
        """Write everything through and unlock. Safe to call twice."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> StateFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArtifactError(
                f"'{self.path}' is being written by another process; "
                "wait for it, or choose another --output"
            ) from error

    def _adopt(self) -> int:
        """How many records of this key are whole. What follows them, or is another's, is gone."""
        if self._file.read(len(self._header)) != self._header:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._header)
            self._file.flush()
            return 0
        count = 0
        while len(data := self._file.read(RECORD.itemsize)) == RECORD.itemsize:
            record = np.frombuffer(data, RECORD)[0]
            if record["crc"] != _crc(record) or record["frame"] != count:
                break
            count += 1
        self._file.truncate(len(self._header) + count * RECORD.itemsize)
        return count


def _crc(record: RecordArray | np.void) -> int:
    return zlib.crc32(record.tobytes()[: -RECORD["crc"].itemsize])
