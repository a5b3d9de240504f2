"""What the runner writes scores what the report's evaluation scores: no frame is shifted, lost,
resized otherwise or given another's labels on the way. On streets, whose truth is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.cityscapes import IGNORE, LABEL_IDS_TO_TRAIN_IDS
from calibration.streets import StreetScene
from pipeline.inference import FrameSegmenter
from pipeline.kernels import confusion
from pipeline.report.evaluate import Contestant, evaluate
from pipeline.report.metrics import score
from pipeline.video.session import Request, Session
from pipeline.video.source import SourceOptions, parse_source
from tests.pipeline.video.clips import Pixels
from tests.pipeline.video.fakes import ColourEngine

SEED, FRAMES, HEIGHT, WIDTH = 11, 6, 120, 200


class Streets:
    """The frames and their truth, as the report's evaluation reads them."""

    names = tuple(f"frame {number}" for number in range(FRAMES))

    def __init__(self) -> None:
        self._scene = StreetScene(SEED, HEIGHT, WIDTH)

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        frame = self._scene.render(index)
        return frame.bgr, LABEL_IDS_TO_TRAIN_IDS[frame.labels]


@pytest.mark.parametrize("slots", [1, 3])
def test_runner_and_report_agree_to_the_pixel(tmp_path: Path, slots: int) -> None:
    frames = Streets()
    contestants = [Contestant(name, FrameSegmenter(ColourEngine(64, 128))) for name in ("a", "b")]
    reported = evaluate(frames, contestants[0], contestants[1])["candidate"].sum(
        axis=0, dtype=np.int64
    )

    request = Request(
        [parse_source(f"streets:{SEED}")],
        source_options=SourceOptions(size=(HEIGHT, WIDTH)),
        labels=tmp_path,
        max_frames=FRAMES,
    )
    with Session(ColourEngine(64, 128, slots=slots, delay=0.003), request) as session:
        assert session.run()["frames"] == FRAMES
    counted = np.zeros_like(reported)
    for number in range(FRAMES):
        path = tmp_path / f"frame_{number:06d}_labelIds.png"
        ids = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8)
        confusion(frames.read(number)[1], LABEL_IDS_TO_TRAIN_IDS[ids], counted, ignore=IGNORE)
    np.testing.assert_array_equal(counted, reported)
    assert score(counted).miou == score(reported).miou > 0
