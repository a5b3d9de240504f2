"""Which frames calibrate: chosen deterministically, named and hashed, never from val unawares.

Frames are spread over the cities in turn, and evenly over each city's sequence, so that neither
one city nor one minute of driving sets the ranges. The list's hash covers names and contents:
change a byte of a frame, and everything calibrated from it is stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import Cityscapes, FramePair
from calibration.errors import CalibrationDataError
from calibration.images import read_bgr, read_bytes

DEFAULT_COUNT: Final = 128


@dataclass(frozen=True)
class SelectedFrame:
    """One chosen frame: its files, its path below the root, and the SHA-256 of its picture."""

    pair: FramePair
    path: str
    sha256: str


@dataclass(frozen=True)
class FrameList:
    """The chosen frames and how they were chosen.

    ``requested`` is how many were asked for; fewer ``frames`` means the split has no more.
    ``forced`` records that val or test was asked for by name. ``sha256`` identifies the list:
    split, paths and contents, in order.
    """

    split: str
    seed: int
    requested: int
    forced: bool
    frames: tuple[SelectedFrame, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.frames)

    def images(self, height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
        """The frames in order, one at a time, each as ``load`` gives it."""
        for frame in self.frames:
            yield load(frame.pair, (height, width), frame.sha256)

    def provenance(self) -> dict[str, Any]:
        """The list as plain JSON values, for manifests."""
        return {
            "split": self.split,
            "seed": self.seed,
            "requested": self.requested,
            "taken": len(self.frames),
            "forced": self.forced,
            "sha256": self.sha256,
            "frames": [{"path": f.path, "sha256": f.sha256} for f in self.frames],
        }


def select_frames(
    dataset: Cityscapes,
    count: int = DEFAULT_COUNT,
    split: str = "train",
    *,
    allow_val: bool = False,
    seed: int = 0,
) -> FrameList:
    """Choose ``count`` frames of a split, or all where it has fewer. Labels are not needed.

    The same files and arguments give the same list, wherever the data set lies and in whatever
    order the disk lists it. ``seed`` shifts which frames of each city are taken.

    Raises ``CalibrationDataError`` when ``count`` is below 1; when ``split`` is not train and
    ``allow_val`` is not given, since frames that calibrated must not also score; and as
    ``Cityscapes.frames`` does.
    """
    if count < 1:
        raise CalibrationDataError(f"frames: at least 1 must be asked for, not {count}")
    if split != "train" and not allow_val:
        raise CalibrationDataError(
            f"split '{split}': calibrating on frames that are also scored flatters the result; "
            "use train, or allow it with --force-split"
        )
    cities: dict[str, list[FramePair]] = {}
    for frame in dataset.frames(split, labels=False):
        cities.setdefault(frame.city, []).append(frame)
    shares = _shares([len(frames) for frames in cities.values()], count)
    chosen = [
        frame
        for frames, share in zip(cities.values(), shares, strict=True)
        for frame in _evenly(frames, share, seed)
    ]
    selected = tuple(
        SelectedFrame(frame, frame.image.relative_to(dataset.root).as_posix(), _sha256(frame))
        for frame in chosen
    )
    return FrameList(split, seed, count, split != "train", selected, _list_sha256(split, selected))


def checking_frames(dataset: Cityscapes, count: int) -> FrameList:
    """What engines are compared with their graphs on: frames of val, which calibrate nothing; of
    train where there is no val, since a tree to calibrate from need not have one.

    Raises ``CalibrationDataError`` as ``select_frames`` does.
    """
    split = "val" if "val" in dataset.splits else "train"
    return select_frames(dataset, count, split, allow_val=True)


def _shares(sizes: list[int], count: int) -> list[int]:
    """How many frames each city gives when they take turns until ``count`` is reached."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left:
        open_cities = [i for i, size in enumerate(sizes) if shares[i] < size]
        # Whole rounds at once; in the last one the first cities in order of name come first.
        rounds = max(1, left // len(open_cities))
        for i in open_cities:
            take = min(rounds, sizes[i] - shares[i], left)
            shares[i] += take
            left -= take
    return shares


def _evenly(frames: list[FramePair], share: int, seed: int) -> list[FramePair]:
    """``share`` frames at equal distances, shifted by the seed within one distance."""
    if share == 0:
        return []
    # Golden-ratio steps: successive seeds fall evenly into the distance, 0 into its middle.
    phase = (0.5 + seed * 0.6180339887498949) % 1.0
    return [frames[int((i + phase) * len(frames) / share)] for i in range(share)]


def _sha256(frame: FramePair) -> str:
    return hashlib.sha256(read_bytes(frame.image)).hexdigest()


def _list_sha256(split: str, frames: tuple[SelectedFrame, ...]) -> str:
    content = {"split": split, "frames": [[f.path, f.sha256] for f in frames]}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def load(
    frame: FramePair, shape: tuple[int, int], sha256: str | None = None
) -> npt.NDArray[np.uint8]:
    """A frame at ``shape`` (height, width): uint8 (height, width, 3) BGR, C-contiguous.

    The aspect is kept: the picture is scaled to fit, centred, and what is left over is filled
    with its own mirrored edge, which has street-like statistics where black bars have none.

    Raises ``CalibrationDataError`` for a shape below 1x1, and for a picture that cannot be read or
    is not the one of that hash.
    """
    if min(shape) < 1:
        raise CalibrationDataError(f"shape {shape[0]}x{shape[1]}: each side must be at least 1")
    return fit(read_bgr(frame.image, sha256), shape)


def fit(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """``load`` for a picture (h, w, 3) already in memory."""
    height, width = shape
    scale = min(height / image.shape[0], width / image.shape[1])
    rows = min(max(round(image.shape[0] * scale), 1), height)
    columns = min(max(round(image.shape[1] * scale), 1), width)
    if (rows, columns) != image.shape[:2]:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=method), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    # NumPy's "symmetric" also repeats the mirror where the border is wider than the picture.
    borders = ((top, height - rows - top), (left, width - columns - left), (0, 0))
    if any(map(any, borders)):
        image = np.pad(image, borders, mode="symmetric")
    return np.ascontiguousarray(image)
