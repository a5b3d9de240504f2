"""Bad frames: each named, all counted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.cityscapes import Cityscapes
from calibration.errors import CalibrationDataError
from calibration.frames import select_frames
from pipeline.errors import DatasetError
from pipeline.report.frames import check_frames, choose


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five frames of 16x24 in two cities."""
    rng = np.random.default_rng(0)
    for index in range(5):
        city = "ulm" if index % 2 else "bonn"
        name = f"{city}_{index:06d}_000019"
        for kind, ending, picture in (
            ("leftImg8bit", "leftImg8bit", rng.integers(0, 255, (16, 24, 3), np.uint8)),
            ("gtFine", "gtFine_labelIds", rng.integers(7, 12, (16, 24), np.uint8)),
        ):
            path = tmp_path / kind / "val" / city / f"{name}_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    return tmp_path


def _label(tree: Path, index: int) -> Path:
    return next(tree.glob(f"gtFine/val/*/*_{index:06d}_*.png"))


def test_good_frames_are_read_in_order(tree: Path) -> None:
    seen: list[tuple[int, int]] = []
    frames = check_frames(tree, "val", on_frames=lambda *count: seen.append(count))
    assert frames.names == tuple(
        f"{city}_{index:06d}_000019"
        for city, index in (("bonn", 0), ("bonn", 2), ("bonn", 4), ("ulm", 1), ("ulm", 3))
    )
    assert frames.problems == ()
    assert seen == [(n, 5) for n in range(1, 6)]
    bgr, truth = frames.read(0)
    assert bgr.shape == (16, 24, 3)
    # Label ids 7..11 are road, sidewalk, two ignored ones, building.
    assert set(np.unique(truth).tolist()) <= {0, 1, 2, 255}


def test_the_digest_is_of_the_contents(tree: Path) -> None:
    first = check_frames(tree, "val").digest
    assert check_frames(tree, "val").digest == first
    assert check_frames(tree, "val", limit=3).digest != first
    label = cv2.imread(str(_label(tree, 2)), cv2.IMREAD_UNCHANGED)
    assert label is not None
    label[0, 0] ^= 1
    cv2.imwrite(str(_label(tree, 2)), label)
    assert check_frames(tree, "val").digest != first


def test_pictures_are_told_by_the_hash_that_calibration_records(tree: Path) -> None:
    (tree / "leftImg8bit" / "train").symlink_to(tree / "leftImg8bit" / "val")
    calibrating = select_frames(Cityscapes(tree), 2)
    frames = check_frames(tree, "val")
    found = frames.among({frame.sha256 for frame in calibrating.frames})
    assert found == tuple(frame.pair.name for frame in calibrating.frames)
    assert frames.among(set()) == ()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "label missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "truncated|damaged|incomplete|cut"),
        (lambda p: p.write_bytes(b""), "PNG"),
        (lambda p: cv2.imwrite(str(p), np.full((8, 24), 7, np.uint8)), "24x8, but its picture"),
        (lambda p: cv2.imwrite(str(p), np.full((16, 24), 77, np.uint8)), "unknown label ids 77"),
        (lambda p: cv2.imwrite(str(p), np.full((16, 24), 255, np.uint8)), "look like train ids"),
        (lambda p: cv2.imwrite(str(p), np.full((16, 24, 3), 7, np.uint8)), "one channel"),
    ],
    ids=["missing", "truncated", "empty", "size", "unknown", "train-ids", "colour"],
)
def test_a_bad_label_is_named_and_counted(tree: Path, damage: object, said: str) -> None:
    assert callable(damage)
    damage(_label(tree, 2))
    with pytest.raises(DatasetError, match=r"1 of 5 frames of split 'val'") as refused:
        check_frames(tree, "val")
    assert "bonn_000002_000019" in str(refused.value)
    with pytest.raises(DatasetError, match=said):
        check_frames(tree, "val")
    assert "--skip-bad" in (refused.value.hint or "")


def test_a_truncated_picture_is_named(tree: Path) -> None:
    picture = next(tree.glob("leftImg8bit/val/ulm/*_000003_*.png"))
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(DatasetError, match="ulm_000003"):
        check_frames(tree, "val")


def test_bad_frames_can_be_left_out_and_are_told(tree: Path) -> None:
    _label(tree, 2).unlink()
    _label(tree, 3).write_bytes(b"nonsense")
    frames = check_frames(tree, "val", skip_bad=True)
    assert len(frames.names) == 3
    assert len(frames.problems) == 2
    assert "bonn_000002" in frames.problems[0]
    assert "ulm_000003" in frames.problems[1]


def test_many_problems_are_counted_and_three_are_shown(tree: Path) -> None:
    for index in range(5):
        _label(tree, index).unlink()
    with pytest.raises(DatasetError, match="5 of 5 frames") as refused:
        check_frames(tree, "val", skip_bad=True)
    assert str(refused.value).count("label missing") == 3
    assert str(refused.value).endswith("; ...")


def test_no_split_and_no_tree(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationDataError, match="no such split"):
        check_frames(tree, "train")
    (tree / "leftImg8bit" / "test").mkdir()
    with pytest.raises(CalibrationDataError, match="holds no"):
        check_frames(tree, "test")
    with pytest.raises(CalibrationDataError, match="no such data set"):
        check_frames(tmp_path / "nowhere", "val")


@given(st.integers(1, 600), st.integers(1, 700))
def test_chosen_frames_are_spread_and_distinct(count: int, limit: int) -> None:
    chosen = choose(count, limit)
    assert len(chosen) == min(count, limit) == len(set(chosen))
    assert chosen[0] == 0
    gaps = np.diff([*chosen, count])
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_frame_that_changed_since_it_was_checked_is_refused(tree: Path, kind: str) -> None:
    frames = check_frames(tree, "val")
    path = getattr(frames.pairs[0], kind)
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    cv2.imwrite(str(path), picture[::-1])
    with pytest.raises(CalibrationDataError, match="changed; run it again"):
        frames.read(0)
    frames.read(1)
