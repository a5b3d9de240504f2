from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import images
from calibration.cityscapes import (
    CLASS_NAMES,
    IGNORE,
    LABELS,
    PALETTE_RGB,
    TRAIN_IDS_TO_LABEL_IDS,
    Cityscapes,
    dataset_root,
    label_ids_to_train_ids,
    train_ids_to_label_ids,
)
from calibration.errors import CalibrationDataError

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

Bytes = npt.NDArray[np.uint8]


def write(path: Path, image: npt.NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


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


def test_flags_follow_the_official_rules() -> None:
    by_name = {label.name: label for label in LABELS}
    assert {n for n, r in by_name.items() if r.has_instances} == {
        "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle",
        "bicycle",
    }  # fmt: skip
    assert {n for n, r in by_name.items() if r.ignore_in_eval} == set(by_name) - set(CLASS_NAMES)
    assert by_name["license plate"].train_id == -1
    assert by_name["caravan"].color == (0, 0, 90)
    assert by_name["dynamic"].color == (111, 74, 0)
    assert by_name["rail track"].color == (230, 150, 140)
    categories = {r.category: r.category_id for r in LABELS}
    assert categories == {
        "void": 0, "flat": 1, "construction": 2, "object": 3, "nature": 4, "sky": 5, "human": 6,
        "vehicle": 7,
    }  # fmt: skip


@given(st.lists(st.sampled_from([*range(19), IGNORE]), max_size=60))
def test_train_ids_survive_the_round_trip(ids: list[int]) -> None:
    train = np.array(ids, np.uint8)
    assert np.array_equal(label_ids_to_train_ids(train_ids_to_label_ids(train)), train)


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


@pytest.mark.parametrize("bad", [19, 34, 254])
def test_unknown_train_ids_are_named(bad: int) -> None:
    with pytest.raises(CalibrationDataError, match=f"unknown train ids {bad}"):
        train_ids_to_label_ids(np.array([0, bad, 255], np.uint8))


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


# --- hostile files


def test_every_truncation_of_a_png_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.png", rng.integers(0, 256, (9, 11, 3), np.uint8))
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(CalibrationDataError, match=r"a\.png: (truncated|neither)"):
            images.read_bgr(path)


def test_every_flipped_byte_of_a_png_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.png", rng.integers(0, 34, (9, 11), np.uint8))
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CalibrationDataError):
            images.read_grey(path)


def test_truncated_jpeg_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.jpg", rng.integers(0, 256, (40, 60, 3), np.uint8))
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CalibrationDataError, match="truncated"):
            images.read_bgr(path)


def test_jpeg_header_gives_the_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", np.zeros((40, 60, 3), np.uint8))
    assert images.read_header(path) == images.ImageHeader(40, 60, 8, grey=False)


@given(
    data=st.binary(max_size=400), kind=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
)
def test_garbage_is_an_error_and_nothing_else(
    data: bytes, kind: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.png"
    path.write_bytes(kind + data)
    with pytest.raises(CalibrationDataError, match=r"garbage\.png"):
        images.read_bgr(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def forged(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """A small PNG whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8001, 8001), (2**31 - 1, 2), (1, 64_000_001)])
def test_huge_claims_are_refused_before_decoding(
    tmp_path: Path, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(forged(width, height))
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(CalibrationDataError, match="more than the 64 megapixels"):
        images.read_bgr(path)


def test_large_files_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    path = tmp_path / "big.png"
    path.write_bytes(b"\0" * 101)
    with pytest.raises(CalibrationDataError, match="larger than"):
        images.read_bgr(path)


def test_a_header_without_pixels_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.write_bytes(forged(0, 4))
    with pytest.raises(CalibrationDataError, match="claims 0x4"):
        images.read_bgr(path)


def test_a_file_that_lies_about_its_pixels_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.png"
    path.write_bytes(forged(400, 400))
    with pytest.raises(CalibrationDataError, match=r"short\.png"):
        images.read_grey(path)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint16), np.zeros((4, 5, 4), np.uint8)],
)
def test_labels_must_be_one_channel_of_8_bits(tmp_path: Path, image: Bytes) -> None:
    path = write(tmp_path / "label.png", image)
    with pytest.raises(CalibrationDataError, match="one channel of 8 bits"):
        Cityscapes.read_labels(path)


def test_palette_and_jpeg_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    path.write_bytes(forged(4, 4, colour=3))
    with pytest.raises(CalibrationDataError, match="not a palette"):
        Cityscapes.read_labels(path)
    with pytest.raises(CalibrationDataError, match="one channel of 8 bits"):
        Cityscapes.read_labels(write(tmp_path / "label.jpg", np.full((8, 8), 7, np.uint8)))


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(CalibrationDataError, match=r"gone\.png: cannot be read \(No such file"):
        images.read_bgr(tmp_path / "gone.png")
    with pytest.raises(CalibrationDataError, match=r"cannot be read \(Is a directory"):
        images.read_bgr(tmp_path)


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
