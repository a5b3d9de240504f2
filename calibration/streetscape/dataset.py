"""Streets on disk: the official Cityscapes layout, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationDataError
from calibration.images import MAX_PIXELS
from calibration.streetscape.scene import FRAMES_PER_SECOND, StreetScene

VERSION = 2
"""Changes when the same seed gives other pictures."""

MANIFEST = "streets.json"
PER_STREET = 12
"""Frames taken of one street, ``STRIDE`` frames apart."""
STRIDE = 40
MIN_SIDE = 64
MAX_VIDEO_FRAMES = 15_000
_SEEDS = 1000
_FEWEST_STREETS = 3
_PARTS = ("gtFine", "leftImg8bit")

Progress = Callable[[int, int], None]


def write_dataset(
    root: str | os.PathLike[str],
    *,
    train: int = 120,
    val: int = 36,
    height: int = 512,
    width: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write ``train`` and ``val`` frames as a Cityscapes tree below ``root`` and return ``root``.

    Every "city" is one street (one scene seed), and no street is in both splits. The same
    arguments give the same bytes; where ``root`` already holds them, nothing is done. What an
    interrupted run left, or another ``VERSION`` made of the same arguments, is replaced; another
    process that is at it is waited for. ``progress(done, total)`` is called after every frame.

    Raises ``CalibrationDataError`` when the arguments cannot be, when ``root`` holds another
    data set, and when it cannot be written; then nothing half-written is left.
    """
    root = Path(root)
    _check(train, val, height, width, seed)
    wanted: dict[str, Any] = {
        "streets": VERSION,
        "seed": seed,
        "train": train,
        "val": val,
        "shape": [height, width],
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            if not _already(root, wanted):
                _render(root, wanted, progress)
    except OSError as error:
        raise CalibrationDataError(f"{root}: cannot be written ({error.strerror})") from error
    return root


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait until no other process writes there, and keep them out."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _render(root: Path, wanted: dict[str, Any], progress: Progress | None) -> None:
    """Write the data set that ``wanted`` describes beside its place, then move it there."""
    partial = root / f".streets-{os.getpid()}.partial"
    height, width = wanted["shape"]
    first = wanted["seed"] * _SEEDS
    total, done = wanted["train"] + wanted["val"], 0
    try:
        for split, start in (("train", first), ("val", first + _SEEDS // 2)):
            for city, name, scene, index in _frames(wanted[split], start, height, width):
                frame = scene.render(index)
                image = f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"
                label = f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png"
                _write_png(partial / image, frame.bgr)
                _write_png(partial / label, frame.labels)
                done += 1
                if progress is not None:
                    progress(done, total)
        for part in _PARTS:  # a hand that cleaned up under us must not leave a hole
            found = _count(partial / part)
            if found != total:
                raise CalibrationDataError(
                    f"{root}: {total - found} of {total} files vanished while they were written; "
                    "run it again"
                )
        _write_json(root / MANIFEST, wanted | {"complete": False})
        for part in _PARTS:  # gtFine first: without leftImg8bit nobody takes it for a data set
            (partial / part).rename(root / part)
        _write_json(root / MANIFEST, wanted | {"complete": True})
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_video(
    path: str | os.PathLike[str],
    *,
    frames: int,
    height: int = 512,
    width: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write ``frames`` consecutive frames of one street as an MP4 of 25 frames a second.

    Raises ``CalibrationDataError`` when the arguments cannot be or the file cannot be written.
    """
    path = Path(path)
    if not 1 <= frames <= MAX_VIDEO_FRAMES:
        raise CalibrationDataError(f"frames: must be 1 to {MAX_VIDEO_FRAMES}, not {frames}")
    _check_streets(height, width, seed)
    check_video_path(path)
    partial = path.with_name(f".{path.stem}-{os.getpid()}.partial.mp4")
    # Else FFmpeg takes what stands before the colon of '10:00.mp4' for a protocol.
    place = f"file:{partial}"
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(place, code, float(FRAMES_PER_SECOND), (width, height))
    try:
        if not writer.isOpened():
            raise CalibrationDataError(f"{path}: the video cannot be opened for writing")
        scene = StreetScene(seed * _SEEDS, height, width)
        for index in range(frames):
            writer.write(scene.render(index).bgr)
            if progress is not None:
                progress(index + 1, frames)
        writer.release()
        _check_video(place, path, frames)
        partial.replace(path)
    except OSError as error:
        raise CalibrationDataError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        writer.release()
        partial.unlink(missing_ok=True)
    return path


def check_video_path(path: Path) -> None:
    """Raise ``CalibrationDataError`` where no video can be written; asked before any work."""
    if path.suffix.lower() != ".mp4":
        raise CalibrationDataError(f"{path}: a video must be named *.mp4")
    if not path.parent.is_dir():
        raise CalibrationDataError(f"{path.parent}: no such directory for the video")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # OpenCV would crash
        raise CalibrationDataError(f"{path!r}: its name is not UTF-8") from error


def _check_video(written: str, path: Path, frames: int) -> None:
    """Raise unless all of it can be read again: OpenCV's writer is silent about a full disk."""
    capture = cv2.VideoCapture(written)
    try:
        count = 0
        while capture.grab():
            count += 1
    finally:
        capture.release()
    if count != frames:
        raise CalibrationDataError(
            f"{path}: only {count} of {frames} frames were written; is the disk full?"
        )


def _check(train: int, val: int, height: int, width: int, seed: int) -> None:
    limit = _SEEDS // 2 * PER_STREET
    for name, count in (("train", train), ("val", val)):
        if not 0 <= count <= limit:
            raise CalibrationDataError(f"{name}: must be 0 to {limit} frames, not {count}")
    if train + val < 1:
        raise CalibrationDataError("train and val: at least one frame must be asked for")
    _check_streets(height, width, seed)


def _check_streets(height: int, width: int, seed: int) -> None:
    if min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise CalibrationDataError(
            f"shape {height}x{width}: each side must be at least {MIN_SIDE} pixels, "
            f"and the whole at most {MAX_PIXELS // 1_000_000} megapixels"
        )
    if not 0 <= seed <= 1_000_000:
        raise CalibrationDataError(f"seed: must be 0 to 1000000, not {seed}")


def _frames(
    count: int, first_seed: int, height: int, width: int
) -> Iterator[tuple[str, str, StreetScene, int]]:
    """City, name, scene and frame index of ``count`` frames, dealt evenly to the streets."""
    streets = _streets_for(count)
    for k in range(streets):
        seed = first_seed + k
        scene = StreetScene(seed, height, width)
        city = f"street{seed:06d}"
        for i in range(count // streets + (k < count % streets)):
            index = i * STRIDE
            yield city, f"{city}_000000_{index:06d}", scene, index


def _streets_for(count: int) -> int:
    return min(count, max(_FEWEST_STREETS, -(-count // PER_STREET)))


def _already(root: Path, wanted: dict[str, Any]) -> bool:
    """Whether ``root`` holds just this; clears what an interrupted run left there."""
    for stale in root.glob(".streets-*.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    there = [part for part in _PARTS if (root / part).exists()]
    manifest = _read_manifest(root / MANIFEST)
    if manifest is None:
        if there:
            raise CalibrationDataError(
                f"{root}: already holds another data set; choose an empty directory"
            )
        return False
    counts, total = [_count(root / part) for part in _PARTS], wanted["train"] + wanted["val"]
    written = [manifest.get(split) for split in ("train", "val")]
    if max(counts) > sum(count for count in written if isinstance(count, int)):
        # Someone's own pictures: nothing here is ours to remove.
        raise CalibrationDataError(
            f"{root}: holds pictures besides the streets written there; choose an empty directory"
        )
    if manifest == wanted | {"complete": True} and counts == [total] * len(_PARTS):
        return True
    outdated = manifest | {"streets": VERSION} == wanted | {"complete": True}
    if manifest.get("complete") is True and not outdated:
        raise CalibrationDataError(
            f"{root}: already holds streets made with other options; "
            "choose an empty directory or remove it"
        )
    for part in there:
        shutil.rmtree(root / part)
    return False


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.png"))


def _read_manifest(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, (json.dumps(value, sort_keys=True) + "\n").encode())


def _write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    # Level 1: grain does not compress, and a data set is written once.
    good, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not good:
        raise CalibrationDataError(f"{path}: the picture cannot be encoded")
    _write(path, data.tobytes())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
