"""The camera reader against a double of OpenCV's capture: no machine of ours has a camera."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.video.readers import camera
from pipeline.video.source import Head, SourceOptions, SourceSpec
from tests.pipeline.video.clips import HEIGHT, WIDTH, Pixels, number_of, numbered

SPEC = SourceSpec("camera", "/dev/video0", "cam0")


class Capture:
    """What ``cv2.VideoCapture`` does with a camera that gives so many pictures.

    Class attributes, since the reader makes the object itself.
    """

    pictures = 3
    refuses_settings = False
    torn: frozenset[int] = frozenset()
    """Pictures that do not decode."""
    opened: list[tuple[Any, ...]]

    def __init__(self) -> None:
        self.opened = []
        self.number = -1
        self.released = False
        Capture.last = self

    last: Capture

    def open(self, *arguments: Any) -> bool:
        self.opened.append(arguments)
        return not (self.refuses_settings and len(arguments) == 3)

    def get(self, what: int) -> float:
        known = {
            cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT, cv2.CAP_PROP_FRAME_WIDTH: WIDTH,
            cv2.CAP_PROP_FPS: 30.0,
        }  # fmt: skip
        return float(known[what])

    def grab(self) -> bool:
        self.number += 1
        return self.number < self.pictures

    def retrieve(self, out: Pixels) -> tuple[bool, Pixels | None]:
        if self.number in self.torn:
            return False, None
        out[...] = numbered(self.number)
        return True, out

    def release(self) -> None:
        self.released = True


@pytest.fixture(autouse=True)
def _camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(camera, "_check_device", lambda _spec: None)


def test_pictures_come_until_the_cable_is_pulled() -> None:
    reader = camera.CameraReader(SPEC, SourceOptions())
    assert reader.live
    assert reader.rate == 30.0
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for number in range(3):
        head = reader.grab()
        assert isinstance(head, Head)
        assert (head.height, head.width) == (HEIGHT, WIDTH)
        assert head.timestamp >= 0
        reader.retrieve(out)
        assert number_of(out) == number
    with pytest.raises(SourceError, match="'cam0': the camera stopped"):
        reader.grab()
    reader.close()
    assert Capture.last.released


def test_torn_pictures_are_counted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "torn", frozenset({0, 2, 3}))
    monkeypatch.setattr(Capture, "pictures", 6)
    reader = camera.CameraReader(SPEC, SourceOptions())
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    found = []
    for _picture in range(3):
        assert reader.grab() is not None
        reader.retrieve(out)
        found.append(number_of(out))
    assert found == [1, 4, 5]
    assert reader.decode_errors == 3
    assert not Capture.last.released


def test_camera_whose_pictures_never_decode_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "torn", frozenset(range(5, 1000)))
    monkeypatch.setattr(Capture, "pictures", 1000)
    reader = camera.CameraReader(SPEC, SourceOptions())
    for _picture in range(5):
        assert reader.grab() is not None
    with pytest.raises(SourceError, match="'cam0': 30 pictures in a row did not decode"):
        reader.grab()
    assert reader.decode_errors == 30


def test_size_and_rate_are_asked_for() -> None:
    camera.CameraReader(SPEC, SourceOptions(size=(720, 1280), rate=25.0))
    device, api, settings = Capture.last.opened[0]
    asked = dict(zip(settings[::2], settings[1::2], strict=True))
    assert (device, api) == ("/dev/video0", cv2.CAP_V4L2)
    assert asked[cv2.CAP_PROP_FRAME_HEIGHT] == 720
    assert asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
    assert asked[cv2.CAP_PROP_FPS] == 25
    assert asked[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")


def test_camera_that_refuses_settings_is_opened_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "refuses_settings", True)
    camera.CameraReader(SPEC, SourceOptions(size=(720, 1280)))
    assert [len(arguments) for arguments in Capture.last.opened] == [3, 2]


def test_camera_that_does_not_open_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "open", lambda *_: False)
    with pytest.raises(SourceError, match="'cam0': /dev/video0 does not give pictures"):
        camera.CameraReader(SPEC, SourceOptions())
