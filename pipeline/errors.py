"""Typed errors. The library raises them; only the command line renders them and exits.

Every message is one line that names the file, option or node at fault and says what to do.
"""

from __future__ import annotations

from pathlib import Path


class EdgeError(Exception):
    """Base of every error a user can cause or can mend. Commands print it and exit with code 2.

    Attributes:
        hint: what to do about it, one line, or ``None`` where the message already says so.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EdgeError):
    """An option or argument cannot be what was asked for."""


class MissingDependencyError(EdgeError):
    """A package that this step needs is not installed. Names the extra to install."""

    def __init__(self, package: str, extra: str, *, why: str) -> None:
        super().__init__(
            f"{why} needs the package '{package}', which is not installed",
            hint=f"pip install -e '.[{extra}]' in this project's folder",
        )


class DatasetError(EdgeError):
    """A data set is missing, empty, or holds a file that cannot be read as what it claims."""


class CheckpointError(EdgeError):
    """A checkpoint cannot be read, is unsafe, or does not fit the preset."""


class ArtifactError(EdgeError):
    """An artifact is missing, half-written, altered, or was built for something else."""


class CheckFailedError(EdgeError):
    """A stage's own check refused its output: the result is wrong, so nobody may use it."""


class EngineError(EdgeError):
    """An engine cannot be opened or run here."""


class SourceError(EdgeError):
    """A video source does not open, stalls, or ends before its first frame."""


class SinkError(EdgeError):
    """An output cannot be written."""


def merged_already(checkpoint: Path, form: str) -> CheckFailedError:
    """Of a form of injection asked for of a checkpoint in deploy form."""
    return CheckFailedError(
        f"'{checkpoint}' is in deploy form: its branches are merged already, and injection "
        f"'{form}' can change nothing",
        hint="leave --injection out, or give the checkpoint it was made of",
    )


def last_line(text: str) -> str:
    """The last line that a tool said before it failed; for a message that quotes it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
