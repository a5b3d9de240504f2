"""Pictures as sources: one JPEG, or a directory of them, as upright as EXIF says."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SourceError
from tests.pipeline.video.clips import Pixels, numbered
from tests.pipeline.video.fakes import Recorder
from tests.pipeline.video.harness import add, make
from tests.pipeline.video.test_readers import open_path, read_all


def exif(orientation: int) -> bytes:
    """A JPEG's APP1 segment with the one tag 0x112 (Exif 2.3, 4.6.4)."""
    entry = b"\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0])
    body = b"Exif\0\0II*\0\x08\0\0\0" + entry + bytes(4)
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def upright(stored: Pixels, orientation: int) -> Pixels:
    """Exif 2.3, 4.6.4: where the stored picture's first row and column lie in the shown one."""
    shown: dict[int, Pixels] = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }  # fmt: skip
    return shown[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_upright_alone_and_in_a_directory(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / ("shot.jpg" if orientation % 2 else "shot.JPEG")
    data = cv2.imencode(".jpg", numbered(5))[1].tobytes()
    path.write_bytes(data[:2] + exif(orientation) + data[2:])
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    expected = upright(np.asarray(stored, np.uint8), orientation)
    for source in (path, tmp_path):
        ((time, picture),) = read_all(open_path(source))
        assert time == 0
        np.testing.assert_array_equal(picture, expected)


def test_single_picture_that_is_truncated_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "shot.jpg"
    data = cv2.imencode(".jpg", numbered(5))[1].tobytes()
    path.write_bytes(data[: len(data) // 2])
    runner = make()
    add(runner, str(path), Recorder())
    with pytest.raises(SourceError, match=r"holds no frame that decodes \(1 did not\)"):
        runner.run()
