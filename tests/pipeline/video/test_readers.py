"""Readers: whole, damaged, truncated, turned, variable-rate, hostile and missing sources."""

from __future__ import annotations

import errno
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.video.readers import ffmpeg
from pipeline.video.source import Reader, SourceOptions, open_reader, parse_source
from tests.pipeline.video.clips import (
    Pixels,
    damage,
    number_of,
    numbered,
    rotate_header,
    turn_header,
    write_clip,
)


def read_all(reader: Reader) -> list[tuple[float, Pixels]]:
    found = []
    while (head := reader.grab()) is not None:
        picture = np.empty((head.height, head.width, 3), np.uint8)
        reader.retrieve(picture)
        found.append((head.timestamp, picture))
    reader.close()
    return found


def open_path(path: Path) -> Reader:
    return open_reader(parse_source(str(path)), SourceOptions())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
def test_every_frame_of_a_file_comes_in_order_at_its_time(tmp_path: Path, ending: str) -> None:
    codec = "mpeg4" if ending == "avi" else "libx264"
    reader = open_path(write_clip(tmp_path / f"clip.{ending}", 30, codec=codec))
    assert not reader.live
    found = read_all(reader)
    assert [number_of(picture) for _time, picture in found] == list(range(30))
    np.testing.assert_allclose([time for time, _ in found], np.arange(30) / 25, atol=2e-3)
    assert (reader.decode_errors, reader.truncated) == (0, False)


def test_variable_frame_rate_keeps_its_timestamps(tmp_path: Path) -> None:
    times = [0.0, 0.02, 0.5, 0.55, 2.0, 2.001, 7.0]
    found = read_all(open_path(write_clip(tmp_path / "vfr.mp4", len(times), times=times)))
    np.testing.assert_allclose([time for time, _ in found], times, atol=1e-4)


