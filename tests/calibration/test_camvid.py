"""CamVid in the Cityscapes layout: every class number by its name, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.camvid import convert, main
from calibration.cityscapes import CLASS_NAMES, IGNORE, Cityscapes
from calibration.errors import CalibrationDataError

# As the tutorial numbers them, and what Cityscapes calls them.
NAMES = (
    "sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car",
    "person", "rider", None,
)  # fmt: skip


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two training frames and one for validation, of 4x12; every class has a column."""
    root = tmp_path / "CamVid"
    rng = np.random.default_rng(0)
    for split, name in (("train", "0001TP_006690"), ("train", "Seq05VD_f00000"),
                        ("val", "0016E5_07959")):  # fmt: skip
        for folder, picture in (
            (split, rng.integers(0, 256, (4, 12, 3), np.uint8)),
            (f"{split}annot", np.tile(np.arange(12, dtype=np.uint8), (4, 1))),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / folder / f"{name}.png"), picture)
    return root


def test_pictures_stay_and_classes_get_their_names(camvid: Path, tmp_path: Path) -> None:
    assert convert(camvid, tmp_path / "tree") == {"train": 2, "val": 1}
    data = Cityscapes(tmp_path / "tree")
    (val,) = data.frames("val")
    assert (val.city, val.name) == ("0016e5", "0016e5_000016_007959")
    assert [f.name for f in data.frames("train")] == [
        "0001tp_000001_006690", "seq05vd_000005_000000",
    ]  # fmt: skip
    picture, truth = data.read(val)
    stored = cv2.imread(str(camvid / "val" / "0016E5_07959.png"))
    assert stored is not None
    np.testing.assert_array_equal(picture, stored)
    wanted = [IGNORE if name is None else CLASS_NAMES.index(name) for name in NAMES]
    np.testing.assert_array_equal(truth, np.tile(np.array(wanted, np.uint8), (4, 1)))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: (root / "valannot" / "0016E5_07959.png").unlink(), "cannot be read"),
        (lambda root: (root / "val" / "0016E5_07959.png").write_bytes(b"x"), "neither a PNG"),
        (
            lambda root: cv2.imwrite(
                str(root / "valannot" / "0016E5_07959.png"), np.full((4, 12), 12, np.uint8)
            ),
            "not class numbers 0 to 11",
        ),
        (
            lambda root: [
                (root / folder / "0016E5_07959.png").rename(root / folder / "street.png")
                for folder in ("val", "valannot")
            ],
            "not named DRIVE_FRAME",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    camvid: Path, tmp_path: Path, spoil: object, told: str
) -> None:
    assert callable(spoil)
    spoil(camvid)
    with pytest.raises(CalibrationDataError, match=told):
        convert(camvid, tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["CamVid"]


def test_the_command(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "tree"
    assert main([str(camvid), str(tree)]) == 0
    assert capsys.readouterr().out == f"{tree}: 2 train, 1 val frames\n"
    assert main([str(camvid), str(tree)]) == 2
    assert "is there and not empty" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / "other")]) == 2
    assert "holds no train, val or test" in capsys.readouterr().err


def test_two_names_of_one_frame_are_refused(camvid: Path, tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        path = camvid / folder / "0001TP_006690.png"
        path.with_name("0001tp_f6690.png").write_bytes(path.read_bytes())
    with pytest.raises(CalibrationDataError, match="and so is another"):
        convert(camvid, tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["CamVid"]


def test_into_the_current_folder(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(camvid, Path())
    assert len(Cityscapes(tmp_path / "here").frames("train")) == 2
