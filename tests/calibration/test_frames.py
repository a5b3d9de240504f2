from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.cityscapes import Cityscapes, FramePair
from calibration.errors import CalibrationDataError
from calibration.frames import FrameList, fit, load, select_frames

SIZES = {"aachen": 9, "bochum": 2, "zurich": 30}


def build(root: Path, sizes: dict[str, int], order: int = 0) -> Cityscapes:
    """A train split of tiny distinct pictures, created in an order of its own."""
    todo = [(city, i) for city, size in sizes.items() for i in range(size)]
    for k in np.random.default_rng(order).permutation(len(todo)):
        city, i = todo[int(k)]
        folder = root / "leftImg8bit/train" / city
        folder.mkdir(parents=True, exist_ok=True)
        picture = np.full((2, 3, 3), i, np.uint8)
        picture[0, 0] = len(city)
        name = f"{city}_000000_{i:06d}_leftImg8bit.png"
        assert cv2.imwrite(str(folder / name), picture)
    return Cityscapes(root)


def names(chosen: FrameList) -> list[str]:
    return [f.pair.name for f in chosen.frames]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Cityscapes:
    return build(tmp_path_factory.mktemp("data"), SIZES)


def test_choice_depends_neither_on_place_nor_on_disk_order(
    data: Cityscapes, tmp_path: Path
) -> None:
    other = build(tmp_path / "elsewhere", SIZES, order=5)
    here, there = select_frames(data, 12), select_frames(other, 12)
    assert here.sha256 == there.sha256
    assert [f.path for f in here.frames] == [f.path for f in there.frames]
    assert here.frames[0].path.startswith("leftImg8bit/train/aachen/")


def test_cities_take_turns(data: Cityscapes) -> None:
    for count, shares in ((3, (1, 1, 1)), (4, (2, 1, 1)), (12, (5, 2, 5)), (20, (9, 2, 9))):
        per_city = Counter(f.pair.city for f in select_frames(data, count).frames)
        assert tuple(per_city[c] for c in SIZES) == shares


