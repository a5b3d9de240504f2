"""``python -m pipeline.kernels``: which kernels run here, and why."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

from pipeline.errors import EdgeError
from pipeline.kernels import dispatch
from pipeline.kernels.build import BuildError, UnsafeCacheError, cache_folder, compiler


def report() -> list[tuple[str, str]]:
    """What a bug report needs to know, as pairs of name and value.

    Raises:
        UsageError: a variable asks for what cannot be had.
    """
    mode = dispatch.active().mode
    try:
        library, modes = str(dispatch.library().path), ", ".join(dispatch.available())
    except BuildError as error:
        library, modes = f"none: {error}", dispatch.REFERENCE
    return [
        ("mode", mode),
        ("can run", modes),
        ("threads", str(dispatch.thread_count(None))),
        ("machine", platform.machine()),
        ("compiler", _told(lambda: " ".join(compiler()))),
        ("cache", _told(lambda: str(cache_folder()))),
        ("library", library),
    ]


def _told(what: Callable[[], str]) -> str:
    try:
        return what()
    except (BuildError, UnsafeCacheError) as error:
        return f"none: {error}"


def main() -> int:
    """Print the report; 2 if a variable asks for what cannot be had."""
    try:
        lines = [f"{name:9} {value}\n" for name, value in report()]
    except EdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.writelines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
