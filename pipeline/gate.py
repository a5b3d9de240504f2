"""The gate at the end of a build: the report's own evaluation and its own rule, nothing more.

Scores are kept beside the artifacts under a key over everything they depend on, so that the same
build asked again scores nothing, an interrupted one goes on, and limits may change for free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.frames import FrameList
from pipeline.artifact import hash_of
from pipeline.build_options import GateLimits
from pipeline.errors import DatasetError
from pipeline.report.evaluate import evaluate
from pipeline.report.frames import CheckedFrames
from pipeline.report.records import LAYOUT_VERSION, StateFile
from pipeline.report.subjects import Subject, machine
from pipeline.report.verdict import Verdict, gate, headline
from pipeline.wording import counted

SPLIT = "val"


@dataclass(frozen=True)
class Outcome:
    """What the gate said of one engine.

    ``scored`` says what was executed: ``engine``, or ``exact graph`` where that cannot run here.
    ``calibrated`` counts the frames that calibrated it as well: the verdict flatters.
    """

    verdict: Verdict
    frames: int
    scored: str
    calibrated: int = 0

    @property
    def headline(self) -> str:
        """One line."""
        return headline(self.verdict)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; IoU figures in points, 0 to 100."""
        found = self.verdict
        return {
            "passed": found.passed, "split": SPLIT, "frames": self.frames, "scored": self.scored,
            "calibrated": self.calibrated,
            "reference": {"precision": "fp32", "miou": found.reference},
            "candidate": {"miou": found.candidate},
            "drop": found.drop, "max_drop": found.max_drop,
            "worst_class": {"name": found.worst.name, "drop": found.worst.drop},
            "max_class_drop": found.max_class_drop, "reasons": list(found.reasons),
        }  # fmt: skip


def check_unseen(
    calibrating: FrameList | None, scoring: CheckedFrames | None, *, forced: bool
) -> None:
    """Refuse to judge by frames that calibrate, before anything is built.

    They are told by their files' contents, so that a link or a copy deceives nobody.

    Args:
        calibrating: what calibrates, if anything does.
        scoring: what the gate scores, if there is one.
        forced: let it pass; ``Outcome.calibrated`` says it then.

    Raises:
        DatasetError: some frames do both; counted, the first named.
    """
    if calibrating is None or scoring is None or forced:
        return
    both = scoring.among({frame.sha256 for frame in calibrating.frames})
    if both:
        raise DatasetError(
            f"{len(both)} of {counted(len(scoring.names), 'frame')} of '{SPLIT}', which the gate "
            f"scores, calibrate as well, the first is {both[0]}: they cannot tell what INT8 loses "
            "on others",
            hint="keep the splits apart (is one a link to the other?), or give --force-split to "
            "be warned instead",
        )


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
    return Outcome(
        verdict, count, "exact graph" if exact else "engine", candidate.calibrated_on(frames) or 0
    )
