"""Cityscapes as its authors define it: label ids, train ids, palette, and files on disk.

The table gives the facts of ``cityscapesscripts/helpers/labels.py`` (github.com/mcordts/
cityscapesScripts). Label ids are what ``*_gtFine_labelIds.png`` files hold; train ids 0 to 18
are the nineteen classes that are scored; everything else is ``IGNORE``.

    ROOT/leftImg8bit/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    ROOT/gtFine/{train,val,test}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png

Pictures may be ``.jpg`` too; labels must be PNG.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationDataError
from calibration.images import read_bgr, read_grey

IGNORE: Final = 255
ENVIRONMENT: Final = "CITYSCAPES_DATASET"
SPLITS: Final = ("train", "val", "test")

_IMAGE_ENDINGS: Final = ("_leftImg8bit.png", "_leftImg8bit.jpg", "_leftImg8bit.jpeg")
_LABEL_ENDING: Final = "_gtFine_labelIds.png"


@dataclass(frozen=True)
class Label:
    """One row of the official table, as far as it is needed here.

    ``id`` is -1 for what has no id and is never drawn into a label file (the licence plate);
    ``train_id`` is 0 to 18, ``IGNORE``, or -1 (licence plate); ``rgb`` is 0xRRGGBB.
    """

    name: str
    id: int
    train_id: int
    rgb: int

    @property
    def color(self) -> tuple[int, int, int]:
        """Red, green, blue."""
        return self.rgb >> 16, self.rgb >> 8 & 255, self.rgb & 255


LABELS: Final = (
    Label("unlabeled", 0, IGNORE, 0x000000),
    Label("ego vehicle", 1, IGNORE, 0x000000),
    Label("rectification border", 2, IGNORE, 0x000000),
    Label("out of roi", 3, IGNORE, 0x000000),
    Label("static", 4, IGNORE, 0x000000),
    Label("dynamic", 5, IGNORE, 0x6F4A00),
    Label("ground", 6, IGNORE, 0x510051),
    Label("road", 7, 0, 0x804080),
    Label("sidewalk", 8, 1, 0xF423E8),
    Label("parking", 9, IGNORE, 0xFAAAA0),
    Label("rail track", 10, IGNORE, 0xE6968C),
    Label("building", 11, 2, 0x464646),
    Label("wall", 12, 3, 0x66669C),
    Label("fence", 13, 4, 0xBE9999),
    Label("guard rail", 14, IGNORE, 0xB4A5B4),
    Label("bridge", 15, IGNORE, 0x966464),
    Label("tunnel", 16, IGNORE, 0x96785A),
    Label("pole", 17, 5, 0x999999),
    Label("polegroup", 18, IGNORE, 0x999999),
    Label("traffic light", 19, 6, 0xFAAA1E),
    Label("traffic sign", 20, 7, 0xDCDC00),
    Label("vegetation", 21, 8, 0x6B8E23),
    Label("terrain", 22, 9, 0x98FB98),
    Label("sky", 23, 10, 0x4682B4),
    Label("person", 24, 11, 0xDC143C),
    Label("rider", 25, 12, 0xFF0000),
    Label("car", 26, 13, 0x00008E),
    Label("truck", 27, 14, 0x000046),
    Label("bus", 28, 15, 0x003C64),
    Label("caravan", 29, IGNORE, 0x00005A),
    Label("trailer", 30, IGNORE, 0x00006E),
    Label("train", 31, 16, 0x005064),
    Label("motorcycle", 32, 17, 0x0000E6),
    Label("bicycle", 33, 18, 0x770B20),
    Label("license plate", -1, -1, 0x00008E),
)

_SCORED: Final = sorted(
    (label for label in LABELS if 0 <= label.train_id < IGNORE), key=lambda label: label.train_id
)
CLASS_NAMES: Final[tuple[str, ...]] = tuple(label.name for label in _SCORED)
"""The nineteen scored classes, in the order of their train ids."""

NUM_CLASSES: Final = len(CLASS_NAMES)

PALETTE_RGB: Final[npt.NDArray[np.uint8]] = np.array([label.color for label in _SCORED], np.uint8)
"""(19, 3) uint8, RGB, the official colour of each train id."""
PALETTE_RGB.setflags(write=False)


def _lut(entries: dict[int, int], default: int) -> npt.NDArray[np.uint8]:
    lut = np.full(256, default, np.uint8)
    lut[list(entries)] = list(entries.values())
    lut.setflags(write=False)
    return lut


LABEL_IDS_TO_TRAIN_IDS: Final = _lut({r.id: r.train_id for r in LABELS if r.id >= 0}, IGNORE)
"""(256,) uint8: label id -> train id. Ids outside the table read ``IGNORE`` here."""

TRAIN_IDS_TO_LABEL_IDS: Final = _lut({r.train_id: r.id for r in _SCORED}, 0)
"""(256,) uint8: train id -> label id. ``IGNORE`` and everything unknown read 0, unlabeled."""

_UNKNOWN_LABEL_IDS: Final = _lut({r.id: 0 for r in LABELS if r.id >= 0}, 1)


def label_ids_to_train_ids(
    label_ids: npt.NDArray[np.uint8], *, source: str = "labels"
) -> npt.NDArray[np.uint8]:
    """Train ids (0 to 18, or ``IGNORE``) of a uint8 array of label ids, any shape up to 2-D.

    Raises ``CalibrationDataError`` naming ``source`` and the ids that the table does not hold.
    """
    _refuse_unknown(label_ids, source)
    return LABEL_IDS_TO_TRAIN_IDS[label_ids]


def _refuse_unknown(ids: npt.NDArray[np.uint8], source: str) -> None:
    if ids.dtype != np.uint8:
        raise CalibrationDataError(f"{source}: label ids must be uint8, not {ids.dtype}")
    if ids.size == 0 or not cv2.countNonZero(cv2.LUT(ids.reshape(1, -1), _UNKNOWN_LABEL_IDS)):
        return
    found = [int(i) for i in np.unique(ids) if _UNKNOWN_LABEL_IDS[i]]
    shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
    hint = ""
    if found == [IGNORE]:
        hint = "; these look like train ids, use the *_gtFine_labelIds.png files"
    raise CalibrationDataError(f"{source}: unknown label ids {shown}{hint}")


@dataclass(frozen=True)
class FramePair:
    """One frame on disk: its picture, where its label belongs, its city, and its name.

    ``name`` is the file name without the ending, such as ``aachen_000000_000019``.
    """

    image: Path
    label: Path
    city: str
    name: str


class Cityscapes:
    """A Cityscapes tree on disk.

    Raises ``CalibrationDataError`` when ``root`` is missing or is not such a tree.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise CalibrationDataError(f"{self.root}: no such data set directory")
        if not (self.root / "leftImg8bit").is_dir():
            raise CalibrationDataError(
                f"{self.root}: not a Cityscapes tree, expected "
                "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and "
                "gtFine/{train,val}/CITY/*_gtFine_labelIds.png below it"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """The official splits this tree has pictures of."""
        folders = {s: self.root / "leftImg8bit" / s for s in SPLITS}
        return tuple(
            split
            for split, folder in folders.items()
            if folder.is_dir() and any(f.name.endswith(_IMAGE_ENDINGS) for f in _listed(folder))
        )

    def frames(self, split: str, *, labels: bool = True) -> list[FramePair]:
        """The frames of a split, sorted by city and name, whatever order the disk lists them in.

        With ``labels`` every frame must have its label file. Raises ``CalibrationDataError``
        for an unknown or empty split or a missing label.
        """
        folder = self._split_folder(split)
        pairs: dict[tuple[str, str], FramePair] = {}
        for image in _listed(folder):
            city = image.parent.name
            ending = next((e for e in _IMAGE_ENDINGS if image.name.endswith(e)), None)
            if ending is None or image.name.startswith("."):
                continue
            name = image.name.removesuffix(ending)
            label = self.root / "gtFine" / split / city / (name + _LABEL_ENDING)
            known = pairs.get((city, name))
            if known is None or known.image.suffix != ".png":
                pairs[city, name] = FramePair(image, label, city, name)
        if not pairs:
            raise CalibrationDataError(f"{folder}: the split holds no CITY/*_leftImg8bit.png")
        frames = [pairs[key] for key in sorted(pairs)]
        if labels:
            self._require_labels(frames)
        return frames

    def _split_folder(self, split: str) -> Path:
        folder = self.root / "leftImg8bit" / split
        if split not in SPLITS:
            raise CalibrationDataError(f"split '{split}': must be one of {', '.join(SPLITS)}")
        if not folder.is_dir():
            there = ", ".join(self.splits) or "none"
            raise CalibrationDataError(f"{folder}: no such split; this data set has: {there}")
        return folder

    @staticmethod
    def _require_labels(frames: list[FramePair]) -> None:
        missing = [f for f in frames if not f.label.is_file()]
        if missing:
            raise CalibrationDataError(
                f"{missing[0].label}: label missing for {missing[0].image.name} "
                f"({len(missing)} of {len(frames)} frames lack theirs; unpack gtFine_trainvaltest)"
            )

    @staticmethod
    def read_image(path: Path) -> npt.NDArray[np.uint8]:
        """A picture as uint8 (H, W, 3) BGR. Errors: see ``calibration.images.read_bgr``."""
        return read_bgr(path)

    @staticmethod
    def read_labels(path: Path) -> npt.NDArray[np.uint8]:
        """A label file as uint8 (H, W) train ids, 0 to 18 or ``IGNORE``.

        Raises ``CalibrationDataError`` as ``calibration.images.read_grey`` does, and for ids
        outside the official table, naming them.
        """
        return label_ids_to_train_ids(read_grey(path), source=str(path))

    def read(self, frame: FramePair) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Picture (H, W, 3) BGR and train ids (H, W), both uint8, checked to be of one size."""
        image, labels = self.read_image(frame.image), self.read_labels(frame.label)
        if image.shape[:2] != labels.shape:
            raise CalibrationDataError(
                f"{frame.label}: {labels.shape[1]}x{labels.shape[0]}, but its picture "
                f"{frame.image.name} is {image.shape[1]}x{image.shape[0]}"
            )
        return image, labels


def _listed(folder: Path) -> list[Path]:
    try:
        cities = [city for city in folder.iterdir() if city.is_dir()]
        return [file for city in cities for file in city.iterdir()]
    except OSError as error:
        raise CalibrationDataError(f"{folder}: cannot be listed ({error.strerror})") from error


def dataset_root(option: str | None) -> Path | None:
    """Where the data set is: the option if given, else ``CITYSCAPES_DATASET``, else ``None``."""
    chosen = option or os.environ.get(ENVIRONMENT)
    return Path(chosen) if chosen else None
