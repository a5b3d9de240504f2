"""Pages made of templates: what is put into one is escaped, and what it lacks is an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import MissingDependencyError

if TYPE_CHECKING:
    import jinja2


def environment(folder: Path, *, why: str) -> jinja2.Environment:
    """The templates of a folder.

    Args:
        folder: that holds them.
        why: what is to be made of them, for the error.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingDependencyError("jinja2", "report", why=why) from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
