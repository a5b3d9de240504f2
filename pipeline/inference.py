"""Frame to labels: resize, cut, infer, blend, argmax. The one path that video and report share.

    with open_engine(path) as engine:
        segmenter = FrameSegmenter(engine, tiles="cover")
        labels = segmenter.segment(frame)

A runner that overlaps its steps uses the two halves, which may run in different threads:

    ticket = segmenter.submit(frame)          # resize, cut into the engine's buffers, start
    labels = segmenter.finish(ticket, out)    # wait, blend, argmax

A frame of T tiles takes ``batches = ceil(T / N)`` slots of an engine of batch N. As many frames
may be under way as ``lanes`` says; ``submit`` never waits. A frame of more batches than the engine
has slots occupies them all and is run in waves by ``finish``. After the first frame of each size
nothing is allocated per frame but a few small objects.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engines.base import Engine
from pipeline.errors import EngineError
from pipeline.inference_checks import check_frame, check_labels, engine_shape
from pipeline.kernels import blend_argmax, cut_tiles, pick_labels, resize
from pipeline.tiles import DEFAULT_OVERLAP, TileMode, TilePlan, check_options, plan_tiles

FrameArray = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.uint8]

MAX_PLANS = 16
"""Frame sizes whose plan and buffers are kept; the least recently used goes."""


@dataclass
class _Buffers:
    """What one frame in flight needs beside the engine's own buffers."""

    picture: FrameArray | None
    """(h, w, 3): the resized frame; ``None`` where the frame is not resized."""
    gathered: npt.NDArray[Any] | None
    """Outputs of all tiles, where they cannot stay in the engine's slots until the end."""


@dataclass
class _Layout:
    """A plan and its idle buffers."""

    plan: TilePlan
    idle: deque[_Buffers] = field(default_factory=deque)


@dataclass
class _Flight:
    """A frame under way: what it holds, and how far it is."""

    layout: _Layout
    buffers: _Buffers
    slots: list[int]
    source: FrameArray
    started: int = 0
    """Batches started so far."""
    running: deque[tuple[int, int]] = field(default_factory=deque)
    """(batch, slot) of those not waited for, in order."""
    outputs: list[npt.NDArray[Any]] = field(default_factory=list)


@dataclass(eq=False)
class Ticket:
    """A frame under way, given by ``submit`` and taken by ``finish`` once.

    Attributes:
        shape: (H, W) of the frame.
        prepare: seconds spent resizing and cutting.
        infer: seconds from the start of inference until ``finish`` had the last output; longer
            than the device took if ``finish`` came later.
        decode: seconds spent blending and taking the argmax.
    """

    shape: tuple[int, int]
    prepare: float = 0.0
    infer: float = 0.0
    decode: float = 0.0
    _flight: _Flight | None = None
    _submitted: float = 0.0


