"""Videos whose every frame says its own number, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

BITS = 10
WIDTH, HEIGHT = 160, 96


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """A picture that carries ``number`` as ten black and white bars, and some texture below."""
    picture = np.empty((height, width, 3), np.uint8)
    rows, cols = np.mgrid[:height, :width]
    picture[...] = ((rows * 3 + cols * 2 + number * 5) % 200 + 20)[..., None]
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        picture[: height // 2, edges[bit] : edges[bit + 1]] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: Pixels) -> int:
    """The number that ``numbered`` wrote, compression notwithstanding; -1 where none fits."""
    height, width = picture.shape[:2]
    if height < 2 or width < BITS:
        return -1
    edges = np.linspace(0, width, BITS + 1).astype(int)
    bars = [picture[: height // 2, edges[b] : edges[b + 1]].mean() > 127 for b in range(BITS)]
    return sum(1 << bit for bit, bright in enumerate(bars) if bright)


def write_clip(
    path: Path,
    frames: int,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    rate: int = 25,
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    coder: dict[str, str] | None = None,
    picture: Callable[[int], Pixels] | None = None,
) -> Path:
    """Write a numbered clip; ``times`` are the frames' timestamps in seconds, else n / rate."""
    picture = picture or partial(numbered, height=height, width=width)
    clock = Fraction(1, 90_000) if times is not None else Fraction(1, rate)
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = clock
        stream.codec_context.gop_size = gop
        stream.codec_context.options = coder or {}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="bgr24")
            at = times[number] if times is not None else number / rate
            frame.pts, frame.time_base = round(at / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_clip(path: Path) -> list[tuple[float, Pixels]]:
    """(timestamp, BGR picture) of every frame, read without any of the project's code."""
    with av.open(str(path)) as container:
        return [
            (float(frame.time), frame.to_ndarray(format="bgr24"))
            for frame in container.decode(video=0)
        ]


def damage(path: Path, out: Path, *, start: float, end: float, seed: int = 0) -> Path:
    """A copy of a file with 40 stretches of 16 random bytes between two shares of its length."""
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for place in generator.integers(int(len(data) * start), int(len(data) * end), 40):
        data[place : place + 16] = generator.bytes(16)
    out.write_bytes(data)
    return out


def rotate_header(path: Path, degrees: int) -> Path:
    """Write a rotation into an mp4's track header, as phones do."""
    return turn_header(path, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])


def turn_header(path: Path, axes: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into an mp4's track header (ISO/IEC 14496-12, 8.3.2).

    The matrix {a, b, u, c, d, v, x, y, w} begins 40 bytes into the version 0 box's payload;
    a, b, c, d are 16.16 fixed point. ``axes`` are these four, as whole numbers.
    """
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    for value, offset in zip(axes, (0, 4, 12, 16), strict=True):
        fixed = value * 0x10000 & 0xFFFFFFFF
        data[start + offset : start + offset + 4] = fixed.to_bytes(4, "big")
    path.write_bytes(data)
    return path
