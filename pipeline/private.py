"""Where this user keeps what is used again, and whether anyone else could have put it there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "REPMLP_EDGE_CACHE"


def cache_root() -> Path | None:
    """``$REPMLP_EDGE_CACHE``, or the user's cache folder; ``None`` for a user without a home."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        # Not Path.expanduser, which raises where there is no such user.
        return Path(os.path.expanduser(chosen)).absolute()  # noqa: PTH111
    try:
        return user_cache_path("repmlp-edge").absolute()
    except RuntimeError:
        return None


def distrust(folder: Path) -> str | None:
    """Make the folder; why what lies in it is not to be run, or ``None`` where only we write it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        above = [path.stat() for path in folder.resolve().parents]
    except OSError as error:
        return f"cannot use {folder}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return f"{folder} is not a folder of this user"
    if found.st_mode & 0o022:
        return f"{folder} can be written by other users; chmod 700 it"
    if any(each.st_mode & stat.S_IWOTH and not each.st_mode & stat.S_ISVTX for each in above):
        return f"a folder above {folder} can be written by every user"
    return None
