"""``run_video.py`` and input that nobody meant: odd names, sizes that cannot be, secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import cv2
import numpy as np
import pytest
from rich.console import Console

from pipeline import console
from pipeline.video.sinks.base import TOKEN_VARIABLE
from scripts import run_video
from tests.pipeline.video.clips import read_clip, write_clip
from tests.pipeline.video.fakes import wait_until
from tests.pipeline.video.test_command import FAKE, ROOT, call, environment, run, start
from tests.pipeline.video.test_http import ANYWHERE


def refusal(*arguments: object, **environment: str) -> str:
    """The one line with which the command refuses, its exit code being 2."""
    done = run(*arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def picture(folder: Path, height: int, width: int) -> Path:
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((height, width, 3), 90, np.uint8))
    return folder


def test_file_name_that_is_no_text_is_drawn_and_reported(tmp_path: Path) -> None:
    """OpenCV crashed on the lone surrogate by which Python carries such a byte."""
    clip = tmp_path / os.fsdecode(b"ok\xff.mp4")
    write_clip(tmp_path / "ok.mp4", 5).rename(clip)
    out = tmp_path / "out.mp4"
    done = run(clip, "--output", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == f"{tmp_path}/ok\ufffd.mp4"
    assert len(read_clip(out)) == 5


def test_one_file_twice_is_two_streams_with_a_name_each(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 4)
    done = run(clip, clip, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == [str(clip), f"{clip} #2"]


def test_clock_that_leaps_by_years_is_told_and_the_frames_are_there(tmp_path: Path) -> None:
    years = 56 * 365 * 24 * 3600.0
    clip = write_clip(tmp_path / "clip.mkv", 4, times=[0.0, 0.04, years, years + 0.04])
    out = tmp_path / "out.mkv"
    done = run(clip, "--output", out)
    assert done.returncode == 0, done.stderr
    assert "clock leaps ahead by 20440 days" in " ".join(done.stderr.split())
    assert len(read_clip(out)) == 4


@pytest.mark.parametrize("height", [1, 70_000])
def test_frames_too_long_to_be_tiled_name_their_source(tmp_path: Path, height: int) -> None:
    folder = picture(tmp_path / "long", height, 70_001 - height)
    line = refusal(folder, "--labels", tmp_path / "labels")
    assert f"'{folder}' has frames of {height}x{70_001 - height}" in line
    assert "65536" in line


def test_frames_too_large_for_the_codec_are_told_by_their_size(tmp_path: Path) -> None:
    folder = picture(tmp_path / "wide", 16, 20_000)
    line = refusal(folder, "--output", tmp_path / "out.mp4")
    assert "frames of 16x20000 (height x width) are too large for H.264" in line
    assert [path.name for path in tmp_path.iterdir()] == ["wide"]


@pytest.mark.parametrize("size", ["1x1", "15x64", "1x99999", "16x16385", "60000x60000"])
def test_streets_of_an_impossible_size_are_refused(size: str) -> None:
    assert f"--size {size}: streets have sides of 16 to 16384" in refusal("streets", "--size", size)


def test_streets_of_the_least_size_run() -> None:
    done = run("streets", "--size", "16x16", "--max-frames", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 2


_HANGS = """
import ctypes, runpy, sys
sys.path.insert(0, {root!r})
from calibration import streets
class Slow:
    def __init__(self, *_arguments): pass
    def render(self, _number):
        # A call of C that gives up the interpreter and comes back while it takes its leave.
        ctypes.CDLL(None).usleep(1_700_000)
streets.StreetScene = Slow
import atexit
atexit.register(print, "the interpreter's own farewell", file=sys.stderr)
sys.argv = ["run_video.py", "streets", "--read-timeout", "0.1"]
runpy.run_path({fake!r}, run_name="__main__")
"""


def test_a_call_left_behind_does_not_abort_the_process() -> None:
    code = _HANGS.format(root=str(ROOT), fake=str(FAKE))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env=environment(),
    )  # fmt: skip
    assert "error: 'streets': nothing came for 0.1 s" in done.stderr
    assert done.returncode == 2, done.stderr
    assert "terminate" not in done.stderr
    assert "farewell" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_summary_that_cannot_be_printed_names_stdout(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, str(FAKE), str(clip), "--json"], stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
    assert done.returncode == 2
    assert "error: stdout: No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_second_signal_names_what_was_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    # The engine holds the first signal up, so that there is time for a second one.
    process = start(
        write_clip(tmp_path / "clip.mp4", 20), "--loop", "--output", out, FAKE_ENGINE_DELAY="1.5"
    )
    partial = tmp_path / f".out.{process.pid}.partial.mp4"
    assert wait_until(partial.exists, 20)
    process.send_signal(signal.SIGTERM)
    sleep(0.3)
    process.send_signal(signal.SIGTERM)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 130, stderr
    words = " ".join(stderr.split())
    assert f"'{out}' holds what was shown until then" in words
    assert "interrupted" in words
    assert len(read_clip(out)) >= 1


def test_key_that_is_held_down_cuts_nothing_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """It repeats thirty times a second; each would be raised into what finishes the files."""
    now, stopped = [0.0], []
    monkeypatch.setattr(run_video, "perf_counter", lambda: now[0])

    def cuts_short(times: int) -> bool:
        try:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:  # which would end pytest
            return True
        return False

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in handled}
    try:
        with run_video.stop_on_signals(lambda: stopped.append(True)) as came:
            assert not cuts_short(9)
            assert len(came) == len(stopped) == 2
        assert not cuts_short(9), "while the engine is closed"
        for _repeat in range(300):
            now[0] += 0.033
            assert not cuts_short(1), "held for ten seconds"
        now[0] += 2.5
        assert cuts_short(1), "who is still there means it"
        assert not cuts_short(9)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_address_with_letters_in_brackets_is_printed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rich takes ``[fd00::5]`` for markup and swallows it."""
    address = "http://[fd00::5]:8080/"
    monkeypatch.setattr("pipeline.video.sinks.http.VideoServer.url", address)
    clip = write_clip(tmp_path / "clip.mp4", 2)
    assert call([str(clip), "--http", "127.0.0.1:0"], monkeypatch) == 0
    assert f"showing at {address}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("token", "words"), [(b"\xff" * 20, "is not UTF-8"), (b"short", "at least 16 characters")]
)
def test_token_that_cannot_be_is_one_line(tmp_path: Path, token: bytes, words: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    line = refusal(clip, "--http", f"{ANYWHERE}:0", **{TOKEN_VARIABLE: os.fsdecode(token)})
    assert f"{TOKEN_VARIABLE} " in line
    assert words in line


def test_no_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "stderr", Console(stderr=True, highlight=False))
    monkeypatch.setattr("signal.signal", lambda *_arguments: None)

    def main() -> int:
        np.empty((1 << 60,), np.uint8)
        return 0

    with pytest.raises(SystemExit) as done:
        console.run_command(main)
    assert done.value.code == 2
    assert "error: there is not enough memory: Unable to allocate" in capfd.readouterr().err
