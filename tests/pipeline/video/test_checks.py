"""What cannot be asked for is refused before anything is opened, made or overwritten."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.tiles import plan_tiles
from pipeline.video.checks import check_request
from pipeline.video.names import display_names, file_names, printable
from pipeline.video.session import Request, Session
from pipeline.video.source import SourceSpec, parse_source
from tests.pipeline.video.clips import HEIGHT, WIDTH, write_clip
from tests.pipeline.video.fakes import ColourEngine


def refused(request: Request) -> str:
    """The message with which the session refuses the request."""
    with pytest.raises(UsageError) as caught:
        Session(ColourEngine(HEIGHT, WIDTH), request)
    return str(caught.value)


def pictures(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), number, np.uint8))
    return folder


@pytest.mark.parametrize("link", ["as it is", "symbolic", "hard", "dotted"])
def test_output_that_is_the_source_is_refused_and_the_source_kept(
    tmp_path: Path, link: str
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 3)
    before = clip.read_bytes()
    output = tmp_path / "other.mp4"
    if link == "symbolic":
        output.symlink_to(clip)
    elif link == "hard":
        output.hardlink_to(clip)
    else:
        output = clip if link == "as it is" else tmp_path / ".." / tmp_path.name / "clip.mp4"
    message = refused(Request([parse_source(str(clip))], output=output))
    assert message.startswith(f"--output '{output}' is the source '{clip}' itself")
    assert clip.read_bytes() == before


def test_output_named_after_a_source_may_not_be_another_one(tmp_path: Path) -> None:
    """With several sources the name of each is added, and that may hit one of them."""
    first, second = write_clip(tmp_path / "a.mp4", 2), tmp_path / "out-x.mp4"
    second.write_bytes(first.read_bytes())
    named = SourceSpec("file", str(first), "x")
    message = refused(Request([named, parse_source(str(second))], output=tmp_path / "out.mp4"))
    assert str(second) in message


def test_pictures_may_not_be_where_labels_or_snapshots_go(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    sources = [parse_source(str(folder))]
    assert "--labels" in refused(Request(sources, labels=folder))
    assert "--snapshots" in refused(Request(sources, snapshots=folder, window=True))
    with Session(ColourEngine(HEIGHT, WIDTH), Request(sources, labels=tmp_path / "l")) as session:
        assert session.run()["frames"] == 2


@pytest.mark.parametrize("labels", ["same.mp4", "x/../same.mp4", "same.mp4/in/it", "link/same.mp4"])
def test_labels_may_not_be_where_the_output_goes(tmp_path: Path, labels: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    sources = [parse_source("streets")]
    output, folder = tmp_path / "same.mp4", tmp_path / labels
    message = refused(Request(sources, output=output, labels=folder))
    assert message.startswith(f"--labels '{folder}' cannot be a directory where --output")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_labels_of_several_streams_may_not_be_where_an_output_goes(tmp_path: Path) -> None:
    named = [SourceSpec("streets", "0", name) for name in ("a.mp4", "b")]
    output = tmp_path / "x.mp4"
    labels = tmp_path / "x-a.mp4.mp4"  # what the first one's output is called
    assert f"where --output '{labels}'" in refused(Request(named, output=output, labels=labels))
    check_request(Request(named, output=output, labels=tmp_path))


def test_snapshots_need_a_directory_from_the_start(tmp_path: Path) -> None:
    sources = [parse_source("streets")]
    nowhere = tmp_path / "nowhere"
    message = refused(Request(sources, snapshots=nowhere, window=True))
    assert message == f"--snapshots '{nowhere}' is no directory; make it first"


def test_camera_named_twice_is_told_by_its_name() -> None:
    cameras = [SourceSpec("camera", "/dev/video7", name) for name in ("cam7", "/dev/video7")]
    assert "'cam7'" in refused(Request(cameras))


def test_output_needs_a_name() -> None:
    sources = [parse_source("streets"), parse_source("streets")]
    assert "--output ''" in refused(Request(sources, output=Path()))


def test_names_that_are_no_text_become_text() -> None:
    assert printable("caf\u00e9.mp4") == "caf\u00e9.mp4"
    assert printable("ok\udcff.mp4") == "ok\ufffd.mp4"


def test_names_for_people_differ() -> None:
    assert display_names(["a", "b", "a", "a", "a #2"]) == ["a", "b", "a #2", "a #3", "a #2 #2"]
    assert file_names(["a", "a"]) == ["a", "a-2"]


def test_a_frame_that_takes_gigabytes_is_refused() -> None:
    """It used to be asked of the memory: 5.21 GiB for 4K frames at --scale 15."""
    for scale, overlap in ((15.0, 0.0), (3.0, 0.9)):
        with pytest.raises(UsageError, match="lower --overlap or --scale"):
            plan_tiles((2160, 3840), (512, 1024), mode="cover", overlap=overlap, scale=scale)
    assert plan_tiles((2160, 3840), (512, 1024), mode="cover", overlap=0.5).count > 1
