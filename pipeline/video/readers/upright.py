"""Pictures as they want to be shown: phones and mirrored cameras store them otherwise.

A display matrix (a, b; c, d) takes a stored picture's x axis to (a, b) and its y axis to (c, d)
(ISO/IEC 14496-12, 8.3.2). Its angle is the x axis'. What has a determinant below 0 is a mirror: the
rows in reverse order first, then the turn. OpenCV and FFmpeg's angle know of the turn alone, which
puts a picture that is mirrored left to right on its head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pipeline.video.frames import Pixels

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_TURNS: Final = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}
"""FFmpeg's angle is counterclockwise. Others than right ones are left out of account."""


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """(height, width) of the picture as it is shown."""
    turned = frame.rotation % 180 == 90
    return (frame.width, frame.height) if turned else (frame.height, frame.width)


def write_upright(frame: VideoFrame, pixels: Pixels, out: Pixels) -> None:
    """Turn and mirror a picture as its frame's display matrix says.

    Args:
        frame: whose picture it is.
        pixels: (H, W, 3) uint8, as stored.
        out: (H, W, 3) uint8 of ``shown_size``; written.
    """
    if _mirrored(frame):
        pixels = cv2.flip(pixels, 0)
    turn = _TURNS.get(frame.rotation % 360)
    if turn is None:
        np.copyto(out, pixels)
    else:
        cv2.rotate(pixels, turn, dst=out)


def _mirrored(frame: VideoFrame) -> bool:
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it is something newer than PyAV, which then lists nothing
        return False
    if matrix is None:
        return False
    a, b, _u, c, d = (int(value) for value in np.frombuffer(matrix, np.int32, 5))
    return a * d - b * c < 0
