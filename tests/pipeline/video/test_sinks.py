"""Output files: whole or not there, whatever happens to the disk or the process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import av
import numpy as np
import pytest

from pipeline.errors import SinkError, UsageError
from pipeline.video.frames import Frame, Segmentation
from pipeline.video.metrics import StreamStats
from pipeline.video.sinks.base import Shown, TemporaryFile
from pipeline.video.sinks.labels import LabelSink
from pipeline.video.sinks.videofile import VideoFileSink
from tests.pipeline.video.clips import HEIGHT, WIDTH, number_of, numbered, read_clip


def shown(number: int, timestamp: float | None = None) -> Shown:
    picture = numbered(number)
    labels = (picture[..., 0] % 19).astype(np.uint8)
    time = number / 25 if timestamp is None else timestamp
    return Shown(
        Frame(number, 0.0, time, picture),
        Segmentation(number, labels, {}),
        picture,
        StreamStats("x"),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_file_appears_only_when_it_is_whole(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    sink = VideoFileSink(out)
    for number in range(20):
        sink.write(shown(number))
    assert not out.exists()
    assert sink.close() == str(out)
    assert sink.close() is None, "closing twice is no error"
    assert names(tmp_path) == [out.name]
    assert [number_of(picture) for _time, picture in read_clip(out)] == list(range(20))


@pytest.mark.parametrize("name", ["2026-11-27T10:00:00.mp4", "tcp:x.mov", "-a:b.mkv"])
def test_colon_in_the_name_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sink = VideoFileSink(Path(name))
    sink.write(shown(0))
    assert sink.close() == name
    assert names(tmp_path) == [name]
    assert len(read_clip(tmp_path / name)) == 1


def test_existing_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")
    sink = VideoFileSink(out)
    sink.write(shown(0))
    sink.discard()
    assert out.read_bytes() == b"the old one"
    assert names(tmp_path) == ["out.mp4"]


def test_no_frame_makes_no_file(tmp_path: Path) -> None:
    assert VideoFileSink(tmp_path / "out.mp4").close() is None
    assert names(tmp_path) == []


def test_clock_that_stands_still_or_steps_back_still_plays(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    sink = VideoFileSink(out)
    for number, time in enumerate([0.0, 0.04, 0.04, 0.02, 0.08]):
        sink.write(shown(number, time))
    sink.close()
    times = [time for time, _picture in read_clip(out)]
    assert len(times) == 5
    assert (np.diff(times) > 0).all()


HOUR = 3600.0
DAY = 24 * HOUR


def written(out: Path, times: list[float]) -> tuple[list[tuple[float, int]], list[str]]:
    """(time, number) of what a file of frames at these times holds, and what was told."""
    told: list[str] = []
    sink = VideoFileSink(out, told.append)
    for number, time in enumerate(times):
        sink.write(shown(number, time))
    sink.close()
    return [(time, number_of(picture)) for time, picture in read_clip(out)], told


@pytest.mark.parametrize("gap", [6 * HOUR, 7 * HOUR, 14 * HOUR, 25 * DAY])
@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_gap_of_any_length_stays_what_it_was(tmp_path: Path, ending: str, gap: float) -> None:
    """2^31 ticks are 6.6 hours: what came after them used to play within microseconds."""
    times = [0.0, 0.04, 0.08, *(gap + step / 25 for step in range(4)), 2 * gap, 2 * gap + 0.04]
    found, told = written(tmp_path / f"out{ending}", times)
    first = [pair for before, pair in zip([(0.0, -1), *found], found, strict=False)
             if pair[1] != before[1]]  # fmt: skip
    assert [number for _time, number in first] == list(range(len(times)))
    np.testing.assert_allclose([time for time, _number in first], times, rtol=0, atol=6e-4)
    assert told == []
    if ending == ".mkv":
        assert len(found) == len(times)
    else:
        assert np.diff([time for time, _number in found]).max() <= 6 * HOUR + 1e-3


def test_usual_frame_rates_are_exact_in_mp4(tmp_path: Path) -> None:
    found, _told = written(tmp_path / "out.mp4", [number / 30 for number in range(31)])
    np.testing.assert_allclose(np.diff([time for time, _ in found]), 1 / 30, rtol=0, atol=1e-9)


@pytest.mark.parametrize("leap", [56 * 365 * DAY, 2.0**58])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_clock_that_leaps_is_cut_short_and_told_once(
    tmp_path: Path, ending: str, leap: float
) -> None:
    """Times that no format can hold were a traceback."""
    found, told = written(tmp_path / f"out{ending}", [0.0, 0.04, leap, 2 * leap, 3 * leap])
    seen = dict(reversed([(number, time) for time, number in found]))
    times = [0.0, 0.04, *(0.04 + days * DAY for days in (30, 60, 90))]
    np.testing.assert_allclose([seen[number] for number in range(5)], times, rtol=0, atol=2e-3)
    (line,) = told
    assert line.startswith(f"'{tmp_path / f'out{ending}'}': the source's clock leaps ahead by ")
    assert "the file has 30 days there" in line


def test_clock_that_is_set_back_goes_on_at_its_pace(tmp_path: Path) -> None:
    """Until the clock was where it had been, frames used to be a tick apart."""
    times = [10.0, 10.04, 10.08, *(step / 25 for step in range(5)), 3.0]
    found, _told = written(tmp_path / "out.mp4", times)
    expected = [*[0.04] * 7, 2.84]
    np.testing.assert_allclose(np.diff([time for time, _ in found]), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [8, 20])
def test_clock_that_begins_anew_after_less_than_a_second_is_not_squashed(
    tmp_path: Path, length: int
) -> None:
    times = [number % length / 25 for number in range(3 * length)]
    found, _told = written(tmp_path / "out.mp4", times)
    np.testing.assert_allclose(np.diff([time for time, _ in found]), 0.04, rtol=0, atol=1e-4)


def test_buffer_is_not_overwritten_while_the_encoder_needs_it(tmp_path: Path) -> None:
    """The sink hands one and the same buffer to the encoder again and again."""
    out = tmp_path / "out.mp4"
    sink = VideoFileSink(out)
    generator = np.random.default_rng(0)
    numbers = generator.integers(0, 1023, 60).tolist()
    for place, number in enumerate(numbers):
        sink.write(shown(number, place / 25))
    sink.close()
    assert [number_of(picture) for _time, picture in read_clip(out)] == numbers


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [
        ("out.txt", UsageError, "ends in .mp4"),
        ("none/out.mp4", SinkError, "no directory"),
        ("folder.mp4", SinkError, "is a directory"),
    ],
)
def test_place_that_cannot_be(
    tmp_path: Path, output: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(error, match=words):
        VideoFileSink(tmp_path / output)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_place_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="no permission"):
        VideoFileSink(tmp_path / "out.mp4")


def test_leftovers_of_killed_runs_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".out.{dead.pid}.partial.mp4").touch()
    (tmp_path / f".out.{os.getppid()}.partial.mp4").touch()
    (tmp_path / f".other.{dead.pid}.partial.mp4").touch()
    (tmp_path / f".out.{'9' * 30}.partial.mp4").touch()  # somebody's own; was an OverflowError
    TemporaryFile(tmp_path / "out.mp4")
    assert set(names(tmp_path)) == {
        f".other.{dead.pid}.partial.mp4", f".out.{os.getppid()}.partial.mp4",
        f".out.{'9' * 30}.partial.mp4",
    }  # fmt: skip


_WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pipeline.errors import SinkError
from pipeline.video.sinks.{module} import {sink}
from tests.pipeline.video.test_sinks import shown
sink = {sink}(Path(sys.argv[2]))
number = 0
try:
    while number < {frames}:
        sink.write(shown(number))
        number += 1
        if number == 30:
            print("going", flush=True)
    sink.close()
except SinkError as error:
    sink.discard()
    print(error)
    sys.exit(2)
"""

