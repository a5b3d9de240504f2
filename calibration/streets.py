"""Procedural street scenes with exact labels, as a data set and as a video source.

    scene = StreetScene(seed=7, height=512, width=1024)
    frame = scene.render(0)        # frame.bgr, frame.labels (Cityscapes label ids)
    write_dataset("streets", train=120, val=36)

or, from a shell, ``python -m calibration.streets ROOT``. Needs NumPy and OpenCV only. The same
seed gives the same bytes on one machine and one version of the two; OpenCV's choice of SIMD
code may change a colour by one level elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from calibration.command import Parser, parse_shape, run
from calibration.streetscape.dataset import (
    MAX_VIDEO_FRAMES,
    check_video_path,
    write_dataset,
    write_video,
)
from calibration.streetscape.scene import FRAMES_PER_SECOND, StreetFrame, StreetScene

__all__ = [
    "FRAMES_PER_SECOND",
    "StreetFrame",
    "StreetScene",
    "main",
    "write_dataset",
    "write_video",
]


def _parser() -> Parser:
    parser = Parser(
        prog="python -m calibration.streets",
        description="Render street scenes with exact labels in the Cityscapes layout.",
    )
    parser.add_argument("root", metavar="ROOT", nargs="?", help="directory for the data set")
    parser.add_argument("--train", type=int, default=120, help="training frames (%(default)s)")
    parser.add_argument("--val", type=int, default=36, help="validation frames (%(default)s)")
    parser.add_argument("--shape", type=parse_shape, default=(512, 1024), help="HxW (512x1024)")
    parser.add_argument("--seed", type=int, default=0, help="which streets (%(default)s)")
    parser.add_argument("--video", metavar="FILE.mp4", help="also write a drive as a video")
    parser.add_argument("--seconds", type=int, default=10, help="its length (%(default)s)")
    return parser


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total:
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{done}/{total} frames{end}")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.root is None and options.video is None:
        parser.error("name a ROOT directory, or a --video FILE.mp4, or both")
    longest = MAX_VIDEO_FRAMES // FRAMES_PER_SECOND
    if not 1 <= options.seconds <= longest:
        parser.error(f"--seconds {options.seconds}: must be 1 to {longest}")
    height, width = options.shape
    size = {"height": height, "width": width, "seed": options.seed, "progress": _show}

    def work() -> None:
        if options.video is not None:
            check_video_path(Path(options.video))
        if options.root is not None:
            made = write_dataset(options.root, train=options.train, val=options.val, **size)
            sys.stdout.write(f"{made}\n")
        if options.video is not None:
            frames = options.seconds * FRAMES_PER_SECOND
            sys.stdout.write(f"{write_video(options.video, frames=frames, **size)}\n")

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
