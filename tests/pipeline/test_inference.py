from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.base import Engine, EngineInfo, TensorSpec
from pipeline.errors import EngineError, UsageError
from pipeline.inference import Segmenter
from pipeline.kernels import dispatch

CLASSES = 6
# Fractions of pi: no mean of sixteen bytes lies exactly between two of them.
MIXES = np.pi * np.array([[9, -4, 1], [2, 8, -5], [-7, 3, 6], [5, 5, -9], [1, 1, 1], [-3, -2, 8]])


def network(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A network that sees four by four pixels: class scores are mixtures of their mean colour."""
    batch, height, width, _ = frames.shape
    means = frames.reshape(batch, height // 4, 4, width // 4, 4, 3).mean(axis=(2, 4))
    return np.ascontiguousarray(np.einsum("bhwk,ck->bchw", means, MIXES).astype(np.float32))


class FakeEngine:
    """A test double of the protocol: ``network`` run when waited for, with the protocol's checks.

    It computes at ``wait`` from the slot's buffer, so that a caller who touches the buffer of a
    slot in flight gets a wrong result, and it refuses what the protocol forbids.
    """

    def __init__(
        self,
        tile: tuple[int, int] = (32, 64),
        *,
        batch: int = 1,
        slots: int = 2,
        labels: bool = False,
    ) -> None:
        self.inputs = (TensorSpec("frames", "uint8", (batch, *tile, 3), "NHWC"),)
        logits = TensorSpec(
            "logits", "float32", (batch, CLASSES, tile[0] // 4, tile[1] // 4), "NCHW"
        )
        ids = TensorSpec("labels", "uint8", (batch, *tile), "NHW")
        self.outputs = (ids if labels else logits,)
        self.info = EngineInfo("fake", "none", "fp32", "fake.engine")
        self.slots = slots
        self.runs = 0
        self.slow: set[int] = set()
        self.broken: set[int] = set()
        self._inputs = [np.zeros((batch, *tile, 3), np.uint8) for _ in range(slots)]
        spec = self.outputs[0]
        self._outputs = [np.zeros(spec.shape, spec.dtype) for _ in range(slots)]
        self._seen: list[bytes | None] = [None] * slots

    def input(self, slot: int) -> npt.NDArray[np.uint8]:
        if self._seen[slot] is not None:
            raise EngineError(f"slot {slot} is in flight")
        return self._inputs[slot]

    def submit(self, slot: int) -> None:
        if self._seen[slot] is not None:
            raise EngineError(f"slot {slot} is in flight")
        self._seen[slot] = self._inputs[slot].tobytes()
        self.runs += 1

    def wait(self, slot: int, timeout: float | None = None) -> npt.NDArray[Any]:
        seen = self._seen[slot]
        if seen is None:
            raise EngineError(f"slot {slot} was never submitted")
        if slot in self.slow and timeout is not None:
            raise TimeoutError("still running")
        self._seen[slot] = None
        if slot in self.broken:
            raise EngineError("the device is gone")
        assert seen == self._inputs[slot].tobytes(), "written to while in flight"
        values: npt.NDArray[Any] = network(self._inputs[slot])
        if self.outputs[0].layout == "NHW":
            values = values.argmax(axis=1).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
        self._outputs[slot][...] = values
        return self._outputs[slot]

    def infer(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        self.input(0)[...] = frames
        self.submit(0)
        output: npt.NDArray[Any] = self.wait(0).copy()
        return output

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Colours that change smoothly over some ten pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8)
    frame: npt.NDArray[np.uint8] = cv2.resize(
        coarse, (width, height), interpolation=cv2.INTER_CUBIC
    )
    return frame


def whole_frame_labels(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """One tile as large as the frame, reflected up to a multiple of 4; OpenCV's own resize.

    An enlargement by exactly 4 is sampled at half-pixel positions by OpenCV too.
    """
    height, width = frame.shape[:2]
    right = np.pad(frame, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
    logits = network(right[None])[0]
    size = (right.shape[1], right.shape[0])
    full = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in logits]
    labels: npt.NDArray[np.uint8] = np.stack(full).argmax(axis=0).astype(np.uint8)
    return labels[:height, :width]


def assert_nearly_equal(got: npt.NDArray[np.uint8], want: npt.NDArray[np.uint8]) -> None:
    """But for single pixels on a border between classes, where rounding decides."""
    assert got.shape == want.shape
    assert (got != want).mean() < 2e-3


def test_the_double_keeps_the_protocol() -> None:
    assert isinstance(FakeEngine(), Engine)


def test_a_frame_of_the_tiles_size() -> None:
    frame = picture(32, 64)
    labels = Segmenter(FakeEngine()).segment(frame)
    assert labels.dtype == np.uint8
    assert_nearly_equal(labels, whole_frame_labels(frame))
    assert len(np.unique(labels)) > 3


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(("batch", "slots"), [(1, 1), (1, 2), (1, 64), (2, 1), (3, 2), (4, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_tiled_is_whole(batch: int, slots: int, labels: bool, overlap: float) -> None:
    """A network this local cannot tell, so neither may the result: not even at the seams."""
    frame = picture(101, 150)
    before = frame.copy()
    engine = FakeEngine(batch=batch, slots=slots, labels=labels)
    segmenter = Segmenter(engine, tiles="cover", overlap=overlap)
    got = segmenter.segment(frame)
    if labels:
        full = np.pad(frame, ((0, 3), (0, 2), (0, 0)), mode="reflect")
        ids = network(full[None])[0].argmax(axis=0).repeat(4, axis=0).repeat(4, axis=1)
        np.testing.assert_array_equal(got, ids[:101, :150])
    else:
        assert_nearly_equal(got, whole_frame_labels(frame))
    assert engine.runs == segmenter.batches(101, 150)
    np.testing.assert_array_equal(segmenter.segment(frame), got)
    np.testing.assert_array_equal(frame, before)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 150)),
    tiles=st.sampled_from(["fit", "cover"]),
    labels=st.booleans(),
)
def test_any_size_comes_back_at_its_own_size(
    size: tuple[int, int], tiles: Any, labels: bool
) -> None:
    """A frame of one colour has one label, through every resize and reflection."""
    colour = np.array([30, 90, 200], np.uint8)
    frame = np.broadcast_to(colour, (*size, 3)).copy()
    got = Segmenter(FakeEngine(labels=labels), tiles=tiles).segment(frame)
    assert got.shape == size
    assert (got == (MIXES @ colour).argmax()).all()


@pytest.mark.parametrize(("height", "width"), [(64, 128), (300, 400), (17, 40), (90, 33)])
@pytest.mark.parametrize("labels", [False, True])
def test_fit_finds_things_where_they_are(height: int, width: int, labels: bool) -> None:
    """Two halves stay halves, at the frame's own resolution, with the padding cut away."""
    for axis in (0, 1):
        frame = np.zeros((height, width, 3), np.uint8)
        first = frame if axis == 0 else frame.transpose(1, 0, 2)
        middle = len(first) // 2
        first[:middle], first[middle:] = (255, 0, 0), (0, 255, 0)
        got = Segmenter(FakeEngine(labels=labels)).segment(frame)
        lines = got if axis == 0 else got.T
        scale = max(1.0, height / 32, width / 64)
        margin = int(np.ceil(4 * scale)) + 1
        assert (lines[: middle - margin] == 0).all()
        assert (lines[middle + margin :] == 1).all()


def test_a_scaled_cover_is_the_scaled_picture() -> None:
    frame = picture(60, 100)
    got = Segmenter(FakeEngine(), tiles="cover", scale=2.0).segment(frame)
    large = cv2.resize(frame, (200, 120), interpolation=cv2.INTER_LINEAR)
    logits = network(large[None])[0]
    planes = [cv2.resize(plane, (100, 60), interpolation=cv2.INTER_LINEAR) for plane in logits]
    assert_nearly_equal(got, np.stack(planes).argmax(axis=0).astype(np.uint8))


def test_a_shrunk_picture_is_averaged_not_sampled() -> None:
    """Of four columns two are seen by linear interpolation: here those of one colour only."""
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:, ::4] = frame[:, 3::4] = (255, 0, 0)
    frame[:, 1::4] = frame[:, 2::4] = (0, 0, 255)
    got = Segmenter(FakeEngine()).segment(frame)
    mean, sampled = (MIXES @ colour for colour in ([127.5, 0, 127.5], [0, 0, 255]))
    assert (got == mean.argmax()).all()
    assert mean.argmax() != sampled.argmax()


