"""What streams are called: on the picture, in figures, and in the names of their files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.video.source import SourceSpec


def printable(text: str) -> str:
    """A name as given on the command line, as text that can be encoded, drawn and printed.

    Linux takes any bytes for a file name. Python carries those that are no UTF-8 as lone
    surrogates, which no encoder takes and of which OpenCV's drawing of text crashes.
    """
    return os.fsencode(text).decode("utf-8", "replace")


def title(spec: SourceSpec) -> str:
    """What stands on the picture: a file's name is enough there."""
    return printable(Path(spec.name).name if spec.kind in ("file", "images") else spec.name)


def display_names(names: Sequence[str]) -> list[str]:
    """The names, those that are there already with a number behind: ``a``, ``a`` -> ``a #2``.

    Two channels of one recorder differ in the URL's query alone, which is not shown.
    """
    return _numbered(names, " #{}")


def file_names(names: Sequence[str]) -> list[str]:
    """Names that file systems take, one for each, no two alike: ``rtsp://a/b`` -> ``a-b``."""
    plain = []
    for name in names:
        bare = re.sub(r"^[a-z]+://", "", name)
        bare = re.sub(r"[^A-Za-z0-9_.]+", "-", bare).strip("-.")
        plain.append(bare[-64:] or "source")
    return _numbered(plain, "-{}")


def output_paths(output: Path, streams: Sequence[str]) -> list[Path]:
    """The file of each stream: as asked for, with the stream's name where there are several."""
    if len(streams) == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{name}") for name in streams]


def label_folders(labels: Path, streams: Sequence[str]) -> list[Path]:
    """The directory of each stream's labels: as asked for, or one in it for each of several."""
    return [labels] if len(streams) == 1 else [labels / name for name in streams]


def _numbered(names: Sequence[str], ending: str) -> list[str]:
    found: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = name + ending.format(number)
        found.append(unique)
    return found
