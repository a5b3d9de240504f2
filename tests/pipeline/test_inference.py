"""The labels a segmenter gives: of any frame, through any tiling, batch and engine."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.base import Engine
from pipeline.inference import FrameSegmenter
from pipeline.kernels import dispatch
from tests.pipeline.fake_engine import (
    MIXES,
    FakeEngine,
    assert_nearly_equal,
    network,
    picture,
    whole_frame_labels,
)


def test_the_double_keeps_the_protocol() -> None:
    assert isinstance(FakeEngine(), Engine)


def test_a_frame_of_the_tiles_size() -> None:
    frame = picture(32, 64)
    labels = FrameSegmenter(FakeEngine()).segment(frame)
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
    segmenter = FrameSegmenter(engine, tiles="cover", overlap=overlap)
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
    got = FrameSegmenter(FakeEngine(labels=labels), tiles=tiles).segment(frame)
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
        got = FrameSegmenter(FakeEngine(labels=labels)).segment(frame)
        lines = got if axis == 0 else got.T
        scale = max(1.0, height / 32, width / 64)
        margin = int(np.ceil(4 * scale)) + 1
        assert (lines[: middle - margin] == 0).all()
        assert (lines[middle + margin :] == 1).all()


def test_a_scaled_cover_is_the_scaled_picture() -> None:
    frame = picture(60, 100)
    got = FrameSegmenter(FakeEngine(), tiles="cover", scale=2.0).segment(frame)
    large = cv2.resize(frame, (200, 120), interpolation=cv2.INTER_LINEAR)
    logits = network(large[None])[0]
    planes = [cv2.resize(plane, (100, 60), interpolation=cv2.INTER_LINEAR) for plane in logits]
    assert_nearly_equal(got, np.stack(planes).argmax(axis=0).astype(np.uint8))


def test_a_shrunk_picture_is_averaged_not_sampled() -> None:
    """Of four columns two are seen by linear interpolation: here those of one colour only."""
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:, ::4] = frame[:, 3::4] = (255, 0, 0)
    frame[:, 1::4] = frame[:, 2::4] = (0, 0, 255)
    got = FrameSegmenter(FakeEngine()).segment(frame)
    mean, sampled = (MIXES @ colour for colour in ([127.5, 0, 127.5], [0, 0, 255]))
    assert (got == mean.argmax()).all()
    assert mean.argmax() != sampled.argmax()


@pytest.mark.parametrize("tiles", ["fit", "cover"])
def test_the_steady_state_allocates_nothing_of_a_frames_size(tiles: Any) -> None:
    if dispatch.active().mode == dispatch.REFERENCE:
        pytest.skip("the NumPy reference allocates; it is for reading")
    frame = picture(200, 300)
    engine = FakeEngine(slots=2)
    out = np.empty((200, 300), np.uint8)
    segmenter = FrameSegmenter(engine, tiles=tiles)
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
            got = FrameSegmenter(engine, **options).segment(frame)
        assert_nearly_equal(got, FrameSegmenter(FakeEngine(), **options).segment(frame))
