"""Cameras, by Video4Linux through OpenCV."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from pipeline.errors import SourceError
from pipeline.video.frames import Pixels
from pipeline.video.source import MAX_PIXELS, Head, SourceOptions, SourceSpec

_MAX_ERRORS_IN_A_ROW = 30
"""So many pictures that do not decode: opening the camera anew may help, going on does not."""


class CameraReader:
    """A camera: always live; its clock is ours, as V4L's differs from driver to driver.

    A torn MJPG picture, which USB gives now and then, is counted and left out.
    """

    live = True
    truncated = False

    def __init__(self, spec: SourceSpec, options: SourceOptions) -> None:
        _check_device(spec)
        _silence_opencv()
        settings = [cv2.CAP_PROP_BUFFERSIZE, 1]
        if options.size is not None:
            # Uncompressed, few cameras give more than 640x480 at a useful rate over USB 2.
            settings += [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")]
            settings += [cv2.CAP_PROP_FRAME_HEIGHT, options.size[0]]
            settings += [cv2.CAP_PROP_FRAME_WIDTH, options.size[1]]
        if options.rate is not None:
            settings += [cv2.CAP_PROP_FPS, round(options.rate)]
        self._name = spec.name
        self._capture = cv2.VideoCapture()
        if not self._capture.open(spec.target, cv2.CAP_V4L2, settings) and not (
            self._capture.open(spec.target, cv2.CAP_V4L2)  # a driver may refuse the settings
        ):
            raise SourceError(
                f"'{spec.name}': {spec.target} does not give pictures",
                hint="another program may hold it; see v4l2-ctl --list-devices",
            )
        self.rate: float | None = self._capture.get(cv2.CAP_PROP_FPS) or None
        self.decode_errors = 0
        self._began: float | None = None
        self._picture: Pixels = np.empty((0, 0, 3), np.uint8)

    def grab(self) -> Head | None:
        """Wait for the camera's next picture that decodes."""
        for _attempt in range(_MAX_ERRORS_IN_A_ROW):
            if not self._capture.grab():
                raise SourceError(f"'{self._name}': the camera stopped giving pictures")
            now = perf_counter()
            if self._decode():
                self._began = now if self._began is None else self._began
                height, width = self._picture.shape[:2]
                return Head(height, width, now - self._began)
            self.decode_errors += 1
        raise SourceError(
            f"'{self._name}': {_MAX_ERRORS_IN_A_ROW} pictures in a row did not decode"
        )

    def retrieve(self, out: Pixels) -> None:
        """Copy the picture."""
        np.copyto(out, self._picture)

    def _decode(self) -> bool:
        """Decode what was grabbed, into the same memory each time; whether it is a picture."""
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        if not 0 < height * width <= MAX_PIXELS:
            raise SourceError(f"'{self._name}': the camera claims pictures of {width}x{height}")
        if self._picture.shape[:2] != (height, width):
            self._picture = np.empty((height, width, 3), np.uint8)
        ok, picture = self._capture.retrieve(self._picture)
        if not ok or picture.shape != self._picture.shape:
            return False
        if picture.ctypes.data != self._picture.ctypes.data:
            np.copyto(self._picture, picture)
        return True

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


def _check_device(spec: SourceSpec) -> None:
    """Say what is wrong before OpenCV does, at length and on stderr."""
    device = Path(spec.target)
    if not device.exists():
        there = sorted(str(p) for p in Path("/dev").glob("video*"))
        raise SourceError(
            f"'{spec.name}': there is no camera {spec.target}; "
            + (f"there is {', '.join(there)}" if there else "this machine has none")
        )
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        hint = None
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "add yourself to the group 'video'"
        raise SourceError(f"'{spec.name}': {device}: {error.strerror}", hint=hint) from error


def _silence_opencv() -> None:
    """What OpenCV would print goes into our own errors."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