class FrameSegmenter:
    """Labels frames of any size with an engine of one size.

    ``submit`` and ``finish`` may be called from several threads, each ticket from one at a time.

    Args:
        engine: an open engine; not closed by the segmenter. No one else may use its slots.
        tiles: ``fit`` or ``cover``, see ``pipeline.tiles``.
        overlap: for ``cover``, the least part of a tile shared with its neighbour.
        scale: for ``cover``, the picture's size over the frame's.
        threads: upper bound of the kernels' threads; ``None`` for their default.

    Raises:
        UsageError: an option out of range.
        EngineError: an engine whose input or output is neither kind of ``engines.base``.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tiles: TileMode = "fit",
        overlap: float = DEFAULT_OVERLAP,
        scale: float = 1.0,
        threads: int | None = None,
    ) -> None:
        check_options(tiles, overlap, scale)
        self._batch, height, width, self._classes = engine_shape(engine)
        self._tile = (height, width)
        self._engine = engine
        self._mode: TileMode = tiles
        self._overlap = overlap
        self._scale = scale
        self._threads = threads
        self._lock = threading.Lock()
        self._free = deque(range(engine.slots))
        self._layouts: OrderedDict[tuple[int, int], _Layout] = OrderedDict()

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) of the engine's input."""
        return self._tile

    @property
    def classes(self) -> int | None:
        """How many classes the engine tells apart; ``None`` where its output is labels."""
        return self._classes

    def plan(self, height: int, width: int) -> TilePlan:
        """How frames of this size are tiled. Cached.

        Raises:
            UsageError: the options make too many tiles, or too large a picture, of such a frame.
        """
        return self._layout((height, width)).plan

    def batches(self, height: int, width: int) -> int:
        """How many times the engine runs for one frame of this size. Raises as ``plan`` does."""
        return -(-self.plan(height, width).count // self._batch)

    def lanes(self, height: int, width: int) -> int:
        """How many frames of this size may be under way at once; at least 1. Raises as ``plan``."""
        return max(1, self._engine.slots // self.batches(height, width))

    def segment(self, bgr: FrameArray, out: LabelArray | None = None) -> LabelArray:
        """Label one frame: ``finish(submit(bgr), out)``, whose arguments and errors are its own."""
        return self.finish(self.submit(bgr), out)

    def submit(self, bgr: FrameArray) -> Ticket:
        """Cut a frame into the engine's buffers and start it. Does not wait for the device.

        Args:
            bgr: (H, W, 3) uint8 BGR, C-contiguous, any size from 1x1 up. Must stay as it is until
                ``finish``.

        Returns:
            The ticket to finish.

        Raises:
            TypeError: not a uint8 array.
            ValueError: another shape, or not contiguous.
            UsageError: a frame of too many tiles, see ``plan``.
            EngineError: too few free slots (finish a ticket first), or the device failed.
        """
        check_frame(bgr)
        begin = perf_counter()
        flight = self._board(bgr)
        plan = flight.layout.plan
        ticket = Ticket(plan.frame, _flight=flight)
        try:
            if plan.resizing and flight.buffers.picture is not None:
                flight.source = flight.buffers.picture
                resize(bgr, *plan.resizing, flight.source, threads=self._threads)
            for slot in flight.slots:
                self._start(flight, slot)
        except BaseException:
            self.discard(ticket)
            raise
        ticket._submitted = perf_counter()
        ticket.prepare = ticket._submitted - begin
        return ticket

    def finish(
        self, ticket: Ticket, out: LabelArray | None = None, *, timeout: float | None = None
    ) -> LabelArray:
        """Wait for a frame and label its pixels.

        Args:
            ticket: from ``submit``; may be finished once.
            out: (H, W) uint8, C-contiguous, written whole; ``None`` makes a new one.
            timeout: seconds to wait for each run of the engine; ``None`` waits as ``Engine.wait``.

        Returns:
            ``out``: train ids at the frame's own size; 255 where the network gave no number.

        Raises:
            TimeoutError: the device took longer; the ticket may be finished again or discarded.
            EngineError: the device failed, or the ticket was finished before.
            TypeError, ValueError: ``out`` is not such an array; the ticket is then still good.
        """
        flight = ticket._flight
        if flight is None:
            raise EngineError("this frame was finished or discarded before")
        if out is None:
            out = np.empty(ticket.shape, np.uint8)
        check_labels(out, ticket.shape)
        try:
            self._collect(flight, timeout)
            ready = perf_counter()
            self._decode(flight, out)
        except TimeoutError:
            raise
        except BaseException:
            self.discard(ticket)
            raise
        ticket.infer = ready - ticket._submitted
        ticket.decode = perf_counter() - ready
        ticket._flight = None
        self._land(flight)
        return out

    def discard(self, ticket: Ticket, *, timeout: float | None = None) -> None:
        """Give a frame up: wait for its runs without looking at them, and free its slots.

        Safe to call twice. A slot that does not answer within ``timeout`` seconds stays taken.
        """
        flight, ticket._flight = ticket._flight, None
        if flight is None:
            return
        stuck = [slot for _, slot in flight.running if not self._drained(slot, timeout)]
        flight.slots = [slot for slot in flight.slots if slot not in stuck]
        self._land(flight)

    def _drained(self, slot: int, timeout: float | None) -> bool:
        """Whether a slot has come to its end, be it a failure."""
        try:
            self._engine.wait(slot, timeout)
        except TimeoutError:
            return False
        except EngineError:
            return True
        return True

    def _layout(self, frame: tuple[int, int]) -> _Layout:
        with self._lock:
            layout = self._layouts.get(frame)
            if layout is None:
                plan = plan_tiles(
                    frame,
                    self._tile,
                    mode=self._mode,
                    overlap=self._overlap,
                    scale=self._scale,
                )
                layout = self._layouts[frame] = _Layout(plan)
                if len(self._layouts) > MAX_PLANS:
                    self._layouts.popitem(last=False)
            self._layouts.move_to_end(frame)
            return layout

    def _board(self, bgr: FrameArray) -> _Flight:
        """Slots and buffers for a frame, or an error and neither."""
        layout = self._layout((bgr.shape[0], bgr.shape[1]))
        batches = -(-layout.plan.count // self._batch)
        count = min(batches, self._engine.slots)
        with self._lock:
            if len(self._free) < count:
                raise EngineError(
                    f"a frame takes {count} engine slots but {len(self._free)} are free; "
                    "finish a frame first"
                )
            buffers = layout.idle.pop() if layout.idle else self._buffers(layout.plan, batches)
            slots = [self._free.popleft() for _ in range(count)]
        return _Flight(layout, buffers, slots, bgr)

    def _buffers(self, plan: TilePlan, batches: int) -> _Buffers:
        picture = np.empty((*plan.picture, 3), np.uint8) if plan.resizing else None
        gathered = None
        if batches > self._engine.slots:
            spec = self._engine.outputs[0]
            gathered = np.empty((plan.count, *spec.shape[1:]), np.dtype(spec.dtype))
        return _Buffers(picture, gathered)

    def _land(self, flight: _Flight) -> None:
        with self._lock:
            self._free.extend(flight.slots)
            flight.layout.idle.append(flight.buffers)

    def _start(self, flight: _Flight, slot: int) -> None:
        """Cut the next batch into a slot and start it; a last, short batch keeps old tiles."""
        first = flight.started * self._batch
        origins = flight.layout.plan.origins[first : first + self._batch]
        tiles = self._engine.input(slot)[: len(origins)]
        cut_tiles(flight.source, origins, tiles, threads=self._threads)
        self._engine.submit(slot)
        flight.running.append((flight.started, slot))
        flight.started += 1

    def _collect(self, flight: _Flight, timeout: float | None) -> None:
        """Wait for every batch in order; start what is left in the slots as they come free."""
        gathered = flight.buffers.gathered
        while flight.running:
            batch, slot = flight.running[0]
            output = self._engine.wait(slot, timeout)
            flight.running.popleft()
            if gathered is None:
                flight.outputs.append(output)
                continue
            first = batch * self._batch
            part = gathered[first : first + self._batch]
            part[...] = output[: len(part)]
            if flight.started * self._batch < len(gathered):
                self._start(flight, slot)

    def _decode(self, flight: _Flight, out: LabelArray) -> None:
        plan, gathered = flight.layout.plan, flight.buffers.gathered
        outputs = flight.outputs if gathered is None else [gathered]
        tiles = [tile for output in outputs for tile in output][: plan.count]
        if self._classes is None:
            rows, cols, per_row = plan.row_picks, plan.col_picks, plan.cols.tiles
            pick_labels(tiles, rows, cols, per_row, out, threads=self._threads)
        else:
            blend_argmax(tiles, plan.rows, plan.cols, out, threads=self._threads)