def test_frames_under_way_do_not_disturb_each_other() -> None:
    frames = [picture(50, 90, seed) for seed in range(5)]
    engine = FakeEngine(slots=6)
    segmenter = Segmenter(engine, tiles="cover", overlap=0.2)
    alone = [segmenter.segment(frame) for frame in frames]
    assert segmenter.batches(50, 90) == 4
    wide = Segmenter(FakeEngine(slots=20), tiles="cover", overlap=0.2)
    assert (segmenter.lanes(50, 90), wide.lanes(50, 90)) == (1, 5)
    tickets = [wide.submit(frame) for frame in frames]
    order = [3, 0, 4, 1, 2]
    for index in order:
        np.testing.assert_array_equal(wide.finish(tickets[index]), alone[index])
    assert all(t.prepare > 0 and t.infer > 0 and t.decode > 0 for t in tickets)
    assert tickets[0].shape == (50, 90)


def test_sizes_may_be_mixed() -> None:
    segmenter = Segmenter(FakeEngine(slots=3))
    sizes = [(20, 30), (70, 90), (20, 30), (32, 64)]
    alone = [segmenter.segment(picture(*size, seed)) for seed, size in enumerate(sizes)]
    tickets = [segmenter.submit(picture(*size, seed)) for seed, size in enumerate(sizes[:3])]
    for ticket, want in zip(tickets, alone, strict=False):
        np.testing.assert_array_equal(segmenter.finish(ticket), want)
    for side in range(1, 40):  # more sizes than are kept
        assert segmenter.segment(picture(side, 9)).shape == (side, 9)


