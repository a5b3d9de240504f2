"""The frames a report is made of, every file looked at before the first one is scored.

A verdict over frames of which some could not be read is a verdict over other frames. So all
pictures and labels are checked first; what is wrong is counted and named, and refused unless the
user chose to leave those frames out, which the report then says.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import Cityscapes, FramePair
from calibration.errors import CalibrationDataError
from calibration.images import read_header
from pipeline.artifact import sha256_of
from pipeline.errors import DatasetError

_SHOWN = 3
"""Problems named in the error; all are counted."""


class FrameSource(Protocol):
    """Labelled frames by index."""

    @property
    def names(self) -> Sequence[str]:
        """A name for each frame; their number is the number of frames."""

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Picture (H, W, 3) BGR and train ids (H, W), both uint8, of one size."""


class CheckedFrames:
    """Frames of a Cityscapes split that were all found good.

    Attributes:
        pairs: the frames' files.
        names: of the frames, ``CITY_SEQUENCE_FRAME``.
        digest: SHA-256 over the contents of all their files, in order.
        problems: one line for each frame that was left out.
    """

    def __init__(
        self, dataset: Cityscapes, pairs: Sequence[FramePair], hashes: Sequence[str], digest: str,
        problems: Sequence[str],
    ) -> None:  # fmt: skip
        self._dataset, self._hashes = dataset, tuple(hashes)
        self.pairs = tuple(pairs)
        self.names = tuple(pair.name for pair in pairs)
        self.digest = digest
        self.problems = tuple(problems)

    def among(self, pictures: Collection[str]) -> tuple[str, ...]:
        """Names of the frames whose picture's file has one of these SHA-256."""
        return tuple(
            name
            for name, hashes in zip(self.names, self._hashes, strict=True)
            if hashes.partition(" ")[0] in pictures
        )

    def read(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """See ``FrameSource``. Raises ``CalibrationDataError`` for a file that changed since."""
        pair = self.pairs[index]
        found = self._dataset.read(pair)
        if _hashes(pair) != self._hashes[index]:
            raise CalibrationDataError(f"{pair.image}: it or its label changed; run it again")
        return found


def choose(count: int, limit: int | None) -> list[int]:
    """Indices of ``limit`` frames spread evenly over ``count``, the first one included."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def check_frames(
    root: Path,
    split: str,
    *,
    limit: int | None = None,
    skip_bad: bool = False,
    on_frames: Callable[[int, int], None] | None = None,
) -> CheckedFrames:
    """Check every file of a split, or of ``limit`` frames spread evenly over it.

    Args:
        root: of the Cityscapes tree.
        split: ``train``, ``val`` or ``test``.
        limit: how many frames; ``None`` for all.
        skip_bad: leave bad frames out instead of refusing them.
        on_frames: called with (frames checked, frames in all).

    Raises:
        CalibrationDataError: no such tree or split, or an empty one.
        DatasetError: bad frames, counted, the first ones named.
    """
    dataset = Cityscapes(root)
    listed = dataset.frames(split, labels=False)
    chosen = [listed[index] for index in choose(len(listed), limit)]
    digest = hashlib.sha256()
    good, problems, kept = [], [], []
    for count, pair in enumerate(chosen, 1):
        try:
            hashes = _check(dataset, pair)
        except CalibrationDataError as error:
            problems.append(str(error))
        else:
            good.append(pair)
            kept.append(hashes)
            digest.update(os.fsencode(f"{pair.name} {hashes}\n"))
        if on_frames is not None:
            on_frames(count, len(chosen))
    if problems and (not skip_bad or not good):
        raise DatasetError(
            f"{len(problems)} of {len(chosen)} frames of split '{split}' cannot be scored: "
            + "; ".join(problems[:_SHOWN])
            + ("; ..." if len(problems) > _SHOWN else ""),
            hint="mend the files, or give --skip-bad to score the others" if good else None,
        )
    return CheckedFrames(dataset, good, kept, digest.hexdigest(), problems)


def _check(dataset: Cityscapes, pair: FramePair) -> str:
    """Hashes of a frame's files. Raises ``CalibrationDataError`` where it cannot be scored."""
    if not pair.label.is_file():
        raise CalibrationDataError(f"{pair.label}: label missing for {pair.image.name}")
    header = read_header(pair.image)
    labels = dataset.read_labels(pair.label)
    if labels.shape != (header.height, header.width):
        raise CalibrationDataError(
            f"{pair.label}: {labels.shape[1]}x{labels.shape[0]}, but its picture "
            f"{pair.image.name} is {header.width}x{header.height}"
        )
    return _hashes(pair)


def _hashes(pair: FramePair) -> str:
    """SHA-256 of the picture's file and of the label's, as calibration frames are hashed."""
    return f"{sha256_of(pair.image)} {sha256_of(pair.label)}"
