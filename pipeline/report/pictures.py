"""Small pictures of the frames that changed most, as data URIs that live inside the report.

The engines label those few frames again; no picture is kept while scoring.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import IGNORE, PALETTE_RGB
from pipeline.errors import EdgeError
from pipeline.kernels import Colours, overlay
from pipeline.report.evaluate import Contestant
from pipeline.report.frames import FrameSource

WIDTH: Final = 512
"""Widest picture, in pixels; a phone shows it sharp and ten frames stay near 1 MB."""

_QUALITY: Final = 72
_OPACITY: Final = 0.62
_DIMMED: Final = 0.45
"""Brightness of the frame under a map of differences."""
_BOOST: Final = 3.0
"""How much a thin line of differing pixels is widened in strength when it shrinks to a part of one
pixel, so that it does not vanish."""

# Okabe and Ito's palette, told apart by every kind of colour vision. BGR.
_LOST: Final = (0, 94, 213)
_GAINED: Final = (233, 180, 86)
_BOTH_WRONG: Final = (66, 228, 240)
_IGNORED: Final = (150, 150, 150)

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows, and itself as a data URI."""

    title: str
    uri: str


@dataclass(frozen=True)
class PicturedFrame:
    """A frame in pictures.

    Attributes:
        index: of the frame.
        width, height: of every panel in pixels.
        panels: frame, reference, candidate, disagreement.
        rows, cols: where patch edges lie, as shares of height and width, ascending.
    """

    index: int
    width: int
    height: int
    panels: tuple[Panel, ...]
    rows: tuple[float, ...]
    cols: tuple[float, ...]


def picture_frames(
    frames: FrameSource,
    reference: Contestant,
    candidate: Contestant,
    indices: Sequence[int],
    *,
    patch: tuple[int, int] | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> list[PicturedFrame]:
    """Label some frames again and picture them.

    Args:
        frames: where they come from.
        reference: the engine that is trusted.
        candidate: the engine in question.
        indices: which frames, in the order wanted.
        patch: (height, width) of the network's patches; ``None`` if not known.
        on_frame: called with the number of frames done, after each.
    """
    found = []
    for count, index in enumerate(indices, 1):
        bgr, truth = frames.read(index)
        labels = [each.segmenter.segment(bgr) for each in (reference, candidate)]
        height, width = _small(bgr.shape[:2])
        names = (reference.name, candidate.name)
        panels = (
            Panel("frame", _uri(_shrunk(bgr, height, width))),
            *(
                Panel(name, _uri(_shrunk(_overlaid(bgr, each), height, width)))
                for name, each in zip(names, labels, strict=True)
            ),
            Panel(
                "disagreement", _uri(difference_picture(bgr, truth, *labels, size=(height, width)))
            ),
        )
        rows: tuple[float, ...] = ()
        cols: tuple[float, ...] = ()
        if patch is not None:
            edges = candidate.segmenter.plan(*bgr.shape[:2]).patch_edges(patch)
            rows, cols = (
                tuple((positions / side).tolist())
                for positions, side in zip(edges, bgr.shape, strict=False)
            )
        found.append(PicturedFrame(index, width, height, panels, rows, cols))
        if on_frame is not None:
            on_frame(count)
    return found


def difference_picture(
    bgr: Picture, truth: Picture, reference: Picture, candidate: Picture, *, size: tuple[int, int]
) -> Picture:
    """The dimmed grey frame, and in colour the pixels that the engines label differently.

    Vermilion where the reference was right, blue where the candidate is, yellow where neither is,
    grey where the truth is ignored. (height, width, 3) uint8 BGR of ``size``.
    """
    height, width = size
    grey = cv2.cvtColor(_shrunk(bgr, height, width), cv2.COLOR_BGR2GRAY)
    canvas = np.repeat(_DIMMED * grey[..., None].astype(np.float32), 3, axis=2)
    differ = reference != candidate
    scored = truth != IGNORE
    masks = (
        (differ & ~scored, _IGNORED),
        (differ & scored & (reference != truth) & (candidate != truth), _BOTH_WRONG),
        (differ & scored & (candidate == truth), _GAINED),
        (differ & scored & (reference == truth), _LOST),
    )
    for mask, colour in masks:
        cover = _shrunk(mask.view(np.uint8) * np.uint8(255), height, width)
        weight = np.minimum(cover.astype(np.float32) * (_BOOST / 255), 1.0)[..., None]
        canvas += weight * (np.array(colour, np.float32) - canvas)
    drawn: Picture = np.rint(canvas).astype(np.uint8)
    return drawn


def _overlaid(bgr: Picture, labels: Picture) -> Picture:
    return overlay(bgr, labels, Colours(PALETTE_RGB[:, ::-1], opacity=_OPACITY))


def _small(shape: tuple[int, ...]) -> tuple[int, int]:
    factor = min(1.0, WIDTH / shape[1])
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _shrunk(picture: Picture, height: int, width: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    resized: Picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return resized


def _uri(picture: Picture) -> str:
    done, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    if not done:
        raise EdgeError("this build of OpenCV cannot encode WebP pictures for the report")
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode("ascii")
