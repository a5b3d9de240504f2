"""Label maps: a data set that means something else by its classes, told in a small JSON file.

``{"bus": "car", "truck": "car", "rider": "ignore"}`` maps train ids by their Cityscapes names;
classes left out stay themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import CLASS_NAMES, IGNORE
from pipeline.errors import UsageError

_MAX_BYTES = 1 << 16


def read_label_map(path: Path) -> npt.NDArray[np.uint8]:
    """Table of 256 train ids: ``table[old] = new``.

    Raises ``UsageError`` naming the file and the entry that is not a class.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"'{path}' is too large for a label map")
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"'{path}' is not a label map: {error}") from error
    if not isinstance(entries, dict):
        raise UsageError(f"'{path}' is not a label map: it must be an object of class names")
    table = np.arange(256, dtype=np.uint8)
    for old, new in entries.items():
        table[_train_id(old, path)] = _train_id(new, path)
    return table


def _train_id(name: object, path: Path) -> int:
    if name == "ignore":
        return IGNORE
    if not isinstance(name, str) or name not in CLASS_NAMES:
        raise UsageError(
            f"'{path}': '{name}' is no class; there are {', '.join(CLASS_NAMES)} and ignore"
        )
    return CLASS_NAMES.index(name)
