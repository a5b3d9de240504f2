"""Requests that cannot be met are refused before anything is opened, made or overwritten."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.video.names import file_names, label_folders, output_paths
from pipeline.video.source import MAX_PIXELS, STREETS_SIDES

if TYPE_CHECKING:
    from pipeline.video.session import Request


def check_request(request: Request) -> None:
    """Refuse what cannot be, or does not go together.

    Raises:
        UsageError: naming the option or source at fault.
    """
    if not request.sources:
        raise UsageError("name at least one source, such as cam0, clip.mp4 or streets")
    if request.max_latency is not None and not request.live:
        raise UsageError(
            "--max-latency is for live sources: no frame of a file is left out; add --realtime to "
            "play the file as if it were live"
        )
    cameras = [spec.target for spec in request.sources if spec.kind == "camera"]
    for spec in request.sources:
        if cameras.count(spec.target) > 1:
            raise UsageError(f"'{spec.name}': a camera can be opened once only; name it once")
    _check_used(request)
    _check_size(request)
    if request.window:
        _check_snapshots(request.snapshots)
    _check_inputs_are_kept(request)


def _check_used(request: Request) -> None:
    """Refuse options of reading that none of the sources takes notice of."""
    options = request.source_options
    kinds = {spec.kind for spec in request.sources}
    for option, given, takers, who in (
        ("--size", options.size, {"camera", "streets"}, "a camera or the streets"),
        ("--rate", options.rate, {"camera"}, "a camera"),
        (
            "--loop",
            options.loop or None,
            {"file", "images", "url"},
            "a file or a directory of pictures",
        ),
        ("--give-up", options.give_up, {"camera", "url"}, "a camera or a network stream"),
    ):
        if given is not None and not kinds & takers:
            raise UsageError(f"{option} is for {who}, and no source here is one")


def _check_snapshots(folder: Path) -> None:
    """Now, not when the key is pressed and the picture gone."""
    if not folder.is_dir():
        raise UsageError(f"--snapshots '{folder}' is no directory; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--snapshots '{folder}': no permission to write there")


def _check_size(request: Request) -> None:
    """What streets can be rendered at: a camera says itself what it can."""
    size = request.source_options.size
    if size is None or all(spec.kind != "streets" for spec in request.sources):
        return
    least, most = STREETS_SIDES
    if min(size) < least or max(size) > most or size[0] * size[1] > MAX_PIXELS:
        raise UsageError(
            f"--size {size[0]}x{size[1]}: streets have sides of {least} to {most} pixels, "
            f"and at most {MAX_PIXELS // 1_000_000} million pixels"
        )


def _check_inputs_are_kept(request: Request) -> None:
    """No output may take the place of a source, under whatever name."""
    streams = file_names([spec.name for spec in request.sources])
    if request.output is not None:
        if not request.output.name:
            raise UsageError("--output '' is no file; name one, such as overlay.mp4")
        for path in output_paths(request.output, streams):
            _refuse_same(request, "--output", path, "file", "name another file")
    folders = label_folders(request.labels, streams) if request.labels is not None else []
    for folder in folders:
        _refuse_same(request, "--labels", folder, "images", "name another directory")
    if request.output is not None:
        _refuse_labels_in(output_paths(request.output, streams), folders)
    if request.window:
        _refuse_same(request, "--snapshots", request.snapshots, "images", "name another directory")


def _refuse_same(request: Request, option: str, path: Path, kind: str, advice: str) -> None:
    for spec in request.sources:
        if spec.kind == kind and _same(path, Path(spec.target)):
            raise UsageError(f"{option} '{path}' is the source '{spec.name}' itself; {advice}")


def _refuse_labels_in(files: list[Path], folders: list[Path]) -> None:
    """A path cannot become both a video and a directory: whichever comes last would fail."""
    for folder in folders:
        resolved = Path(os.path.realpath(folder))
        for file in files:
            if Path(os.path.realpath(file)) in (resolved, *resolved.parents):
                raise UsageError(
                    f"--labels '{folder}' cannot be a directory where --output '{file}' becomes "
                    "a file; name another directory"
                )


def _same(one: Path, other: Path) -> bool:
    """Whether both are one file or directory, links and other spellings included."""
    try:
        return one.samefile(other)
    except OSError:  # one of the two is not there
        return False
