"""``run_video.py`` from outside: what it prints, how it exits, and how it ends when told to."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from rich.console import Console

from pipeline import console
from pipeline.video.output import Controls
from scripts import run_video
from tests.pipeline.video.clips import HEIGHT, WIDTH, damage, number_of, read_clip, write_clip
from tests.pipeline.video.fakes import ColourEngine, wait_until

ROOT = Path(__file__).resolve().parents[3]
FAKE = Path(__file__).with_name("run_with_fake_engine.py")


def environment(**more: str) -> dict[str, str]:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY")
    return {key: value for key, value in os.environ.items() if key not in hidden} | more


def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(FAKE), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, env=environment(**more),
    )  # fmt: skip


def start(*arguments: object, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(FAKE), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more),
    )  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 50)


def test_summary_output_and_labels(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = run(clip, "--output", out, "--labels", tmp_path / "labels", "--json", "--headless")
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary["frames"] == 50
    assert summary["source"] == str(clip)
    assert summary["engine"] == "fake.xml"
    assert summary["output"] == [str(out), str(tmp_path / "labels")]
    assert summary["stopped"] == "end"
    assert (summary["dropped"], summary["decode_errors"], summary["reconnects"]) == (0, 0, 0)
    latency = summary["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert summary["fps"] > 1
    assert len(read_clip(out)) == len(list((tmp_path / "labels").iterdir())) == 50
    assert "50 frames" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_happens_after_the_last_poll_is_told_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    controls = Controls()
    session = cast("Any", SimpleNamespace(controls=controls, streams=[]))
    with run_video.status_line(session, []) as poll:
        controls.notices.append("'a' lost")
        poll()
        controls.notices.append("'a' is back")
    told = capsys.readouterr().err
    assert told.index("'a' lost") < told.index("'a' is back")
    assert told.count("lost") == 1


def test_damaged_file_is_counted_and_the_rest_is_shown(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 100, gop=10)
    damage(whole, tmp_path / "damaged.mp4", start=0.4, end=0.6)
    done = run(tmp_path / "damaged.mp4", "--output", tmp_path / "out.mp4", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["decode_errors"] > 0
    assert summary["frames"] + summary["decode_errors"] == 100
    assert "decode errors" in done.stderr
    last = read_clip(tmp_path / "out.mp4")[-1]
    assert last[0] == pytest.approx(99 / 25, abs=1e-3), "the end is the end"


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The command within this process, which is quicker; its exit code."""
    spec = importlib.util.spec_from_file_location("run_video", ROOT / "scripts" / "run_video.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "open_engine", lambda *_a, **_k: ColourEngine(HEIGHT, WIDTH))
    monkeypatch.setattr(module, "find_engine", lambda _folder: Path("fake.xml"))
    monkeypatch.setattr(sys, "argv", ["run_video.py", *arguments])
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(console, "stderr", Console(stderr=True, highlight=False))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        console.run_command(module.main)
    except SystemExit as done:
        return done.code
    finally:
        signal.signal(signal.SIGTERM, handler)


def _text(folder: Path) -> str:
    (folder / "notes.mp4").write_text("no video")
    return str(folder / "notes.mp4")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.mp4"], "'nothing.mp4': No such file"),
        (["cam217"], "there is no camera /dev/video217"),
        (["rtsp://u:secret@127.0.0.1:9/x"], "'rtsp://127.0.0.1:9/x': Connection refused"),
        (["TEXT"], "not a video"),
        (["CLIP", "--output", "no/where/out.mp4"], "there is no directory"),
        (["CLIP", "--output", "out.gif"], "a video file ends in"),
        (["CLIP", "--classes", "boat"], "'boat' is no class"),
        (["CLIP", "--opacity", "3", "--output", "out.mp4"], "--opacity 3"),
        (["CLIP", "--opacity", "1"], "--opacity is for the overlay, which nobody sees"),
        (["CLIP", "--classes", "car", "--labels", "out"], "--classes is for the overlay"),
        (["CLIP", "--no-legend"], "--no-legend is for the overlay"),
        (["CLIP", "--classes", ""], "--classes: names no class"),
        (["CLIP", "--roi", ""], "--roi '' is not"),
        (["CLIP", "--roi", "1,2"], "--roi '1,2' is not"),
        (["CLIP", "--roi", "500,500,5,5"], "holds no pixel"),
        (["CLIP", "--overlap", "1.5", "--tiles", "cover"], "--overlap"),
        (["CLIP", "--overlap", "0.5"], "--overlap needs --tiles cover"),
        (["CLIP", "--size", "96x160"], "--size is for a camera or the streets"),
        (["CLIP", "--rate", "5"], "--rate is for a camera"),
        (["streets", "--rate", "5"], "--rate is for a camera"),
        (["CLIP", "--give-up", "5"], "--give-up is for a camera or a network stream"),
        (["streets", "--loop"], "--loop is for a file or a directory of pictures"),
        (["CLIP", "--snapshots", "."], "--snapshots is for the key s of the window"),
        (["CLIP", "--threads", "99999"], "--threads: 99999 is more than"),
        (["CLIP", "--streams", "99999"], "--streams: 99999 is more than"),
        (["CLIP", "--scale", "2"], "--scale needs --tiles cover"),
        (["CLIP", "--max-latency", "50"], "--max-latency is for live sources"),
        (["CLIP", "--max-frames", "0"], "positive"),
        (["CLIP", "--http", "x:y"], "--http 'x:y' is not"),
        (["CLIP", "--patch-edges", "--output", "out.mp4"], "manifest 'fake."),
        (["ftp://h/x"], "a stream's scheme is one of"),
        ([], "SOURCE"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    clip: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"CLIP": str(clip), "TEXT": _text(tmp_path)}
    code = call([given.get(argument, argument) for argument in arguments], monkeypatch)
    stdout, stderr = capfd.readouterr()
    assert code == 2, stderr
    lines = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, stderr
    assert words in lines[0]
    assert "Traceback" not in stderr
    assert "secret" not in stderr
    assert stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_finishes_the_video_so_that_it_plays(
    clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out.mp4"
    process = start(clip, "--loop", "--output", out, "--json", FAKE_ENGINE_DELAY="0.01")
    partial = tmp_path / f".out.{process.pid}.partial.mp4"
    assert wait_until(lambda: partial.exists() and partial.stat().st_size > 20_000, 20)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    summary = json.loads(stdout)
    assert summary["stopped"] == "interrupted"
    assert len(read_clip(out)) == summary["frames"] > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


def test_failure_in_the_middle_keeps_what_was_shown(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = run(clip, "--output", out, "--json", FAKE_ENGINE_FAIL_AT="25")
    assert done.returncode == 2
    assert "error: the device is gone" in done.stderr
    assert f"'{out}' holds what was shown until then" in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert 1 <= len(read_clip(out)) <= 25


def test_several_sources_each_write_their_own_file(clip: Path, tmp_path: Path) -> None:
    other = write_clip(tmp_path / "other.mkv", 12, height=64, width=128)
    done = run(clip, other, "--output", tmp_path / "out.mp4", "--json", "--max-frames", "10")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [stream["frames"] for stream in summary["streams"]] == [10, 10]
    assert summary["frames"] == 20
    sizes = [read_clip(Path(path))[0][1].shape[:2] for path in summary["output"]]
    assert sizes == [(96, 160), (64, 128)]


def test_served_while_it_runs(clip: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(clip, "--loop", "--http", port, FAKE_ENGINE_DELAY="0.02")
    address = f"http://127.0.0.1:{port}/streams/0.jpg"

    def picture() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=3) as got:  # our own
                data = np.frombuffer(got.read(), np.uint8)
        except OSError:
            sleep(0.1)
            return False
        found = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return found is not None and found.shape == (96, 160, 3)

    try:
        assert wait_until(picture, 20)
    finally:
        process.send_signal(signal.SIGTERM)
        stderr = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert f"http://127.0.0.1:{port}/" in stderr


def test_streets_run_headless_without_anything_to_read(tmp_path: Path) -> None:
    done = run("streets:4", "--size", "96x160", "--max-frames", "3", "--labels", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_numbers_in_the_written_frames_are_the_sources(clip: Path, tmp_path: Path) -> None:
    """Nothing drawn but what was asked for: with opacity 0 and no panels the frame is the frame."""
    out = tmp_path / "out.mp4"
    done = run(clip, "--output", out, "--opacity", "0", "--no-legend", "--skip", "4")
    assert done.returncode == 0, done.stderr
    found = [number_of(picture) for _time, picture in read_clip(out)]
    assert found == list(range(0, 50, 5))


def test_help_names_every_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--output", "--labels", "--http", "--max-latency", "--roi", "--tiles", "--json"):
        assert option in done.stdout
    words = " ".join(done.stdout.split())
    assert "seconds a source may take to open (10.0)" in words
    assert "exit codes: 0 done; 2 bad input" in words
    assert "run_video.py drive.mp4 --output overlay.mp4 --headless" in words
