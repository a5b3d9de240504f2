"""What a file's header states against what came: truncated, with holes, or as recorded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.pipeline.video.clips import numbered, write_clip
from tests.pipeline.video.test_readers import open_path, read_all


def judged(path: Path) -> tuple[int, int, bool]:
    """Pictures, decode errors, and whether it is truncated."""
    reader = open_path(path)
    found = read_all(reader)
    return len(found), reader.decode_errors, reader.truncated


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_may_go_on_after_the_pictures(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"clip.{ending}"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        sound: Any = container.add_stream("aac", rate=44100)
        sound.layout = "mono"
        for number in range(30):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="bgr24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for number in range(172):
            silence = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            frame.time_base = Fraction(1, 44100)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert judged(path) == (30, 0, False)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_first_picture_may_come_late(tmp_path: Path, ending: str) -> None:
    times = [3 + number / 25 for number in range(30)]
    assert judged(write_clip(tmp_path / f"late.{ending}", 30, times=times)) == (30, 0, False)


def test_last_picture_may_stay_for_long(tmp_path: Path) -> None:
    animation = cv2.Animation()
    animation.frames = [numbered(number) for number in range(4)]
    animation.durations = [40, 40, 40, 5000]
    path = tmp_path / "clip.gif"
    assert cv2.imwriteanimation(str(path), animation)
    assert judged(path) == (4, 0, False)


@pytest.mark.parametrize("gap", [3.0, 58 * 86400.0], ids=["pause", "clock set"])
@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_gap_is_no_damage(tmp_path: Path, ending: str, gap: float) -> None:
    if ending == "ts" and gap > 86400:
        pytest.skip("its clock wraps around each day")
    if ending == "mp4" and gap > 86400:
        pytest.skip("no frame of it lasts for so long")
    times = [number / 25 + (gap if number >= 30 else 0.0) for number in range(60)]
    assert judged(write_clip(tmp_path / f"gap.{ending}", 60, times=times)) == (60, 0, False)


def test_cluster_that_one_bad_byte_hides_is_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", 500, gop=25)
    data = bytearray(path.read_bytes())
    head = bytes.fromhex("1f43b675")
    second = data.index(head, data.index(head) + 4)
    data[second + 1] ^= 0xFF
    path.write_bytes(data)
    pictures, errors, truncated = judged(path)
    assert pictures < 480
    assert (pictures + errors, truncated) == (500, False)
