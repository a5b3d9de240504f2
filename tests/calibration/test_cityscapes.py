"""The data set: its table of classes, its tree of files, and where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.cityscapes import (
    CLASS_NAMES,
    IGNORE,
    LABELS,
    PALETTE_RGB,
    TRAIN_IDS_TO_LABEL_IDS,
    Cityscapes,
    dataset_root,
    label_ids_to_train_ids,
)
from calibration.errors import CalibrationDataError
from tests.calibration.pictures import write

# The scored classes as the benchmark publishes them (cityscapes-dataset.com, class definitions;
# cityscapesscripts, helpers/labels.py): name, label id, RGB, in order of train id.
OFFICIAL = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
KNOWN = list(range(34))


def frame(root: Path, split: str, city: str, number: int, shape: tuple[int, int] = (6, 8)) -> str:
    """One frame with its label, by the official names."""
    rng = np.random.default_rng(number)
    name = f"{city}_000000_{number:06d}"
    picture = rng.integers(0, 256, (*shape, 3), np.uint8)
    label = rng.choice(np.array(KNOWN, np.uint8), shape)
    write(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", picture)
    write(root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", label)
    return name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for city, number in (("zurich", 2), ("aachen", 3), ("aachen", 1)):
        frame(root, "train", city, number)
    frame(root, "val", "ulm", 0)
    return root


# --- the table


def test_scored_classes_are_the_published_ones() -> None:
    assert list(CLASS_NAMES) == [name for name, _, _ in OFFICIAL]
    assert [tuple(c) for c in PALETTE_RGB.tolist()] == [rgb for _, _, rgb in OFFICIAL]
    assert TRAIN_IDS_TO_LABEL_IDS[:19].tolist() == [id_ for _, id_, _ in OFFICIAL]


def test_all_labels_are_there_once() -> None:
    assert sorted(label.id for label in LABELS) == [-1, *KNOWN]
    assert len({label.name for label in LABELS}) == 35


def test_what_is_not_scored_follows_the_official_table() -> None:
    by_name = {label.name: label for label in LABELS}
    scored = {name for name, label in by_name.items() if label.train_id not in (IGNORE, -1)}
    assert scored == set(CLASS_NAMES)
    assert by_name["license plate"].train_id == -1
    assert by_name["caravan"].color == (0, 0, 90)
    assert by_name["dynamic"].color == (111, 74, 0)
    assert by_name["rail track"].color == (230, 150, 140)


@given(st.lists(st.sampled_from([*range(19), IGNORE]), max_size=60))
def test_train_ids_survive_the_round_trip(ids: list[int]) -> None:
    train = np.array(ids, np.uint8)
    assert np.array_equal(label_ids_to_train_ids(TRAIN_IDS_TO_LABEL_IDS[train]), train)


@given(st.lists(st.sampled_from(KNOWN), min_size=1, max_size=60))
def test_label_ids_map_as_a_table_lookup(ids: list[int]) -> None:
    official = {id_: train for train, (_, id_, _) in enumerate(OFFICIAL)}
    mapped = label_ids_to_train_ids(np.array(ids, np.uint8))
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [official.get(i, IGNORE) for i in ids]


@given(st.integers(34, 255), st.integers(34, 255))
def test_unknown_label_ids_are_named(a: int, b: int) -> None:
    ids = np.full((3, 5), 7, np.uint8)
    ids[1, 2], ids[2, 4] = a, b
    with pytest.raises(CalibrationDataError, match=f"^x.png: unknown label ids {min(a, b)}"):
        label_ids_to_train_ids(ids, source="x.png")


def test_train_ids_given_for_label_ids_are_recognised() -> None:
    with pytest.raises(CalibrationDataError, match="look like train ids"):
        label_ids_to_train_ids(np.array([0, 7, 11, 255], np.uint8))


def test_ids_of_another_type_are_refused() -> None:
    with pytest.raises(CalibrationDataError, match="must be uint8, not int64"):
        label_ids_to_train_ids(np.array([7], np.int64))


# --- the tree


def test_frames_are_sorted_paired_and_read_back(tree: Path) -> None:
    data = Cityscapes(tree)
    frames = data.frames("train")
    assert [f.name for f in frames] == [
        "aachen_000000_000001",
        "aachen_000000_000003",
        "zurich_000000_000002",
    ]
    assert [f.city for f in frames] == ["aachen", "aachen", "zurich"]
    assert data.splits == ("train", "val")
    (tree / "leftImg8bit" / "test" / "berlin").mkdir(parents=True)
    assert data.splits == ("train", "val")  # a folder without pictures is no split
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (6, 8, 3), np.uint8)
    label = rng.choice(np.array(KNOWN, np.uint8), (6, 8))
    got, train = data.read(frames[0])
    assert np.array_equal(got, picture)
    assert np.array_equal(train, label_ids_to_train_ids(label))


def test_jpg_is_accepted_and_png_preferred(tree: Path) -> None:
    folder = tree / "leftImg8bit/train/aachen"
    smooth = np.full((6, 8, 3), 90, np.uint8)
    write(folder / "aachen_000000_000001_leftImg8bit.jpg", smooth)
    (folder / "aachen_000000_000003_leftImg8bit.png").unlink()
    write(folder / "aachen_000000_000003_leftImg8bit.jpg", smooth)
    (folder / "._aachen_000000_000009_leftImg8bit.png").write_bytes(b"resource fork")
    (folder / "notes.txt").write_text("not a frame")
    data = Cityscapes(tree)
    frames = data.frames("train")
    assert [f.image.suffix for f in frames] == [".png", ".jpg", ".png"]
    assert np.abs(data.read_image(frames[1].image).astype(int) - 90).max() <= 2


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(CalibrationDataError, match="nowhere: no such data set directory"):
        Cityscapes(tmp_path / "nowhere")


def test_foreign_tree_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(CalibrationDataError, match="not a Cityscapes tree, expected leftImg8bit/"):
        Cityscapes(tmp_path)


@pytest.mark.parametrize("split", ["training", "../train", "", "train/aachen"])
def test_unknown_split(tree: Path, split: str) -> None:
    with pytest.raises(CalibrationDataError, match="must be one of train, val, test"):
        Cityscapes(tree).frames(split)


def test_absent_split_names_what_is_there(tree: Path) -> None:
    with pytest.raises(CalibrationDataError, match="no such split; this data set has: train, val"):
        Cityscapes(tree).frames("test")


def test_empty_split(tree: Path) -> None:
    (tree / "leftImg8bit/test/berlin").mkdir(parents=True)
    with pytest.raises(CalibrationDataError, match="the split holds no"):
        Cityscapes(tree).frames("test")


def test_missing_label_names_file_and_count(tree: Path) -> None:
    gone = tree / "gtFine/train/zurich/zurich_000000_000002_gtFine_labelIds.png"
    gone.unlink()
    data = Cityscapes(tree)
    with pytest.raises(CalibrationDataError, match=r"000002_gtFine.*1 of 3 frames lack theirs"):
        data.frames("train")
    assert len(data.frames("train", labels=False)) == 3


def test_label_of_another_size(tree: Path) -> None:
    data = Cityscapes(tree)
    pair = data.frames("val")[0]
    write(pair.label, np.full((5, 8), 7, np.uint8))
    with pytest.raises(CalibrationDataError, match=r"8x5, but its picture ulm.* is 8x6"):
        data.read(pair)


def test_unknown_ids_in_a_file_are_named_with_it(tree: Path) -> None:
    data = Cityscapes(tree)
    pair = data.frames("val")[0]
    write(pair.label, np.array([[7, 77], [99, 7]], np.uint8))
    with pytest.raises(CalibrationDataError, match=r"labelIds\.png: unknown label ids 77, 99$"):
        data.read_labels(pair.label)


# --- where the data set is


def test_option_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYSCAPES_DATASET", "/from/environment")
    assert dataset_root("/from/option") == Path("/from/option")
    assert dataset_root(None) == Path("/from/environment")
    monkeypatch.setenv("CITYSCAPES_DATASET", "")
    assert dataset_root(None) is None
    monkeypatch.delenv("CITYSCAPES_DATASET")
    assert dataset_root(None) is None


@pytest.mark.skipif(
    not os.environ.get("CITYSCAPES_DATASET"), reason="CITYSCAPES_DATASET is not set"
)
def test_the_real_data_set_reads() -> None:
    data = Cityscapes(os.environ["CITYSCAPES_DATASET"])
    for split in ("train", "val"):
        frames = data.frames(split)
        for pair in (frames[0], frames[-1]):
            _, train = data.read(pair)
            assert set(np.unique(train)) <= {*range(19), IGNORE}
