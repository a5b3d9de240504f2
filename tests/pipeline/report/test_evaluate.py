"""The streamed evaluation: right counts, bounded memory, and resumption that nobody can tell."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DatasetError, EngineError
from pipeline.inference import FrameSegmenter
from pipeline.report.evaluate import Contestant, check_comparable, evaluate
from pipeline.report.records import RECORD, RecordArray, StateFile
from pipeline.report.zones import PATCH_BINS
from tests.pipeline.report.doubles import (
    SHAPE,
    EndlessFrames,
    Labels,
    PaintedEngine,
    PaintedFrames,
    contestants,
    painted,
    scene,
)

COUNTED = [name for name in RECORD.names or () if name not in ("seconds", "crc")]


def _equal(first: RecordArray, second: RecordArray) -> None:
    for name in COUNTED:
        np.testing.assert_array_equal(first[name], second[name])


def test_every_count_is_that_of_a_loop_over_pixels() -> None:
    reference, candidate, exact = contestants()
    records = evaluate(painted(3), reference, candidate, exact, exact_frames=[0, 2])
    for index, record in enumerate(records):
        truth, said = scene(index)
        for field, labels in zip(("reference", "candidate", "exact"), said, strict=True):
            pairs = Counter(zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True))
            counted = {(t, p): n for (t, p), n in pairs.items() if t != 255}
            if field == "exact" and index == 1:
                counted = {}
            found = {(t, p): int(record[field][t, p]) for t, p in np.argwhere(record[field])}
            assert found == counted
        assert record["frame"] == index
        assert record["has_exact"] == (index != 1)
        assert record["pixels"] == truth.size
        differ = [(said[a] != said[b]).sum() for a, b in ((0, 1), (0, 2), (2, 1))]
        assert record["differ"].tolist() == (differ if index != 1 else [differ[0], 0, 0])
        assert record["outcomes"].sum() == (truth != 255).sum()
        assert not record["edges"].any()  # no patch is given, so no pixel is near an edge
        assert (record["seconds"] > 0).all()
        assert (record["seconds"][:, 0] <= record["seconds"][:, 1]).all()


def test_logits_are_scored_at_the_frames_own_size() -> None:
    # One class per frame, so that interpolation between cells changes nothing.
    truth = [np.full(SHAPE, c, np.uint8) for c in (3, 11)]
    frames = PaintedFrames(truth, truth, truth[::-1])
    make = [
        Contestant(name, FrameSegmenter(PaintedEngine(channel, classes=19)))
        for name, channel in (("a", 0), ("b", 1))
    ]
    records = evaluate(frames, make[0], make[1])
    area = SHAPE[0] * SHAPE[1]
    assert records["reference"].sum(0)[3, 3] == records["reference"].sum(0)[11, 11] == area
    assert records["candidate"].sum(0)[3, 11] == records["candidate"].sum(0)[11, 3] == area


def test_padding_is_not_scored() -> None:
    # A frame four times as wide is resized to a quarter of its size, in the middle of the tile.
    # An engine that is wrong on all padding, and only there, is still perfect.
    height, width = SHAPE
    truth = np.full((height, 4 * width), 5, np.uint8)
    rows = height // 4
    first = (height - rows) // 2 // 4 * 4

    def spoil(labels: Labels) -> Labels:
        spoilt: Labels = labels.copy()
        spoilt[:, :first] = 9
        spoilt[:, first + rows :] = 9
        return spoilt

    frames = PaintedFrames([truth], [truth], [truth])
    clean = Contestant("clean", FrameSegmenter(PaintedEngine(0)))
    spoilt = Contestant("spoilt", FrameSegmenter(PaintedEngine(1, transform=spoil)))
    records = evaluate(frames, clean, spoilt)
    assert records["candidate"][0][5, 5] == truth.size
    np.testing.assert_array_equal(records["candidate"], records["reference"])


def test_engines_take_turns_at_going_first() -> None:
    runs: list[str] = []
    reference, candidate, _exact = contestants(on_run=runs.append)
    evaluate(painted(3), reference, candidate)
    # First a warm-up of the frame's size, then each frame.
    assert runs == ["fp32", "int8", "fp32", "int8", "int8", "fp32", "fp32", "int8"]


def test_patch_bins_are_those_of_the_plan() -> None:
    reference, candidate, _exact = contestants()
    with_patch = evaluate(painted(1), reference, candidate, patch=(8, 16))
    without = evaluate(painted(1), reference, candidate)
    last = len(PATCH_BINS) - 1
    assert without["outcomes"][0, :, :, last].sum() == without["outcomes"].sum()
    # Edges at every eighth row: no pixel of the frame is farther than 8 from one.
    assert with_patch["outcomes"][0, :, :, 3:].sum() == 0
    assert with_patch["outcomes"].sum() == without["outcomes"].sum()
    larger = evaluate(painted(1), reference, candidate, patch=(24, 32))
    assert 0 < larger["edges"][0, 0] <= larger["outcomes"][0, :, :, :2].sum()


class _StopError(Exception):
    """A stand-in for Ctrl-C that cannot be confused with the test runner's own."""


