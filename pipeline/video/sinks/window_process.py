"""The window itself, in a process of its own: run as a script by ``sinks.window``.

Qt ends its process when the display vanishes, and nothing in that process can prevent it. So it is
this process that ends, and the one that writes the files goes on.

stdin: frames, each a header of height and width (two little-endian uint32) and BGR bytes.
stdout: what the person wants, one byte each: ``q``, space or ``s``.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys

import cv2
import numpy as np

KEYS = {ord("q"): b"q", 27: b"q", ord(" "): b" ", ord("s"): b"s"}
HEADER = struct.Struct("<II")

_POLL = 0.02
_FIRST_SIZE = (720, 1280)


def main(title: str) -> None:
    """Show what comes in until it ends or the window is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends us, by closing our input
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    picture = np.empty((0, 0, 3), np.uint8)
    while True:
        if select.select([0], [], [], _POLL)[0]:
            header = read_exactly(HEADER.size)
            if header is None:
                return
            height, width = HEADER.unpack(header)
            if picture.shape[:2] != (height, width):
                first = not picture.size
                picture = np.empty((height, width, 3), np.uint8)
                if first:
                    fit_window(title, height, width)
            if not read_into(picture.data.cast("B")):
                return
            cv2.imshow(title, picture)
        key = cv2.waitKey(1) & 0xFF
        if key in KEYS:
            os.write(1, KEYS[key])
        if picture.size and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
            os.write(1, b"q")
            return


def fit_window(title: str, height: int, width: int) -> None:
    """Give the window the frame's size, or what of it most screens can hold."""
    factor = min(1.0, _FIRST_SIZE[0] / height, _FIRST_SIZE[1] / width)
    cv2.resizeWindow(title, max(160, int(width * factor)), max(90, int(height * factor)))


def read_exactly(count: int) -> bytes | None:
    """So many bytes of stdin, or ``None`` where it ends before."""
    data = bytearray(count)
    return bytes(data) if read_into(memoryview(data)) else None


def read_into(view: memoryview) -> bool:
    """Fill a buffer from stdin; whether it could be filled."""
    while view:
        done = os.readv(0, [view])
        if not done:
            return False
        view = view[done:]
    return True


if __name__ == "__main__":
    main(sys.argv[1])
