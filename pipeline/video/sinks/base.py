"""What a sink is, and how an output file comes to be whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import SinkError
from pipeline.video.frames import Frame, Pixels, Segmentation
from pipeline.video.metrics import StreamStats

TOKEN_VARIABLE = "REPMLP_EDGE_HTTP_TOKEN"  # noqa: S105  # the variable's name, not a token
"""Where the environment may hold what viewers beyond this machine must know."""

LONGEST_NAME = 255
"""Bytes of a file's name, on every usual file system."""


@dataclass(frozen=True)
class Shown:
    """One frame as it reaches the sinks. Its arrays are the runner's: valid during the call.

    Attributes:
        frame: the frame.
        segmentation: its labels.
        canvas: (H, W, 3) uint8 BGR, the frame with everything drawn on it; ``None`` where no sink
            of the stream asked for one.
        stats: the stream's figures so far.
    """

    frame: Frame
    segmentation: Segmentation
    canvas: Pixels | None
    stats: StreamStats


class Sink(Protocol):
    """One place where a stream's frames go. Called by one thread at a time."""

    @property
    def needs_canvas(self) -> bool:
        """Whether the next ``Shown.canvas`` must be there."""

    def write(self, shown: Shown) -> None:
        """Take one frame. Raises ``SinkError`` where it cannot."""

    def stale(self, canvas: Pixels) -> None:
        """Show the last frame again, marked as stale: its stream is away. Files ignore this."""

    def close(self) -> str | None:
        """Finish. What was made (a path, an address), or ``None`` where nothing remains.

        Raises ``SinkError``. Safe to call twice.
        """

    def discard(self) -> None:
        """Give up after an error of this sink's own: leave nothing half-written behind."""


class TemporaryFile:
    """A path to write to that becomes the output only when it is whole.

    The temporary name lies beside the output, begins with a dot, carries this process' number and
    keeps the ending, by which muxers choose their format. What a killed run of the same output
    left is removed first.

    Raises:
        SinkError: the directory is missing, cannot be written to, or the output is a directory.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        folder = output.parent
        if output.is_dir():
            raise SinkError(f"'{output}' is a directory; name a file in it")
        if not folder.is_dir():
            raise SinkError(f"'{output}': there is no directory '{folder}'")
        check_writable(folder, str(output))
        self.path = partial_of(output)
        over = len(os.fsencode(self.path.name)) - LONGEST_NAME
        if over > 0:
            raise SinkError(
                f"'{output}': the name is {over} bytes too long, for while it is written the file "
                "carries '.partial' and a number in it"
            )
        remove_leftovers(folder, re.escape(output.stem), re.escape(output.suffix))

    def commit(self) -> None:
        """Put the whole file in the output's place, durably."""
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            self.path.replace(self.output)
        except OSError as error:
            self.remove()
            raise SinkError(f"'{self.output}': {error.strerror or error}") from error

    def remove(self) -> None:
        """Delete the temporary file, if it is there."""
        self.path.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Where this process writes what is to become ``path``; see ``TemporaryFile``."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def check_writable(folder: Path, what: str) -> None:
    """Refuse a directory in which no file can be made. ``what`` begins the message.

    Raises:
        SinkError: no permission.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SinkError(f"'{what}': no permission to write in '{folder}'")


def remove_leftovers(folder: Path, stem: str, suffix: str) -> None:
    """Delete what killed runs left half-written, as ``partial_of`` names it; a run that still lives
    keeps its own.

    Args:
        folder: where to look.
        stem: a regular expression of the output's name without its ending.
        suffix: one of its ending.
    """
    # Nine digits: a longer number is no process', and more than the system call takes.
    pattern = re.compile(rf"\.{stem}\.(\d{{1,9}})\.partial{suffix}")
    for entry in folder.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            with contextlib.suppress(OSError):  # it is only untidy
                entry.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
