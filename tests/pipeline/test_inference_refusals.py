"""What a segmenter refuses: frames, outputs, options and engines that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.engines.base import TensorSpec
from pipeline.errors import EngineError, UsageError
from pipeline.inference import FrameSegmenter
from tests.pipeline.fake_engine import FakeEngine, picture


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
    segmenter = FrameSegmenter(FakeEngine(slots=1))
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
    segmenter = FrameSegmenter(FakeEngine(slots=1))
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
        FrameSegmenter(FakeEngine(), **options)


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
        FrameSegmenter(engine)
