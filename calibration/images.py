"""Reading image files nobody vouches for: the header is judged before a pixel is decoded.

OpenCV answers a truncated file with ``None``, with a grey lower half, or with a warning on
stderr, depending on the format and the version. So completeness is checked here, on the bytes:
every chunk of a PNG must be there with its CRC (PNG specification, section 5), and a JPEG must
reach its end-of-image marker (ITU-T T.81, B.1.1.3).
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationDataError

MAX_PIXELS: Final = 64_000_000
MAX_FILE_BYTES: Final = 4 * MAX_PIXELS

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
# Start-of-frame markers: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone, without a length: TEM, RST0..RST7, SOI.
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})

_GREY: Final = 0


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of itself: size in pixels, bits per sample, and whether it is plain grey."""

    height: int
    width: int
    bits: int
    grey: bool


def read_bgr(path: Path, sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """The picture as uint8 (H, W, 3), BGR, as stored (an EXIF rotation is not applied).

    Raises ``CalibrationDataError`` when the file cannot be read, is neither PNG nor JPEG, is
    truncated or damaged, has more than ``MAX_PIXELS`` pixels, or is not the one of that hash.
    """
    data = read_bytes(path)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CalibrationDataError(f"{path}: changed since it was chosen; run it again")
    header = _checked_header(data, path)
    # A rotation flag would turn the picture away from its label.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode(data, flags, {(header.height, header.width, 3)}, path)


def read_upright_bgr(path: Path) -> npt.NDArray[np.uint8]:
    """The picture as uint8 (H, W, 3), BGR, turned and mirrored as its EXIF orientation asks for.

    For pictures that are shown; one that has a label is read by ``read_bgr``. Raises as it does.
    """
    data = read_bytes(path)
    header = _checked_header(data, path)
    stored = (header.height, header.width, 3)
    turned = (header.width, header.height, 3)
    return _decode(data, cv2.IMREAD_COLOR, {stored, turned}, path)


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """A label file's values, uint8 (H, W), exactly as stored.

    Raises ``CalibrationDataError`` as ``read_bgr`` does, and when the file is not a PNG of one
    channel of 8 bits: OpenCV would rescale or convert any other kind without a word.
    """
    data = read_bytes(path)
    header = _checked_header(data, path)
    if not data.startswith(_PNG_SIGNATURE) or not header.grey or header.bits != 8:
        raise CalibrationDataError(
            f"{path}: a label must be a PNG of one channel of 8 bits holding label ids, "
            "not a palette, colour, 16-bit or JPEG picture"
        )
    return _decode(data, cv2.IMREAD_UNCHANGED, {(header.height, header.width)}, path)


def read_header(path: Path) -> ImageHeader:
    """The checked header of a whole, undamaged PNG or JPEG file. Decodes no pixel."""
    return _checked_header(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """A file of bounded size.

    Raises ``CalibrationDataError`` for one that cannot be read or is too large, and for a pipe,
    which would be waited for without end.
    """
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            raise CalibrationDataError(f"{path}: cannot be read (it is a pipe)")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CalibrationDataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE_BYTES:
        raise CalibrationDataError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; refused")
    return data


def _checked_header(data: bytes, path: Path) -> ImageHeader:
    if data.startswith(_PNG_SIGNATURE):
        header = _png_header(data, path)
    elif data.startswith(_JPEG_SIGNATURE):
        header = _jpeg_header(data, path)
    else:
        raise CalibrationDataError(f"{path}: neither a PNG nor a JPEG file")
    if header.height < 1 or header.width < 1:
        raise CalibrationDataError(f"{path}: its header claims {header.width}x{header.height}")
    if header.height * header.width > MAX_PIXELS:
        raise CalibrationDataError(
            f"{path}: {header.width}x{header.height} is more than the "
            f"{MAX_PIXELS // 1_000_000} megapixels this reads"
        )
    return header


def _png_header(data: bytes, path: Path) -> ImageHeader:
    view, position, header = memoryview(data), len(_PNG_SIGNATURE), None
    while True:
        if position + 12 > len(data):
            raise _truncated(path)
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise _truncated(path)
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[position + 4 : end - 4]) != crc:
            raise CalibrationDataError(f"{path}: damaged, its {kind!r} chunk fails its CRC")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise CalibrationDataError(f"{path}: damaged, it does not begin with an IHDR chunk")
            width, height, bits, colour = struct.unpack_from(">IIBB", data, position + 8)
            header = ImageHeader(height, width, bits, colour == _GREY)
        if kind == b"IEND":
            return header
        position = end


def _jpeg_header(data: bytes, path: Path) -> ImageHeader:
    if data.rfind(b"\xff\xd9") < 0:
        raise _truncated(path)
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_BARE:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_FRAMES:
            if position + 10 > len(data):
                break
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            return ImageHeader(height, width, bits, channels == 1)
        position += 2 + length
    raise CalibrationDataError(f"{path}: damaged, no JPEG frame header found")


def _truncated(path: Path) -> CalibrationDataError:
    return CalibrationDataError(f"{path}: truncated; copy or unpack it again")


def _decode(
    data: bytes, flags: int, shapes: set[tuple[int, ...]], path: Path
) -> npt.NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise CalibrationDataError(f"{path}: cannot be decoded ({error.err})") from error
    if image is None or image.shape not in shapes or image.dtype != np.uint8:
        raise CalibrationDataError(f"{path}: cannot be decoded; copy or unpack it again")
    return np.asarray(image, np.uint8)
