"""The gate at the end of a build: the report's own evaluation and its own rule, nothing more.

Scores are kept beside the artifacts under a key over everything they depend on, so that the same
build asked again scores nothing, an interrupted one goes on, and limits may change for free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import hash_of
from pipeline.build_options import GateLimits
from pipeline.report.evaluate import evaluate
from pipeline.report.frames import CheckedFrames
from pipeline.report.records import LAYOUT_VERSION, StateFile
from pipeline.report.subjects import Subject, machine
from pipeline.report.verdict import Verdict, gate, headline

SPLIT = "val"


@dataclass(frozen=True)
class Outcome:
    """What the gate said of one engine.

    ``scored`` says what was executed: ``engine``, or ``exact graph`` where that cannot run here.
    """

    verdict: Verdict
    frames: int
    scored: str

    @property
    def headline(self) -> str:
        """One line."""
        return headline(self.verdict)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; IoU figures in points, 0 to 100."""
        found = self.verdict
        return {
            "passed": found.passed, "split": SPLIT, "frames": self.frames, "scored": self.scored,
            "reference": {"precision": "fp32", "miou": found.reference},
            "candidate": {"miou": found.candidate},
            "drop": found.drop, "max_drop": found.max_drop,
            "worst_class": {"name": found.worst.name, "drop": found.worst.drop},
            "max_class_drop": found.max_class_drop, "reasons": list(found.reasons),
        }  # fmt: skip


def hold(
    reference: Subject, candidate: Subject, frames: CheckedFrames, limits: GateLimits,
    scores: Path, on_frame: Callable[[int, int], None] | None = None,
) -> Outcome:  # fmt: skip
    """Score both on the frames and hold the candidate to the limits.

    Args:
        reference: fp32, open.
        candidate: the engine in question, or its exact graph, open.
        frames: to score, all of them.
        limits: the most that may be lost.
        scores: the file in which they are kept.
        on_frame: called with (frames done, frames in all).

    Raises:
        EngineError: engines that cannot be compared, or that fail.
        DatasetError, CalibrationDataError: frames that cannot be scored.
        ArtifactError: another process is scoring this engine.
        SinkError: the scores cannot be written.
    """
    count = len(frames.names)
    about = {
        "layout": LAYOUT_VERSION,
        "engines": [reference.identity(), candidate.identity()],
        "frames": frames.digest,
        "machine": machine(),
    }
    with StateFile(scores, hash_of(about)) as kept:
        records = evaluate(
            frames, reference.contestant, candidate.contestant, records=kept,
            on_frame=None if on_frame is None else lambda done: on_frame(done, count),
        )  # fmt: skip
        verdict = gate(
            records["reference"], records["candidate"], limits.max_drop, limits.max_class_drop
        )
    exact = candidate.engine.info.backend == "onnxruntime"
    return Outcome(verdict, count, "exact graph" if exact else "engine")