def test_colours_are_right(tmp_path: Path) -> None:
    """OpenCV writes the file, so its own reading of it is the oracle."""
    path = tmp_path / "colour.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :20], picture[:, 20:40], picture[:, 40:] = (
        (200, 30, 40),
        (30, 180, 60),
        (40, 50, 210),
    )
    for _ in range(3):
        writer.write(picture)
    writer.release()
    found = read_all(open_path(path))
    assert len(found) == 3
    for left in (10, 30, 55):
        np.testing.assert_allclose(found[0][1][24, left], picture[24, left], atol=6)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_honoured(tmp_path: Path, degrees: int) -> None:
    path = rotate_header(write_clip(tmp_path / "phone.mp4", 3), degrees)
    oracle = cv2.VideoCapture(str(path))  # OpenCV turns pictures too
    expected = oracle.read()[1]
    oracle.release()
    found = read_all(open_path(path))
    assert found[0][1].shape == expected.shape
    assert np.abs(found[0][1].astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    "axes",
    [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
     (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
)  # fmt: skip
def test_every_display_matrix_of_right_angles_is_the_standards_formula(
    tmp_path: Path, axes: tuple[int, int, int, int]
) -> None:
    """A point (x, y) is shown at (ax + cy, bx + dy): ISO/IEC 14496-12, 6.2.2. OpenCV is no oracle
    for mirrors, which it takes for turns."""
    plain = write_clip(tmp_path / "plain.mp4", 1)
    stored = read_all(open_path(plain))[0][1]
    a, b, c, d = axes
    rows, columns = np.mgrid[: stored.shape[0], : stored.shape[1]]
    across, down = a * columns + c * rows, b * columns + d * rows
    across, down = across - across.min(), down - down.min()
    expected = np.zeros((down.max() + 1, across.max() + 1, 3), np.uint8)
    expected[down, across] = stored
    (found,) = read_all(open_path(turn_header(plain, axes)))
    np.testing.assert_array_equal(found[1], expected)


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv", "avi"])
def test_damage_in_the_middle_is_counted_and_skipped(tmp_path: Path, ending: str) -> None:
    codec = "mpeg4" if ending == "avi" else "libx264"
    whole = write_clip(tmp_path / f"whole.{ending}", 120, codec=codec, gop=10)
    reader = open_path(damage(whole, tmp_path / f"damaged.{ending}", start=0.4, end=0.6))
    found = read_all(reader)
    numbers = [number_of(picture) for _time, picture in found]
    # A transport stream may count a frame twice: its packet, and what is left of the picture.
    assert 120 <= len(found) + reader.decode_errors < 140, "every frame was shown or counted"
    assert len(found) < 120
    assert numbers[:15] == list(range(15)), "what lies before the damage is untouched"
    assert numbers[-15:] == list(range(105, 120)), "the damage is not the end"


def test_truncated_file_ends_and_says_so(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 100, options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    reader = open_path(cut)
    found = read_all(reader)
    assert 20 < len(found) < 90
    assert [number_of(p) for _t, p in found[:20]] == list(range(20))
    assert reader.truncated
    assert len(found) + reader.decode_errors == 100


def _without_index(folder: Path) -> Path:
    whole = write_clip(folder / "whole.mp4", 20)
    cut = folder / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return cut


def _text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("this is no video\n" * 50)
    return path


def _text_called_video(folder: Path) -> Path:
    return _text(folder).rename(folder / "notes.mp4")


def _noise(folder: Path) -> Path:
    path = folder / "noise.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    return path


def _empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def _enormous(folder: Path) -> Path:
    """A PNG whose header claims 30,000 x 30,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    path = folder / "enormous.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
            for part in (head, data, b"IEND")
        )
    )
    return path


def _playlist(folder: Path) -> Path:
    """A playlist that would fetch something from elsewhere."""
    path = folder / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n")
    return path


@pytest.mark.parametrize(
    "make", [_without_index, _text, _text_called_video, _noise, _empty, _enormous, _playlist]
)
def test_what_is_no_video_is_one_clear_line(
    tmp_path: Path, make: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(make)
    path = make(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_path(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "FFmpeg keeps quiet"


@pytest.mark.parametrize(
    ("name", "codec"), [("large.mp4", "libx264"), ("large.mkv", "ffv1"), ("large.avi", "mpeg4")]
)
def test_video_of_too_many_pixels_is_told_the_limit(
    tmp_path: Path, name: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "MAX_PIXELS", 100 * 100)  # rather than encode 64 megapixels
    path = write_clip(tmp_path / name, 2, codec=codec)
    with pytest.raises(SourceError, match=r"more than (the )?\d+ megapixels"):
        open_path(path)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_address_that_cannot_be_connected_to_is_not_called_a_video(scheme: str) -> None:
    """A link-local address without its interface: the kernel answers EINVAL."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            answer = probe.connect_ex(("fe80::a:1", 9))
    except OSError:
        answer = errno.EAFNOSUPPORT
    if answer != errno.EINVAL:
        pytest.skip(f"IPv6 answers {errno.errorcode[answer]} here")
    with pytest.raises(SourceError, match="cannot be connected to") as caught:
        open_reader(parse_source(f"{scheme}://[fe80::a:1]:9/x"), SourceOptions(open_timeout=2))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "https", "rtmp", "tcp"])
def test_who_takes_the_call_and_is_silent_is_not_called_a_video(scheme: str) -> None:
    """FFmpeg has "invalid data" and "input/output error" for some of them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        url += "" if scheme == "tcp" else "/stream"
        with pytest.raises(SourceError, match=r"no answer within 0\.3 s"):
            open_reader(parse_source(url), SourceOptions(open_timeout=0.3))


def test_one_frame_file(tmp_path: Path) -> None:
    found = read_all(open_path(write_clip(tmp_path / "one.mp4", 1)))
    assert [number_of(picture) for _time, picture in found] == [0]


def test_colon_in_a_file_name_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "plain.mp4", 2).rename(tmp_path / "tcp:evil.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read_all(open_path(Path("tcp:evil.mp4")))) == 2


def test_directory_of_pictures_in_natural_order_and_one_damaged(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        cv2.imwrite(str(tmp_path / f"shot{number}.png"), numbered(number))
    (tmp_path / "shot3.png").write_bytes((tmp_path / "shot2.png").read_bytes()[:200])
    (tmp_path / "readme.txt").write_text("not a picture")
    reader = open_path(tmp_path)
    found = read_all(reader)
    assert [number_of(picture) for _time, picture in found] == [1, 2, 10, 11]
    assert reader.decode_errors == 1


def test_pictures_with_superscripts_in_their_names_are_in_order(tmp_path: Path) -> None:
    """A superscript is a digit to ``str.isdigit``, and yet no number to ``int``."""
    names = ("1\u00b22.png", "1\u00b210.png", "3.png", "\u00b25.png")
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), numbered(number))
    found = read_all(open_path(tmp_path))
    assert [number_of(picture) for _time, picture in found] == [0, 1, 2, 3]


def test_streets_are_deterministic_and_move() -> None:
    options = SourceOptions(size=(64, 128))
    pictures = []
    for _ in range(2):
        reader = open_reader(parse_source("streets:5"), options)
        out = np.empty((64, 128, 3), np.uint8)
        for _step in range(3):
            assert reader.grab() is not None
            reader.retrieve(out)
        pictures.append(out)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert pictures[0].std() > 10


def test_missing_camera_is_one_line_and_opencv_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match=r"'cam217': there is no camera /dev/video217"):
        open_reader(parse_source("cam217"), SourceOptions())
    assert capfd.readouterr().err == ""


def test_device_that_is_no_camera_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="'/dev/null'"):
        open_reader(parse_source("/dev/null"), SourceOptions())
    assert capfd.readouterr().err == ""