@pytest.mark.parametrize("error", [_StopError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_interrupted_run_resumes_to_the_same_records(
    tmp_path: Path, after: int, error: type[BaseException]
) -> None:
    def run(engines: tuple[Contestant, Contestant, Contestant], state: StateFile) -> RecordArray:
        reference, candidate, exact = engines
        return evaluate(
            painted(6), reference, candidate, exact,
            exact_frames=[0, 3, 5], patch=(8, 16), records=state, on_frame=seen.append,
        )  # fmt: skip

    seen: list[int] = []
    with StateFile(tmp_path / "whole", "k") as state:
        whole = run(contestants(), state).copy()
    runs: list[str] = []

    def interrupt(name: str) -> None:
        runs.append(name)
        if runs.count("fp32") == 1 + after + 1:  # the warm-up, then once for each frame
            raise error

    with StateFile(tmp_path / "state", "k") as state:
        engines = contestants(on_run=interrupt)
        with pytest.raises(error):
            run(engines, state)
    with StateFile(tmp_path / "state", "k") as state:
        assert state.resumed == after
        seen.clear()
        _equal(run(contestants(), state), whole)
    assert seen == list(range(after + 1, 7))


def test_a_finished_run_asks_the_engines_nothing(tmp_path: Path) -> None:
    reference, candidate, _exact = contestants()
    with StateFile(tmp_path / "state", "k") as state:
        first = evaluate(painted(2), reference, candidate, records=state)
        runs: list[str] = []
        again = contestants(on_run=runs.append)
        _equal(evaluate(painted(2), again[0], again[1], records=state), first)
        assert runs == []


def _peak(count: int, path: Path) -> int:
    reference, candidate, exact = contestants((64, 128))
    frames = EndlessFrames(count, (64, 128))
    tracemalloc.start()
    try:
        with StateFile(path, "k") as state:
            evaluate(frames, reference, candidate, exact, exact_frames=range(count), records=state)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_frames(tmp_path: Path) -> None:
    _peak(2, tmp_path / "warm")
    few, many = _peak(5, tmp_path / "few"), _peak(50, tmp_path / "many")
    # 45 more frames of 64x128 with three labels each are 1 MiB of pixels, their records 0.8 MiB.
    # What grows is the list of 45 names; how many frames are under way at once is chance.
    assert many < few + 65_536


def test_engines_that_cannot_be_compared_are_named() -> None:
    reference, candidate, _exact = contestants()
    other = Contestant("wide", FrameSegmenter(PaintedEngine(shape=(48, 128))))
    with pytest.raises(EngineError, match=r"fp32 takes 48x64 pixels and wide takes 48x128"):
        evaluate(painted(1), reference, other)
    eleven = Contestant("eleven", FrameSegmenter(PaintedEngine(classes=11)))
    with pytest.raises(EngineError, match="eleven tells 11 classes apart, but the labels have 19"):
        check_comparable([reference, candidate, eleven])


def test_labels_of_another_data_set_are_refused() -> None:
    truth, _said = scene(0)
    foreign = truth.copy()
    foreign[0, :3] = 33
    reference, candidate, _exact = contestants()
    with pytest.raises(EngineError, match=r"int8 labels 3 pixels of frame street_000000_000000 as"):
        evaluate(PaintedFrames([truth], [truth], [foreign]), reference, candidate)


def test_no_class_is_counted_apart() -> None:
    truth = np.zeros(SHAPE, np.uint8)
    nothing = np.full(SHAPE, 255, np.uint8)
    reference, candidate, _exact = contestants()
    records = evaluate(PaintedFrames([truth], [truth], [nothing]), reference, candidate)
    assert records["candidate"][0][0, 19] == truth.size


def test_nothing_to_score_is_said() -> None:
    reference, candidate, _exact = contestants()
    with pytest.raises(DatasetError, match="no frames"):
        evaluate(PaintedFrames([], [], []), reference, candidate)
    ignored = np.full(SHAPE, 255, np.uint8)
    with pytest.raises(DatasetError, match="nothing to score"):
        evaluate(PaintedFrames([ignored], [ignored], [ignored]), reference, candidate)
