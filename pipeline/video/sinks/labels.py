"""The labels themselves, one PNG a frame, as Cityscapes label ids: what its scripts score."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import cv2
import numpy as np

from calibration.cityscapes import TRAIN_IDS_TO_LABEL_IDS
from pipeline.errors import SinkError
from pipeline.video.frames import Pixels
from pipeline.video.sinks.base import Shown, check_writable, partial_of, remove_leftovers

_RUN_LENGTHS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, 3]
"""Labels are runs of equal bytes: zlib's run-length strategy is both fastest and small."""

_NAME = (r"frame_\d{6,}_labelIds", r"\.png")
_FINISHED = re.compile("".join(_NAME))


class LabelSink:
    """Writes ``frame_000042_labelIds.png`` into a directory, named by the frame's index.

    Raises:
        SinkError: the directory cannot be made or written to, or is a file.
    """

    needs_canvas = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = folder.is_dir()
        self.earlier = 0
        """Label files that were there before, of which this run replaces those it reaches."""
        if self._made:
            check_writable(folder, str(folder))
            remove_leftovers(folder, *_NAME)
            self.earlier = sum(1 for entry in folder.iterdir() if _FINISHED.fullmatch(entry.name))
        else:
            _check_can_be_made(folder)
        self._ids: Pixels = np.empty((0, 0), np.uint8)
        self._written = 0

    def write(self, shown: Shown) -> None:
        """Write one frame's labels. Each file is whole or not there."""
        labels = shown.segmentation.labels
        if self._ids.shape != labels.shape:
            self._ids = np.empty_like(labels)
        cv2.LUT(labels, TRAIN_IDS_TO_LABEL_IDS, dst=self._ids)
        done, data = cv2.imencode(".png", self._ids, _RUN_LENGTHS)
        path = self._folder / f"frame_{shown.frame.index:06d}_labelIds.png"
        if not done:
            raise SinkError(f"'{path}': the labels could not be encoded")
        partial = partial_of(path)
        try:
            if not self._made:
                # Not before there is something to put in: a run that fails leaves no directory.
                self._folder.mkdir(parents=True, exist_ok=True)
                self._made = True
            # Not synced to the disk: dozens a second would wait for it, and each is replaceable.
            partial.write_bytes(data.data)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):  # where there is no directory there is no file
                partial.unlink()
            raise SinkError(f"'{path}': {error.strerror or error}") from error
        self._written += 1

    def stale(self, canvas: Pixels) -> None:
        """Labels of a frame that did not come do not exist."""

    def close(self) -> str | None:
        """The directory, if anything was written."""
        return str(self._folder) if self._written else None

    def discard(self) -> None:
        """Nothing is half-written: every file was whole before it had its name."""


def _check_can_be_made(folder: Path) -> None:
    """Refuse now what the first frame's labels would find."""
    try:
        above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except OSError as error:
        raise SinkError(f"'{folder}': {error.strerror or error}") from error
    if not above.is_dir():
        which = "is a file" if above == folder else f"lies in '{above}', which is a file"
        raise SinkError(f"--labels '{folder}' {which}; name a directory")
    check_writable(above, str(folder))