def test_threads_may_share_a_segmenter() -> None:
    frames = [picture(40, 70, seed) for seed in range(4)]
    segmenter = Segmenter(FakeEngine(slots=4))
    want = [segmenter.segment(frame) for frame in frames]
    wrong: list[int] = []

    def work(index: int) -> None:
        results = [segmenter.segment(frames[index]) for _ in range(20)]
        wrong.extend(index for labels in results if (labels != want[index]).any())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("tiles", ["fit", "cover"])
def test_the_steady_state_allocates_nothing_of_a_frames_size(tiles: Any) -> None:
    if dispatch.active().mode == dispatch.REFERENCE:
        pytest.skip("the NumPy reference allocates; it is for reading")
    frame = picture(200, 300)
    engine = FakeEngine(slots=2)
    out = np.empty((200, 300), np.uint8)
    segmenter = Segmenter(engine, tiles=tiles)
    values = network(engine.input(0))
    results = dict.fromkeys(range(2), values)
    engine.wait = lambda slot, timeout=None: results[slot]  # type: ignore[method-assign]  # no NumPy
    engine.submit = lambda slot: None  # type: ignore[method-assign]  # of the double's own
    for _ in range(3):
        segmenter.segment(frame, out)
    tracemalloc.start()
    try:
        for _ in range(10):
            segmenter.segment(frame, out)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000  # a frame has 180,000 bytes, its labels 60,000
    assert now < 10_000


def test_too_many_frames_at_once() -> None:
    segmenter = Segmenter(FakeEngine(slots=2))
    frame = picture(32, 64)
    first, second = segmenter.submit(frame), segmenter.submit(frame)
    with pytest.raises(EngineError, match="takes 1 engine slots but 0 are free; finish a frame"):
        segmenter.submit(frame)
    segmenter.finish(first)
    segmenter.finish(segmenter.submit(frame))
    segmenter.finish(second)


def test_a_ticket_is_finished_once() -> None:
    segmenter = Segmenter(FakeEngine())
    ticket = segmenter.submit(picture(32, 64))
    segmenter.finish(ticket)
    with pytest.raises(EngineError, match="finished or discarded before"):
        segmenter.finish(ticket)
    segmenter.discard(ticket)
    assert segmenter.segment(picture(32, 64)).shape == (32, 64)


def test_a_discarded_frame_frees_its_slots() -> None:
    engine = FakeEngine(slots=1)
    segmenter = Segmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    for _ in range(3):
        segmenter.discard(segmenter.submit(frame))
    np.testing.assert_array_equal(segmenter.segment(frame), want)


def test_a_timeout_leaves_the_frame_under_way() -> None:
    engine = FakeEngine(slots=2)
    segmenter = Segmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    engine.slow = {1}
    ticket = segmenter.submit(frame)
    with pytest.raises(TimeoutError):
        segmenter.finish(ticket, timeout=0.01)
    engine.slow.clear()
    np.testing.assert_array_equal(segmenter.finish(ticket, timeout=0.01), want)


def test_a_slot_that_never_answers_is_not_used_again() -> None:
    engine = FakeEngine(slots=2)
    segmenter = Segmenter(engine)
    engine.slow = {0}
    ticket = segmenter.submit(picture(32, 64))
    segmenter.discard(ticket, timeout=0.01)
    frame = picture(32, 64, 1)
    np.testing.assert_array_equal(segmenter.segment(frame), Segmenter(FakeEngine()).segment(frame))
    kept = segmenter.submit(frame)
    with pytest.raises(EngineError, match="0 are free"):
        segmenter.submit(frame)
    segmenter.finish(kept)


@pytest.mark.parametrize(("slots", "broken"), [(1, 0), (2, 1), (9, 5)])
def test_a_failing_device_is_reported_and_frees_its_slots(slots: int, broken: int) -> None:
    engine = FakeEngine(slots=slots)
    segmenter = Segmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    engine.broken = {broken}  # one of those that the second frame is given
    with pytest.raises(EngineError, match="the device is gone"):
        segmenter.segment(frame)
    engine.broken.clear()
    for _ in range(2):
        np.testing.assert_array_equal(segmenter.segment(frame), want)


