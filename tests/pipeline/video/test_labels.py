"""The directory of label PNGs: when it is made, what it may hold already, what is left in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import SinkError
from pipeline.video.sinks.base import TemporaryFile
from pipeline.video.sinks.labels import LabelSink
from tests.pipeline.video.clips import write_clip
from tests.pipeline.video.test_command import run
from tests.pipeline.video.test_sinks import shown


def ended_process() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_directory_is_made_with_the_first_labels(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    sink = LabelSink(folder)
    assert not folder.parent.exists()
    assert sink.close() is None
    sink.write(shown(3))
    assert [path.name for path in folder.iterdir()] == ["frame_000003_labelIds.png"]
    assert sink.close() == str(folder)


def test_failed_run_leaves_no_directory(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    done = run(tmp_path / "notes.mp4", "--labels", tmp_path / "labels" / "x")
    assert done.returncode == 2, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.mp4"]


def test_what_is_no_directory_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SinkError, match=r"'.*file' is a file; name a directory"):
        LabelSink(file)
    with pytest.raises(SinkError, match=r"lies in '.*file', which is a file; name a directory"):
        LabelSink(file / "labels")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="no permission to write in"):
        LabelSink(tmp_path / "a" / "b")


def test_labels_of_a_longer_run_are_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    for frames, told in ((5, False), (3, True)):
        clip = write_clip(tmp_path / f"{frames}.mp4", frames)
        done = run(clip, "--labels", folder)
        assert done.returncode == 0, done.stderr
        words = " ".join(done.stderr.split())
        assert (f"'{folder}' already holds the labels of 5 frames" in words) == told, words


def test_leftovers_of_killed_runs_are_removed_and_those_of_others_kept(tmp_path: Path) -> None:
    dead = tmp_path / f".frame_000007_labelIds.{ended_process()}.partial.png"
    alive = tmp_path / f".frame_000007_labelIds.{os.getpid()}.partial.png"
    other = tmp_path / f".mine.{ended_process()}.partial.png"
    for path in (dead, alive, other):
        path.write_bytes(b"half")
    LabelSink(tmp_path)
    assert [path.exists() for path in (dead, alive, other)] == [False, True, True]


def test_name_with_no_room_for_the_temporary_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"the name is [0-9]+ bytes too long"):
        TemporaryFile(tmp_path / f"{'x' * 245}.mp4")
    assert TemporaryFile(tmp_path / f"{'x' * 220}.mp4").path.name.startswith(".xxx")
