"""The labels themselves, one PNG a frame, as Cityscapes label ids: what its scripts score."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from calibration.cityscapes import TRAIN_IDS_TO_LABEL_IDS
from pipeline.errors import SinkError
from pipeline.video.frames import Pixels
from pipeline.video.sinks.base import Shown, TemporaryFile

_RUN_LENGTHS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, 3]
"""Labels are runs of equal bytes: zlib's run-length strategy is both fastest and small."""


class LabelSink:
    """Writes ``frame_000042_labelIds.png`` into a directory, named by the frame's index.

    Raises:
        SinkError: the directory cannot be made or written to.
    """

    needs_canvas = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"'{folder}': {error.strerror or error}") from error
        TemporaryFile(folder / "frame_000000_labelIds.png")  # may we write here at all?
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
        partial = path.with_name(f".{path.name}.partial")
        try:
            # Not synced to the disk: dozens a second would wait for it, and each is replaceable.
            partial.write_bytes(data.data)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise SinkError(f"'{path}': {error.strerror or error}") from error
        self._written += 1

    def stale(self, canvas: Pixels) -> None:
        """Labels of a frame that did not come do not exist."""

    def close(self) -> str | None:
        """The directory, if anything was written."""
        return str(self._folder) if self._written else None

    def discard(self) -> None:
        """Nothing is half-written: every file was whole before it had its name."""
