"""Engines whose device hangs: kept for the rest of the process, because nothing may free them.

To free what a GPU still reads and writes is undefined, and TensorRT's destructors may wait for it
for ever. So neither happens: the objects stay here, and the process leaves without the
interpreter's farewell, which would destroy them.
"""

from __future__ import annotations

import warnings
from typing import Any

_abandoned: list[Any] = []


def abandon(name: str, *held: Any) -> None:
    """Keep what an engine held, and warn of it.

    Args:
        name: the engine's, for the warning.
        held: everything that would be freed or destroyed.
    """
    _abandoned.append(held)
    warnings.warn(
        f"engine '{name}': the GPU did not answer in time, so nothing of the engine is freed before"
        " this process ends",
        RuntimeWarning,
        stacklevel=3,
    )


def engines_left_behind() -> bool:
    """Whether there are any. Then the process must be left without the interpreter's farewell."""
    return bool(_abandoned)
