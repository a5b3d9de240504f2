from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypedDict

import cv2
import numpy as np
import pytest

from calibration import streets
from calibration.cityscapes import Cityscapes
from calibration.errors import CalibrationDataError
from calibration.streets import StreetScene, write_dataset, write_video
from calibration.streetscape import dataset
from tests.helpers import full_disk

PROJECT = Path(__file__).resolve().parents[2]


class Shape(TypedDict):
    height: int
    width: int


SHAPE: Shape = {"height": 80, "width": 144}


@pytest.fixture(autouse=True)
def _two_streets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer streets per split than usual: setting one up is what takes time here."""
    monkeypatch.setattr(dataset, "_FEWEST_STREETS", 2)


def everything(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_tree_is_official_whole_and_repeatable(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = write_dataset(
        tmp_path / "a", train=5, val=3, seed=3, progress=lambda *c: seen.append(c), **SHAPE
    )
    assert seen == [(i + 1, 8) for i in range(8)]
    data = Cityscapes(root)
    train, val = data.frames("train"), data.frames("val")
    assert (len(train), len(val)) == (5, 3)
    cities = {f.city for f in train}, {f.city for f in val}
    assert [len(c) for c in cities] == [2, 2]
    assert not cities[0] & cities[1]
    for pair in (*train, *val):
        assert re.fullmatch(rf"{pair.city}_\d{{6}}_\d{{6}}", pair.name)
        picture, labels = data.read(pair)
        assert picture.shape == (80, 144, 3)
        assert labels.max() < 19
    # The files hold what the scene renders, by the seed and frame in their names.
    pair = val[-1]
    frame = StreetScene(int(pair.city.removeprefix("street")), 80, 144).render(int(pair.name[-6:]))
    assert np.array_equal(data.read_image(pair.image), frame.bgr)
    raw = cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED)
    assert raw is not None
    assert np.array_equal(raw, frame.labels)
    again = write_dataset(tmp_path / "b", train=5, val=3, seed=3, **SHAPE)
    assert everything(root) == everything(again)
    assert sorted(p.name for p in root.iterdir()) == ["gtFine", "leftImg8bit", "streets.json"]


def test_a_finished_data_set_is_left_alone_and_another_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path, train=1, val=0, **SHAPE)
    monkeypatch.setattr(dataset, "StreetScene", None)
    write_dataset(tmp_path, train=1, val=0, **SHAPE)
    with pytest.raises(CalibrationDataError, match="made with other options"):
        write_dataset(tmp_path, train=2, val=0, **SHAPE)
    with pytest.raises(CalibrationDataError, match="made with other options"):
        write_dataset(tmp_path, train=0, val=1, **SHAPE)


def test_pictures_of_another_version_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "VERSION", 0)
        write_dataset(tmp_path, train=1, val=0, **SHAPE)
    label = Cityscapes(tmp_path).frames("train")[0].label
    label.write_bytes(b"older")
    write_dataset(tmp_path, train=1, val=0, **SHAPE)
    assert Cityscapes.read_labels(label).shape == (80, 144)
    assert json.loads((tmp_path / "streets.json").read_text())["streets"] == dataset.VERSION


def test_a_data_set_with_a_part_missing_is_made_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=1, val=0, **SHAPE)
    before = everything(tmp_path)
    shutil.rmtree(tmp_path / "gtFine")
    write_dataset(tmp_path, train=1, val=0, **SHAPE)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("complete", [True, False])
def test_pictures_put_beside_the_streets_are_never_touched(tmp_path: Path, complete: bool) -> None:
    write_dataset(tmp_path, train=1, val=0, **SHAPE)
    if not complete:
        manifest = json.loads((tmp_path / "streets.json").read_text())
        (tmp_path / "streets.json").write_text(json.dumps(manifest | {"complete": False}))
    theirs = tmp_path / "leftImg8bit/train/mine/a_leftImg8bit.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    before = everything(tmp_path)
    with pytest.raises(CalibrationDataError, match="holds pictures besides the streets"):
        write_dataset(tmp_path, train=1, val=0, **SHAPE)
    assert everything(tmp_path) == before


def test_foreign_data_is_never_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "leftImg8bit/train/aachen/x_leftImg8bit.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    with pytest.raises(CalibrationDataError, match="already holds another data set"):
        write_dataset(tmp_path, train=1, val=0, **SHAPE)
    assert everything(tmp_path) == {theirs.relative_to(tmp_path).as_posix(): b"precious"}


def test_processes_that_write_at_once_make_one_whole_data_set(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    words = [sys.executable, "-m", "calibration.streets", str(root), "--train", "6", "--val", "3"]
    started = [
        subprocess.Popen(
            [*words, "--shape", "80x144"], cwd=PROJECT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    told = [each.communicate(timeout=120)[1] for each in started]
    assert [each.returncode for each in started] == [0, 0, 0], told
    assert sum("9/9 frames" in line for line in told) == 1  # the others found it there
    data = Cityscapes(root)
    assert (len(data.frames("train")), len(data.frames("val"))) == (6, 3)
    assert sorted(p.name for p in root.iterdir()) == ["gtFine", "leftImg8bit", "streets.json"]


def test_files_that_vanish_under_way_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = dataset._write_png

    def lose(path: Path, image: np.ndarray) -> None:
        write(path, image)
        if "gtFine" in str(path):
            path.unlink()

    monkeypatch.setattr(dataset, "_write_png", lose)
    with pytest.raises(CalibrationDataError, match="2 of 2 files vanished"):
        write_dataset(tmp_path / "new", train=2, val=0, **SHAPE)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    root = tmp_path / "streets"
    words = [sys.executable, "-m", "calibration.streets", str(root), "--train", "3000"]
    with subprocess.Popen(words, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as started:
        deadline = time.monotonic() + 60
        while not list(root.glob(".streets-*/*/*/*/*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        started.send_signal(number)
        told = started.communicate(timeout=60)[1]
    assert started.returncode == 130
    assert "nothing half-written" in told
    assert "Traceback" not in told
    assert everything(tmp_path) == {}


class Killed(BaseException):
    """As a signal would end it."""


@pytest.mark.parametrize("when", ["rendering", "renaming"])
def test_a_killed_run_is_recovered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def die(*_: object) -> NoReturn:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        if when == "rendering":
            patch.setattr(StreetScene, "render", die)
        else:
            whole = Path.rename

            def second_dies(self: Path, target: Path) -> Path:
                return die() if self.name == "leftImg8bit" else whole(self, target)

            patch.setattr(Path, "rename", second_dies)
        with pytest.raises(Killed):
            write_dataset(tmp_path, train=2, val=0, **SHAPE)
    assert not (tmp_path / "leftImg8bit").exists()
    write_dataset(tmp_path, train=2, val=0, **SHAPE)
    assert len(Cityscapes(tmp_path).frames("train")) == 2
    assert not list(tmp_path.glob(".streets-*"))


def test_no_space_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CalibrationDataError, match=r"cannot be written \(No space left"):
        write_dataset(tmp_path / "new", train=1, val=0, **SHAPE)
    assert everything(tmp_path) == {}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationDataError, match="file: cannot be written"):
        write_dataset(tmp_path / "file", train=1, val=0, **SHAPE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": -1}, "train: must be 0 to 6000 frames, not -1"),
        ({"val": 6001}, "val: must be 0 to 6000"),
        ({"train": 0, "val": 0}, "at least one frame"),
        ({"height": 63}, "shape 63x1024: each side must be at least 64"),
        ({"height": 8192, "width": 8192}, "at most 64 megapixels"),
        ({"seed": -1}, "seed: must be 0 to 1000000"),
    ],
)
def test_arguments_that_cannot_be(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(CalibrationDataError, match=message):
        write_dataset(tmp_path / "new", **arguments)  # type: ignore[arg-type]  # plain numbers
    assert not (tmp_path / "new").exists()


def test_more_frames_come_from_more_streets(tmp_path: Path) -> None:
    counts = dataset._streets_for
    assert [counts(n) for n in (0, 1, 2, 24, 25, 6000)] == [0, 1, 2, 2, 3, 500]


# --- video


def test_video_plays_with_every_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.mp4", frames=6, seed=1, **SHAPE)
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            break
        frames.append(frame)
    assert len(frames) == 6
    assert capture.get(cv2.CAP_PROP_FPS) == 25
    expected = StreetScene(1000, 80, 144).render(5).bgr
    difference = cv2.blur(frames[5], (5, 5)).astype(float) - cv2.blur(expected, (5, 5))
    assert np.abs(difference).mean() < 12
    assert [p.name for p in tmp_path.iterdir()] == ["drive.mp4"]


@pytest.mark.parametrize("name", ["drive.avi", "nowhere/drive.mp4"])
def test_video_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(CalibrationDataError, match=r"must be named|no such directory"):
        write_video(tmp_path / name, frames=1, **SHAPE)
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_lost_frames_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = StreetScene.render

    class Short(StreetScene):
        """Its later frames have another size, which OpenCV's writer drops without a word, as it
        does those that a full disk has no room for."""

        def render(self, index: int) -> streets.StreetFrame:
            frame = render(self, index)
            return replace(frame, bgr=frame.bgr[:40]) if index > 2 else frame

    monkeypatch.setattr(dataset, "StreetScene", Short)
    with pytest.raises(CalibrationDataError, match="only 3 of 5 frames were written"):
        write_video(tmp_path / "drive.mp4", frames=5, **SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", ["0", "-3", "601", "9" * 30])
def test_a_length_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        streets.main(["--video", str(tmp_path / "a.mp4"), f"--seconds={seconds}"])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --seconds")
    assert told.count("\n") == 1


# --- command line


def test_command_writes_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "out"
    assert streets.main([str(root), "--train", "2", "--val", "1", "--shape", "64x96"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{root}\n"
    assert captured.err.endswith("3/3 frames\n")
    manifest = json.loads((root / "streets.json").read_text())
    assert manifest == {
        "complete": True, "seed": 0, "shape": [64, 96], "streets": dataset.VERSION, "train": 2,
        "val": 1,
    }  # fmt: skip


def test_command_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert streets.main([str(tmp_path), "--train", "0", "--val", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: train and val:")


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--shape", "12"], ["x", "--shape", "0x0"], ["x", "--train", "many"]]
)
def test_command_refuses_bad_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        streets.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_command_writes_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streets, "FRAMES_PER_SECOND", 2)
    path = tmp_path / "a.mp4"
    assert streets.main(["--video", str(path), "--seconds", "1", "--shape", "64x96"]) == 0
    assert path.stat().st_size > 500
