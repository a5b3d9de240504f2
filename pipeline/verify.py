"""Comparison of an engine with the graph it came from, on real frames.

Labels are what users see, so labels are what is compared: the argmax of the logits at stride 4.
Agreement is the share of positions at which two networks name the same class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import IGNORE
from pipeline.engines.base import Engine
from pipeline.errors import CheckFailedError

MIN_AGREEMENT = 0.98
"""Share of positions at which an engine must name the class its graph does, if nobody says else."""

_ACCEPTS = "a lower --min-agreement accepts an engine that departs from its graph"
_CHECK_MULTIPLY_ADDS = 40e9


@dataclass(frozen=True)
class Agreement:
    """Two networks on the same frames.

    Attributes:
        labels: share of positions with the same class, 0 to 1.
        worst: the same on the frame where it is lowest.
        logits: ||a - b|| / ||b|| over all frames.
        frames: how many were compared.
    """

    labels: float
    worst: float
    logits: float
    frames: int

    def as_json(self) -> dict[str, float | int]:
        """Plain JSON, rounded to what is meaningful."""
        return {
            "labels": round(self.labels, 6), "worst_frame": round(self.worst, 6),
            "logits_error": round(self.logits, 9), "frames": self.frames,
        }  # fmt: skip


class AgreementMeter:
    """Adds up pairs of logits (N, C, H, W) batch by batch."""

    def __init__(self) -> None:
        self._same: list[float] = []
        self._error = 0.0
        self._norm = 0.0

    def add(self, mine: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> None:
        """One batch of each. Logits that are not finite agree with nothing."""
        finite = np.isfinite(mine).all(axis=1)
        same = (mine.argmax(axis=1) == reference.argmax(axis=1)) & finite
        self._same += [float(s) for s in same.reshape(len(mine), -1).mean(axis=1)]
        gap = mine.astype(np.float64) - reference.astype(np.float64)
        self._error += float(
            np.square(np.nan_to_num(gap, nan=1e30, posinf=1e30, neginf=1e30)).sum()
        )
        self._norm += float(np.square(reference.astype(np.float64)).sum())

    def result(self) -> Agreement:
        """What was added so far. Raises ``ValueError`` when that is nothing."""
        if not self._same:
            raise ValueError("nothing was compared")
        error = float(np.sqrt(self._error / self._norm)) if self._norm else float("inf")
        return Agreement(float(np.mean(self._same)), min(self._same), error, len(self._same))


def labels_of(output: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """What an engine names: its labels, or the classes of its logits' positions, 255 for no number.

    Args:
        output: labels uint8 (N, H, W), or logits float32 (N, C, h, w).
    """
    if output.ndim == 3:
        return np.asarray(output, np.uint8)
    named = output.argmax(axis=1).astype(np.uint8)
    named[~np.isfinite(output).all(axis=1)] = IGNORE
    return np.asarray(named, np.uint8)


def label_agreement(
    engine: Engine, stacks: Iterable[npt.NDArray[np.uint8]],
    labels: Iterable[npt.NDArray[np.uint8]],
) -> dict[str, float | int]:  # fmt: skip
    """An engine against labels that were made before, as ``Agreement.as_json`` without the logits.

    Args:
        engine: open.
        stacks: K of (N, H, W, 3) uint8 BGR.
        labels: K of (N, ...), what ``labels_of`` gave for them.

    Raises:
        EngineError: it fails.
    """
    same: list[float] = []
    for stack, wanted in zip(stacks, labels, strict=True):
        equal = labels_of(engine.infer(stack)) == wanted
        same += [float(s) for s in equal.reshape(len(wanted), -1).mean(axis=1)]
    return {"labels": float(np.mean(same)), "worst_frame": min(same), "frames": len(same)}


def require_agreement(
    labels: float, asked: float, what: str, why: Callable[[], str] | None = None, *,
    hint: str | None = None,
) -> None:  # fmt: skip
    """Raise ``CheckFailedError`` where an engine is not its graph.

    Args:
        labels: share of positions at which the two name the same class; NaN is too few.
        asked: the least share, both 0 to 1.
        what: the engine, as the message begins.
        why: says how the message ends; it may take its time, and is asked only then.
        hint: what to do.
    """
    if labels >= asked:
        return
    ending = "" if why is None else f"; {why()}"
    raise CheckFailedError(
        f"{what} is not its graph: they name the same class on {labels:.2%} of positions (asked "
        f"for {asked:.2%}){ending}",
        hint=hint,
    )


def departing_hint(precision: str) -> str:
    """What to try with an engine of that precision that is not its graph.

    It names ``build_engine.py``, because other commands build engines too and lack its options.
    """
    tried = ""
    if "int8" in precision:  # only int8 is calibrated
        tried = "more --frames, another --estimator or --injection; "
    elif precision == "fp16":
        tried = "--precision fp32; "
    return f"build_engine.py with {tried}{_ACCEPTS}"


def check_count(multiply_adds_per_batch: int, most: int) -> int:
    """How many batches a comparison can afford: fewer the dearer the network, at least one."""
    return int(np.clip(_CHECK_MULTIPLY_ADDS // max(multiply_adds_per_batch, 1), 1, most))


def batches(
    frames: Iterable[npt.NDArray[np.uint8]], size: int, limit: int
) -> Iterable[npt.NDArray[np.uint8]]:
    """Stacks of ``size`` frames (size, H, W, 3), at most ``limit`` of them.

    Frames that do not fill a stack are left out: a frame that fills it up would count twice. Where
    there are fewer than one stack takes, it is filled up all the same.
    """
    held: list[npt.NDArray[np.uint8]] = []
    given = 0
    for frame in frames:
        held.append(frame)
        if len(held) == size:
            yield np.stack(held)
            held, given = [], given + 1
            if given == limit:
                return
    if held and not given:
        yield np.stack(held + [held[-1]] * (size - len(held)))


def compare(
    engine: Engine, references: Mapping[str, Engine], stacks: Iterable[npt.NDArray[np.uint8]]
) -> dict[str, Agreement]:
    """The engine against each reference on the same stacks of frames.

    Args:
        engine: open; gives logits (N, C, H/4, W/4) float32.
        references: by name, open, of the same input and output.
        stacks: (N, H, W, 3) uint8 BGR.

    Raises:
        EngineError: one of them fails.
    """
    meters = {name: AgreementMeter() for name in references}
    for stack in stacks:
        mine = engine.infer(stack)
        for name, reference in references.items():
            meters[name].add(mine, reference.infer(stack))
    return {name: meter.result() for name, meter in meters.items()}