ROOT = Path(__file__).resolve().parents[3]


def _writer(target: Path, module: str, sink: str, frames: int) -> list[str]:
    code = _WRITE.format(module=module, sink=sink, frames=frames)
    return [sys.executable, "-c", code, str(ROOT), str(target)]


@pytest.mark.parametrize(
    ("module", "sink", "target"),
    [("videofile", "VideoFileSink", "out.mp4"), ("labels", "LabelSink", "labels")],
)
def test_full_disk_is_one_line_and_nothing_is_left(
    tmp_path: Path, module: str, sink: str, target: str
) -> None:
    """A limit on the size of files stands in for the disk: writing fails in the same way."""
    limit = 20_000 if sink == "VideoFileSink" else 100

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        _writer(tmp_path / target, module, sink, 500),
        capture_output=True, text=True, preexec_fn=full, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    line = done.stdout.splitlines()[-1]
    assert str(tmp_path / target) in line
    assert "File too large" in line
    left = names(tmp_path / target) if sink == "LabelSink" else names(tmp_path)
    assert left == []


def test_what_a_killed_run_leaves_plays_and_the_next_run_clears_it(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    writer = subprocess.Popen(
        _writer(out, "videofile", "VideoFileSink", 10**9), stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "going\n"
    sleep(0.3)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")
    assert len(read_clip(left)) >= 25, "fragments: all but the last second is there"
    sink = VideoFileSink(out)
    sink.write(shown(0))
    sink.close()
    assert names(tmp_path) == ["out.mp4"]


def test_label_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="file"):
        LabelSink(tmp_path / "file")


def test_size_written_is_the_size_shown(tmp_path: Path) -> None:
    sink = LabelSink(tmp_path / "labels")
    sink.write(shown(3))
    assert sink.close() == str(tmp_path / "labels")
    assert names(tmp_path / "labels") == ["frame_000003_labelIds.png"]
    assert shown(3).segmentation.labels.shape == (HEIGHT, WIDTH)


def test_an_ffmpeg_without_h264_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", frozenset({"mpeg4"}))
    sink = VideoFileSink(tmp_path / "out.mp4")
    with pytest.raises(SinkError, match=r"cannot write H\.264"):
        sink.write(shown(0))
    sink.discard()
    assert names(tmp_path) == []