def test_a_submission_that_fails_midway_frees_its_slots() -> None:
    engine = FakeEngine(slots=9)
    segmenter = Segmenter(engine, tiles="cover")
    frame = picture(50, 90)
    want = segmenter.segment(frame)
    submit = engine.submit
    calls: list[int] = []

    def failing(slot: int) -> None:
        calls.append(slot)
        if len(calls) == 3:
            raise EngineError("cannot start")
        submit(slot)

    engine.submit = failing  # type: ignore[method-assign]  # a device that fails once
    with pytest.raises(EngineError, match="cannot start"):
        segmenter.submit(frame)
    engine.submit = submit  # type: ignore[method-assign]
    for _ in range(3):
        np.testing.assert_array_equal(segmenter.segment(frame), want)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (np.zeros((4, 5, 3), np.float32), TypeError),
        ([[[0, 0, 0]]], TypeError),
        (None, TypeError),
        (np.zeros((4, 5), np.uint8), ValueError),
        (np.zeros((4, 5, 4), np.uint8), ValueError),
        (np.zeros((0, 5, 3), np.uint8), ValueError),
        (np.zeros((4, 5, 3), np.uint8)[:, ::-1], ValueError),
        (np.zeros((4, 9, 3), np.uint8)[:, :5], ValueError),
    ],
)
def test_frames_that_are_none(frame: Any, error: type[Exception]) -> None:
    segmenter = Segmenter(FakeEngine(slots=1))
    with pytest.raises(error, match="a frame"):
        segmenter.submit(frame)
    segmenter.segment(picture(9, 9))


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.zeros((9, 8), np.uint8), ValueError),
        (np.zeros((9, 9), np.int32), TypeError),
        (np.zeros((9, 18), np.uint8)[:, ::2], ValueError),
        (np.broadcast_to(np.zeros(9, np.uint8), (9, 9)), ValueError),
    ],
)
def test_outputs_that_are_none(out: Any, error: type[Exception]) -> None:
    segmenter = Segmenter(FakeEngine(slots=1))
    ticket = segmenter.submit(picture(9, 9))
    with pytest.raises(error, match="out is"):
        segmenter.finish(ticket, out)
    good = np.empty((9, 9), np.uint8)
    assert segmenter.finish(ticket, good) is good


@pytest.mark.parametrize(
    "options", [{"tiles": "both"}, {"overlap": 1.5, "tiles": "cover"}, {"scale": 2.0}]
)
def test_options_are_refused_before_the_first_frame(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Segmenter(FakeEngine(), **options)


@pytest.mark.parametrize(
    ("given", "gives"),
    [
        (("float32", (1, 32, 64, 3), "NHWC"), None),
        (("uint8", (1, 3, 32, 64), "NCHW"), None),
        (("uint8", (1, 32, 64, 4), "NHWC"), None),
        (("uint8", (1, 30, 64, 3), "NHWC"), ("uint8", (1, 30, 64), "NHW")),
        (None, ("float16", (1, 6, 8, 16), "NCHW")),
        (None, ("float32", (1, 6, 32, 64), "NCHW")),
        (None, ("float32", (2, 6, 8, 16), "NCHW")),
        (None, ("uint8", (1, 8, 16), "NHW")),
        (None, ("int64", (1, 32, 64), "NHW")),
    ],
)
def test_engines_of_neither_kind(given: Any, gives: Any) -> None:
    engine = FakeEngine()
    if given:
        engine.inputs = (TensorSpec("frames", *given),)
    if gives:
        engine.outputs = (TensorSpec("logits", *gives),)
    with pytest.raises(EngineError, match=r"fake\.engine"):
        Segmenter(engine)


def test_a_real_engine(tmp_path: Path) -> None:
    """OpenVINO running the same network: means of 4x4 pixels, then a 1x1 convolution."""
    openvino = pytest.importorskip("openvino")
    from pipeline.engines.openvino import OpenVINOEngine

    opset = openvino.opset13
    frames = opset.parameter([2, 32, 64, 3], np.uint8, name="frames")
    channels_first = opset.transpose(opset.convert(frames, "f32"), np.array([0, 3, 1, 2]))
    means = opset.avg_pool(channels_first, [4, 4], [0, 0], [0, 0], [4, 4], True)
    kernel = MIXES.astype(np.float32)[:, :, None, None]
    logits = opset.convolution(means, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    openvino.save_model(
        openvino.Model([logits], [frames]), tmp_path / "net.xml", compress_to_fp16=False
    )
    frame = picture(101, 150)
    for options in ({}, {"tiles": "cover"}, {"tiles": "cover", "scale": 0.7}):
        with OpenVINOEngine(tmp_path / "net.xml", slots=2) as engine:
            got = Segmenter(engine, **options).segment(frame)
        assert_nearly_equal(got, Segmenter(FakeEngine(), **options).segment(frame))
