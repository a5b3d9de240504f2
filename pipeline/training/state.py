"""What a run is taken up from: ``last.pt``, and whether it was the same run.

A run goes on only as what it began as: the same preset and numbers, and the same ``origin``, which
says in a few words for each option what was trained on, judged by and begun from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from calibration.cityscapes import FramePair
from pipeline.errors import CheckpointError, SinkError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Origin = Mapping[str, str]
"""By option: what it stood for, as a short text that is the same only for the same content."""

_PARTS = ("step", "best", "config", "preset", "origin", "model", "ema", "optimizer", "log",
          "scores")  # fmt: skip


def digest_frames(frames: Iterable[FramePair]) -> str:
    """``367 frames, 1a2b3c4d5e6f``: their number, and a hash of their names and file sizes.

    Sizes stand in for contents, which would take minutes to read; the folder they lie in does not
    count, so a data set may be moved between the parts of a run.
    """
    digest, count = hashlib.sha256(), 0
    for pair in frames:
        sizes = (pair.image.stat().st_size, pair.label.stat().st_size)
        digest.update(os.fsencode(f"{pair.name} {sizes}\n"))
        count += 1
    return f"{count} frames, {digest.hexdigest()[:12]}"


def read_state(
    path: Path, device: torch.device, preset: str, config: DataclassInstance, origin: Origin
) -> dict[str, Any]:
    """The state in ``path`` as it was saved.

    Raises ``CheckpointError`` when it cannot be read, or was another run's: of another preset,
    other numbers, other data or another beginning.
    """
    with reading(path):
        state = torch.load(path, map_location=device, weights_only=True)
        missing = [part for part in _PARTS if part not in state]
    if missing:
        raise CheckpointError(
            f"'{path}' lacks '{missing[0]}': it was written by another version",
            hint="choose another --output; --init takes the best.safetensors beside it",
        )
    for name, now in (("preset", preset), ("config", plain(config)), ("origin", dict(origin))):
        if state[name] != now:
            raise CheckpointError(
                f"'{path}' is of another run: {_difference(name, state[name], now)}",
                hint="use the same options, or another --output",
            )
    return dict(state)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While a state is taken apart: what goes wrong is the file's fault, and a damaged pickle makes
    torch raise anything at all. Only a machine that cannot read it is told apart: nobody shall
    remove hours of training for that."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise CheckpointError(
            f"'{path}' does not fit into the memory that is free",
            hint="end what else uses it, or --device cpu",
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CheckpointError(
            f"'{path}' cannot be read: it is damaged or is no state of a run",
            hint="remove it to begin again, or choose another --output",
        ) from error


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder: two would overwrite each other's best weights.

    Raises ``SinkError`` where another process is in it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SinkError(
                f"--output '{folder}' is in use by another run",
                hint="wait for it, or choose another folder",
            ) from error
        yield
    finally:
        os.close(handle)


def plain(config: DataclassInstance) -> dict[str, Any]:
    """The numbers that decide the steps taken, as plain lists and numbers."""
    values = asdict(config)
    values.pop("every", None)  # how often to look changes nothing
    return {k: _listed(v) for k, v in values.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _difference(name: str, before: Any, now: Any) -> str:
    if not isinstance(before, dict):
        return f"{name} '{before}', not '{now}'"
    changed = [k for k in now if before.get(k) != now[k]]
    return ", ".join(f"{k} {before.get(k)} -> {now[k]}" for k in changed) or f"another {name}"
