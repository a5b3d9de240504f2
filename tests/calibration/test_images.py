"""Files that are damaged, forged, too large or of another kind: each is one named error."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import images
from calibration.cityscapes import Cityscapes
from calibration.errors import CalibrationDataError
from tests.calibration.pictures import forged, write

Bytes = npt.NDArray[np.uint8]


def test_every_truncation_of_a_png_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.png", rng.integers(0, 256, (9, 11, 3), np.uint8))
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(CalibrationDataError, match=r"a\.png: (truncated|neither)"):
            images.read_bgr(path)


def test_every_flipped_byte_of_a_png_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.png", rng.integers(0, 34, (9, 11), np.uint8))
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CalibrationDataError):
            images.read_grey(path)


def test_truncated_jpeg_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.jpg", rng.integers(0, 256, (40, 60, 3), np.uint8))
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CalibrationDataError, match="truncated"):
            images.read_bgr(path)


def test_jpeg_header_gives_the_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", np.zeros((40, 60, 3), np.uint8))
    assert images.read_header(path) == images.ImageHeader(40, 60, 8, grey=False)


@given(
    data=st.binary(max_size=400), kind=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
)
def test_garbage_is_an_error_and_nothing_else(
    data: bytes, kind: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.png"
    path.write_bytes(kind + data)
    with pytest.raises(CalibrationDataError, match=r"garbage\.png"):
        images.read_bgr(path)


@pytest.mark.parametrize(("width", "height"), [(8001, 8001), (2**31 - 1, 2), (1, 64_000_001)])
def test_huge_claims_are_refused_before_decoding(
    tmp_path: Path, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(forged(width, height))
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(CalibrationDataError, match="more than the 64 megapixels"):
        images.read_bgr(path)


def test_large_files_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    path = tmp_path / "big.png"
    path.write_bytes(b"\0" * 101)
    with pytest.raises(CalibrationDataError, match="larger than"):
        images.read_bgr(path)


def test_a_header_without_pixels_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.write_bytes(forged(0, 4))
    with pytest.raises(CalibrationDataError, match="claims 0x4"):
        images.read_bgr(path)


def test_a_file_that_lies_about_its_pixels_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.png"
    path.write_bytes(forged(400, 400))
    with pytest.raises(CalibrationDataError, match=r"short\.png"):
        images.read_grey(path)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint16), np.zeros((4, 5, 4), np.uint8)],
)
def test_labels_must_be_one_channel_of_8_bits(tmp_path: Path, image: Bytes) -> None:
    path = write(tmp_path / "label.png", image)
    with pytest.raises(CalibrationDataError, match="one channel of 8 bits"):
        Cityscapes.read_labels(path)


def test_palette_and_jpeg_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    path.write_bytes(forged(4, 4, colour=3))
    with pytest.raises(CalibrationDataError, match="not a palette"):
        Cityscapes.read_labels(path)
    with pytest.raises(CalibrationDataError, match="one channel of 8 bits"):
        Cityscapes.read_labels(write(tmp_path / "label.jpg", np.full((8, 8), 7, np.uint8)))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(CalibrationDataError, match=r"pipe\.png: cannot be read \(it is a pipe"):
        images.read_bytes(tmp_path / "pipe.png")


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(CalibrationDataError, match=r"gone\.png: cannot be read \(No such file"):
        images.read_bgr(tmp_path / "gone.png")
    with pytest.raises(CalibrationDataError, match=r"cannot be read \(Is a directory"):
        images.read_bgr(tmp_path)
