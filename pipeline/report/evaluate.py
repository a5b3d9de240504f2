"""Run reference and candidate over labelled frames and keep what the report needs of each.

Frames are streamed: one is in memory at a time, and of each a record remains (``records``). Both
engines see every frame one after the other, in turn first and second, so that what slows the
machine down for a while slows both, and their latencies stay comparable. A third engine, the
exact Q/DQ graph, may score some of the frames: what it loses against the reference is
quantization's, what the candidate loses against it is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import IGNORE, NUM_CLASSES
from pipeline.errors import DatasetError, EngineError
from pipeline.inference import FrameSegmenter
from pipeline.kernels import NO_CLASS, confusion
from pipeline.report.frames import FrameSource
from pipeline.report.records import RECORD, MemoryRecords, RecordArray, Records
from pipeline.report.zones import (
    LabelArray,
    PatchMap,
    border_bins,
    count_outcomes,
    edge_surplus,
    patch_map,
)


@dataclass(frozen=True)
class Contestant:
    """An engine in the run: how messages call it, and its segmenter (``tiles="fit"``)."""

    name: str
    segmenter: FrameSegmenter


def check_comparable(contestants: Sequence[Contestant]) -> None:
    """Refuse engines whose labels cannot be compared with each other or with the data set.

    Raises:
        EngineError: another number of classes than the data set's, or inputs of different sizes.
    """
    first = contestants[0]
    for each in contestants:
        classes = each.segmenter.classes
        if classes is not None and classes != NUM_CLASSES:
            raise EngineError(
                f"{each.name} tells {classes} classes apart, but the labels have {NUM_CLASSES}"
            )
        if each.segmenter.tile != first.segmenter.tile:
            sizes = ["x".join(map(str, c.segmenter.tile)) for c in (first, each)]
            raise EngineError(
                f"{first.name} takes {sizes[0]} pixels and {each.name} takes {sizes[1]}: "
                "a difference between them would be that of their sizes",
                hint="build both with the same --shape",
            )


def evaluate(
    frames: FrameSource,
    reference: Contestant,
    candidate: Contestant,
    exact: Contestant | None = None,
    *,
    exact_frames: Collection[int] = (),
    patch: tuple[int, int] | None = None,
    records: Records | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> RecordArray:
    """Score every frame that ``records`` does not hold yet.

    Args:
        frames: what to score.
        reference: the engine that is trusted.
        candidate: the engine in question.
        exact: the exact graph of the candidate, if there is one.
        exact_frames: indices of the frames it scores.
        patch: (height, width) of the network's patches in pixels of its input; ``None`` if it is
            not known, and then no pixel counts as near a patch edge.
        records: where records go, and where earlier ones are; ``None`` for memory. Whatever it
            holds must come from the same arguments.
        on_frame: called with the number of frames done, after each.

    Returns:
        (F,) of ``RECORD``, one for each frame.

    Raises:
        EngineError: engines that cannot be compared, see ``check_comparable``, or that fail.
        DatasetError: no frames, or frames without a scored pixel.
        CalibrationDataError: a frame that cannot be read.
    """
    engines = [reference, candidate, *([exact] if exact else [])]
    check_comparable(engines)
    count = len(frames.names)
    if not count:
        raise DatasetError("there are no frames to score")
    records = MemoryRecords() if records is None else records
    loop = _Loop(frames, reference, candidate, exact, patch)
    for index in range(len(records), count):
        records.append(loop.record(index, exact is not None and index in exact_frames))
        if on_frame is not None:
            on_frame(index + 1)
    done = records.array()
    if not any(done["reference"][index].any() for index in range(count)):
        raise DatasetError("no pixel of the labels is of a scored class: there is nothing to score")
    return done


class _Loop:
    """One pass over the frames, with the buffers it reuses."""

    def __init__(
        self,
        frames: FrameSource,
        reference: Contestant,
        candidate: Contestant,
        exact: Contestant | None,
        patch: tuple[int, int] | None,
    ) -> None:
        self._frames = frames
        self._pair = (reference, candidate)
        self._exact = exact
        self._patch = patch
        self._warm: set[tuple[int, ...]] = set()
        self._map: tuple[tuple[int, ...], PatchMap] | None = None

    def record(self, index: int, with_exact: bool) -> RecordArray:
        """One frame, all engines."""
        bgr, truth = self._frames.read(index)
        record = np.zeros((), RECORD)
        record["frame"] = index
        labels, record["seconds"] = self._label_pair(index, bgr)
        name = self._frames.names[index]
        for field, contestant, predicted in zip(
            ("reference", "candidate"), self._pair, labels, strict=True
        ):
            record[field] = _confusion(truth, predicted, contestant, name)
        before, after = labels
        table = count_outcomes(truth, before, after, border_bins(truth), self._patch_map(truth))
        record["outcomes"] = table.sum(0)
        record["edges"] = edge_surplus(table)
        record["pixels"] = truth.size
        differ = [np.count_nonzero(before != after), 0, 0]
        if with_exact and self._exact is not None:
            exact = self._exact.segmenter.segment(bgr)
            record["has_exact"] = 1
            record["exact"] = _confusion(truth, exact, self._exact, name)
            differ[1:] = np.count_nonzero(before != exact), np.count_nonzero(exact != after)
        record["differ"] = differ
        return record

    def _label_pair(
        self, index: int, bgr: npt.NDArray[np.uint8]
    ) -> tuple[list[LabelArray], npt.NDArray[np.float64]]:
        """Labels of both, and the seconds of each in its engine and for the whole frame."""
        labels: list[LabelArray] = [np.empty(0, np.uint8)] * 2
        seconds = np.zeros((2, 2))
        if bgr.shape not in self._warm:
            # The first run of a size allocates and plans; its time is nobody's latency.
            for contestant in self._pair:
                contestant.segmenter.segment(bgr)
            self._warm.add(bgr.shape)
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            segmenter = self._pair[which].segmenter
            begin = perf_counter()
            ticket = segmenter.submit(bgr)
            labels[which] = segmenter.finish(ticket)
            seconds[which] = ticket.infer, perf_counter() - begin
        return labels, seconds

    def _patch_map(self, truth: LabelArray) -> PatchMap:
        if self._map is None or self._map[0] != truth.shape:
            plan = self._pair[1].segmenter.plan(*truth.shape)
            self._map = truth.shape, patch_map(plan, self._patch)
        return self._map[1]


def _confusion(
    truth: LabelArray, predicted: LabelArray, contestant: Contestant, frame: str
) -> npt.NDArray[np.int64]:
    """The frame's (C, C + 1) matrix. Raises ``EngineError`` for labels of no data set of ours."""
    foreign = (predicted >= NUM_CLASSES) & (predicted != NO_CLASS)
    if foreign.any():
        raise EngineError(
            f"{contestant.name} labels {np.count_nonzero(foreign)} pixels of frame {frame} as "
            f"class {int(predicted[foreign].max())}, but the labels have {NUM_CLASSES} classes"
        )
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES + 1), np.int64)
    confusion(truth, predicted, matrix, ignore=IGNORE)
    return matrix
