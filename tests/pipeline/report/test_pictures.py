"""The pictures: right size, right places, right colours."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from pipeline.report.pictures import WIDTH, difference_picture, picture_frames
from tests.pipeline.report.doubles import contestants, painted

LOST, GAINED, BOTH, IGNORED = (0, 94, 213), (233, 180, 86), (66, 228, 240), (150, 150, 150)


def test_each_kind_of_difference_has_its_colour() -> None:
    truth = np.array([[1, 1, 1, 1, 255, 255]], np.uint8)
    before = np.array([[1, 1, 2, 2, 3, 3]], np.uint8)
    after = np.array([[1, 2, 1, 3, 4, 3]], np.uint8)
    grey = np.full((1, 6, 3), 100, np.uint8)
    found = difference_picture(grey, truth, before, after, size=(1, 6))
    dim = (45, 45, 45)
    assert [tuple(p) for p in found[0].tolist()] == [dim, LOST, GAINED, BOTH, IGNORED, dim]


def test_a_thin_line_survives_shrinking() -> None:
    truth = np.zeros((64, 64), np.uint8)
    after = truth.copy()
    after[:, 30] = 1
    found = difference_picture(np.zeros((64, 64, 3), np.uint8), truth, truth, after, size=(16, 16))
    assert (found[:, 7, 2] > 0.7 * LOST[2]).all()
    assert not found[:, [0, 6, 8, 15]].any()


@pytest.mark.parametrize(("shape", "size"), [((24, 32), (24, 32)), ((600, 1200), (256, WIDTH))])
def test_panels_are_decodable_pictures(shape: tuple[int, int], size: tuple[int, int]) -> None:
    reference, candidate, _exact = contestants((24, 32))
    done: list[int] = []
    (picture,) = picture_frames(
        painted(3, shape), reference, candidate, [2], patch=(12, 16), on_frame=done.append
    )
    assert done == [1]
    assert (picture.index, picture.height, picture.width) == (2, *size)
    assert [panel.title for panel in picture.panels] == ["frame", "fp32", "int8", "disagreement"]
    for panel in picture.panels:
        kind, _comma, data = panel.uri.partition(",")
        assert kind == "data:image/webp;base64"
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (*size, 3)
    if shape == (24, 32):
        assert picture.rows == (0.5,)
        assert picture.cols == (0.5,)
