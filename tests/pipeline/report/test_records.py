"""The state file: what was written is read back, what was not whole is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ArtifactError, SinkError
from pipeline.report.records import RECORD, MemoryRecords, RecordArray, StateFile


def _record(index: int) -> RecordArray:
    record = np.zeros((), RECORD)
    record["frame"] = index
    record["reference"] = np.random.default_rng(index).integers(0, 2**32, (19, 20))
    record["seconds"] = index + 0.25
    return record


def _fill(path: Path, count: int, key: str = "k") -> None:
    with StateFile(path, key) as state:
        for index in range(len(state), count):
            state.append(_record(index))


def _same(found: RecordArray, count: int) -> None:
    assert len(found) == count
    for index in range(count):
        for name in RECORD.names or ():
            if name != "crc":
                np.testing.assert_array_equal(found[index][name], _record(index)[name])


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    _fill(path, 5)
    with StateFile(path, "k") as state:
        assert (state.resumed, len(state)) == (5, 5)
        _same(state.array(), 5)
        state.append(_record(5))
        _same(state.array(), 6)
    memory = MemoryRecords()
    for index in range(3):
        memory.append(_record(index))
    _same(memory.array(), 3)


def test_another_key_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "state"
    _fill(path, 4)
    with StateFile(path, "other") as state:
        assert state.resumed == 0
        assert len(state.array()) == 0
    with StateFile(path, "k") as state:
        assert state.resumed == 0


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 4 * RECORD.itemsize))
def test_a_file_cut_anywhere_keeps_its_whole_records(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "state"
    _fill(path, 3)
    data = path.read_bytes()
    header = len(data) - 3 * RECORD.itemsize
    left = max(0, len(data) - cut)
    path.write_bytes(data[:left])
    whole = max(0, (left - header) // RECORD.itemsize) if left >= header else 0
    with StateFile(path, "k") as state:
        assert state.resumed == whole
        _same(state.array(), whole)
    _fill(path, 3)
    assert path.read_bytes() == data


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 3 * RECORD.itemsize - 1), flip=st.integers(1, 255))
def test_a_changed_byte_ends_what_is_believed(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "state"
    _fill(path, 3)
    data = bytearray(path.read_bytes())
    data[len(data) - 3 * RECORD.itemsize + place] ^= flip
    path.write_bytes(data)
    with StateFile(path, "k") as state:
        assert state.resumed == place // RECORD.itemsize
        _same(state.array(), state.resumed)


def test_a_foreign_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"something else entirely" * 1000)
    with StateFile(path, "k") as state:
        assert state.resumed == 0
        state.append(_record(0))
    with StateFile(path, "k") as state:
        assert state.resumed == 1


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateFile(path, "k"), pytest.raises(ArtifactError, match="another process"):
        StateFile(path, "k")
    StateFile(path, "k").close()


def test_clear_forgets(tmp_path: Path) -> None:
    path = tmp_path / "state"
    _fill(path, 2)
    with StateFile(path, "k") as state:
        state.clear()
        assert len(state) == len(state.array()) == 0
        state.append(_record(0))
    with StateFile(path, "k") as state:
        _same(state.array(), 1)


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be written"):
        StateFile(tmp_path, "k")