@given(count=st.integers(1, 60), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_any_count_is_met_evenly_and_without_repeats(
    data: Cityscapes, count: int, seed: int
) -> None:
    chosen = select_frames(data, count, seed=seed)
    assert len(chosen) == min(count, sum(SIZES.values()))
    assert len(set(names(chosen))) == len(chosen)
    assert (chosen.requested, chosen.split, chosen.forced) == (count, "train", False)
    per_city = Counter(f.pair.city for f in chosen.frames)
    full = max(per_city.values())
    # A city gives fewer than the others only where it has no more, or by one in the last round.
    assert all(per_city[c] >= min(full - 1, size) for c, size in SIZES.items())
    for city, size in SIZES.items():
        at = [int(f.pair.name[-6:]) for f in chosen.frames if f.pair.city == city]
        gaps = np.diff(at)
        assert all(abs(gap - size / len(at)) < 1 for gap in gaps)


def test_seed_moves_the_choice_and_the_same_seed_repeats_it(data: Cityscapes) -> None:
    first, again, other = (select_frames(data, 8, seed=s) for s in (0, 0, 1))
    assert first == again
    assert names(first) != names(other)
    assert first.sha256 != other.sha256


def test_hash_is_that_of_names_and_contents(data: Cityscapes) -> None:
    chosen = select_frames(data, 5)
    content = {
        "split": "train",
        "frames": [
            [f.path, hashlib.sha256((data.root / f.path).read_bytes()).hexdigest()]
            for f in chosen.frames
        ],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert chosen.sha256 == hashlib.sha256(canonical.encode()).hexdigest()


def test_a_changed_byte_changes_the_hash(tmp_path: Path) -> None:
    data = build(tmp_path, {"ulm": 4})
    before = select_frames(data, 4)
    assert before == select_frames(data, 4)
    path = before.frames[2].pair.image
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    after = select_frames(data, 4)
    assert names(before) == names(after)
    assert before.sha256 != after.sha256


def test_fewer_frames_than_asked_for_are_all_taken_and_recorded(tmp_path: Path) -> None:
    chosen = select_frames(build(tmp_path, {"ulm": 3}), 128)
    assert (len(chosen), chosen.requested) == (3, 128)
    record = chosen.provenance()
    assert (record["taken"], record["requested"], record["split"]) == (3, 128, "train")
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("split", ["val", "test"])
def test_scored_splits_need_to_be_forced_and_are_recorded(tmp_path: Path, split: str) -> None:
    data = build(tmp_path, {"ulm": 3})
    (tmp_path / "leftImg8bit/train").rename(tmp_path / "leftImg8bit" / split)
    with pytest.raises(CalibrationDataError, match=f"split '{split}': calibrating on frames"):
        select_frames(data, 2, split)
    chosen = select_frames(data, 2, split, allow_val=True)
    assert (chosen.forced, chosen.split) == (True, split)
    assert chosen.provenance()["forced"] is True


def test_counts_below_one_are_refused(data: Cityscapes) -> None:
    with pytest.raises(CalibrationDataError, match="at least 1 must be asked for, not 0"):
        select_frames(data, 0)


def test_a_frame_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = build(tmp_path, {"ulm": 1})
    image = data.frames("train", labels=False)[0].image
    image.unlink()
    image.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(CalibrationDataError, match=r"ulm_000000_000000.*cannot be read"):
        select_frames(data, 1)


# --- loading


def test_images_come_in_order_at_the_size_asked_for(data: Cityscapes) -> None:
    chosen = select_frames(data, 6)
    for image, frame in zip(chosen.images(4, 6), chosen.frames, strict=True):
        assert image.shape == (4, 6, 3)
        assert image.dtype == np.uint8
        assert image[-1, -1, 0] == int(frame.pair.name[-6:])


def test_equal_size_is_untouched(data: Cityscapes) -> None:
    pair = data.frames("train", labels=False)[3]
    assert np.array_equal(load(pair, (2, 3)), data.read_image(pair.image))


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    level=st.integers(0, 255),
)
@settings(deadline=None)
def test_any_size_fits_any_size_without_inventing_values(
    shape: tuple[int, int], size: tuple[int, int], level: int
) -> None:
    fitted = fit(np.full((*size, 3), level, np.uint8), shape)
    assert fitted.shape == (*shape, 3)
    assert fitted.flags.c_contiguous
    assert (fitted == level).all()


def test_shrinking_averages_over_areas() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 20, 3), np.uint8)
    means = image.reshape(3, 4, 5, 4, 3).astype(np.float64).mean((1, 3))
    assert np.abs(fit(image, (3, 5)) - means).max() <= 0.5 + 1e-9


def test_aspect_is_kept_and_the_rest_mirrored() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (4, 4, 3), np.uint8)
    fitted = fit(image, (4, 10))
    assert np.array_equal(fitted[:, 3:7], image)
    assert np.array_equal(fitted[:, :3], image[:, 2::-1])
    assert np.array_equal(fitted[:, 7:], image[:, :0:-1])


def test_shapes_without_pixels_are_refused(data: Cityscapes) -> None:
    pair = data.frames("train", labels=False)[0]
    with pytest.raises(CalibrationDataError, match="shape 0x5"):
        load(pair, (0, 5))


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x_leftImg8bit.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(CalibrationDataError, match=f"{os.sep}x_leftImg8bit.png: truncated"):
        load(FramePair(path, path, "ulm", "x"), (4, 4))


def test_a_frame_that_changed_since_it_was_chosen_is_refused(tmp_path: Path) -> None:
    data = build(tmp_path, {"ulm": 2})
    chosen = select_frames(data, 2)
    first, second = (frame.pair.image for frame in chosen.frames)
    assert first.read_bytes() != second.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(CalibrationDataError, match="changed since it was chosen"):
        list(chosen.images(64, 96))
