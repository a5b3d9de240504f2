"""The whole report, from open engines to written files.

Scores are kept in ``OUTPUT/evaluation.state`` under a key over everything they depend on: contents
of the engines, versions, machine, contents of the frames. The same report asked for again scores
nothing; an interrupted one goes on; limits may change without scoring anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calibration.cityscapes import FramePair
from pipeline.artifact import hash_of
from pipeline.report.bootstrap import RESAMPLES
from pipeline.report.evaluate import check_comparable, evaluate
from pipeline.report.frames import CheckedFrames, choose
from pipeline.report.pictures import picture_frames
from pipeline.report.records import LAYOUT_VERSION, RecordArray, StateFile
from pipeline.report.render import ReportFiles, write_report
from pipeline.report.schema import Report, SensitivityRow
from pipeline.report.subjects import Graphs, Subject, machine, patch_of
from pipeline.report.summarise import ReportOptions, summarise
from pipeline.report.verdict import MAX_CLASS_DROP, MAX_DROP

STATE_NAME: Final = "evaluation.state"
EXACT_FRAMES: Final = 20
"""Frames the exact graph scores unless told otherwise: it is many times slower than an engine."""

SENSITIVITY_FRAMES: Final = 8
"""Frames that rank the layers unless told otherwise: each layer is a run of the exact graph over
all of them."""

Notify = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


Bisect = Callable[[Subject, FramePair], "str | None"]
"""Given the exact graph and a frame, finds the first node at which the engine leaves it."""


@dataclass(frozen=True)
class RunOptions:
    """What to report.

    Attributes:
        output: folder of the report.
        max_drop: see ``verdict``, points.
        max_class_drop: see ``verdict``, points.
        exact_frames: how many frames the exact graph scores; ``None`` for all.
        patch: (height, width) of the network's patches in pixels of its input; ``None`` for what
            the candidate says of itself.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        fresh: forget what an earlier run scored.
        dataset: facts on the data set for the report's provenance, plain JSON.
        sensitivity: the candidate's graphs, to rank their layers; ``None`` ranks none.
        sensitivity_frames: how many frames rank them.
    """

    output: Path
    max_drop: float = MAX_DROP
    max_class_drop: float = MAX_CLASS_DROP
    exact_frames: int | None = EXACT_FRAMES
    patch: tuple[int, int] | None = None
    resamples: int = RESAMPLES
    seed: int = 0
    fresh: bool = False
    dataset: dict[str, Any] | None = None
    sensitivity: Graphs | None = None
    sensitivity_frames: int = SENSITIVITY_FRAMES


@dataclass(frozen=True)
class Subjects:
    """The open engines: reference, candidate, and the candidate's exact graph if it is known."""

    reference: Subject
    candidate: Subject
    exact: Subject | None = None

    def check(self) -> None:
        """Refuse engines that cannot be compared, see ``check_comparable``."""
        check_comparable([each.contestant for each in self.all()])

    def all(self) -> list[Subject]:
        """Those there are."""
        return [self.reference, self.candidate, *([self.exact] if self.exact else [])]


def make_report(
    subjects: Subjects,
    frames: CheckedFrames,
    options: RunOptions,
    notify: Notify = lambda what, done, total: None,
    bisect: Bisect | None = None,
) -> tuple[Report, ReportFiles]:
    """Score what is not scored yet, and write the report.

    Args:
        subjects: the open engines.
        frames: what to score.
        options: see there.
        notify: told of progress.
        bisect: asked for the node at fault where the drop is the engine's.

    Raises:
        EngineError: engines that cannot be compared, or that fail.
        DatasetError, CalibrationDataError: frames that cannot be scored.
        ArtifactError: another process is writing this report.
        SinkError: the output cannot be written.
        UsageError: limits that cannot be.
        QuantizedGraphError: graphs to rank that are not of one network.
        KeyboardInterrupt: what was scored and ranked so far is kept.
    """
    patch = options.patch or patch_of(subjects.candidate)
    chosen = choose(len(frames.names), options.exact_frames) if subjects.exact else []
    reference, candidate = subjects.reference.contestant, subjects.candidate.contestant
    key = hash_of(
        {
            "layout": LAYOUT_VERSION,
            "engines": [subject.identity() for subject in subjects.all()],
            "exact": chosen,
            "frames": frames.digest,
            "patch": patch,
            "machine": machine(),
        }
    )
    count = len(frames.names)
    with StateFile(options.output / STATE_NAME, key) as state:
        if options.fresh:
            state.clear()
        resumed = state.resumed
        notify("scoring", resumed, count)
        records = evaluate(
            frames,
            reference,
            candidate,
            subjects.exact.contestant if subjects.exact else None,
            exact_frames=frozenset(chosen),
            patch=patch,
            records=state,
            on_frame=lambda done: notify("scoring", done, count),
        )
        rows = _sensitivity(frames, options, notify)
        report = summarise(
            records,
            frames.names,
            ReportOptions(
                max_drop=options.max_drop,
                max_class_drop=options.max_class_drop,
                resamples=options.resamples,
                seed=options.seed,
                reference=reference.name,
                candidate=candidate.name,
                patch=patch,
                # The candidate's alone: where they fitted the reference, they flatter nobody.
                calibrated_frames=subjects.candidate.calibrated_on(frames),
                left_out=frames.problems,
                sensitivity=rows,
                sensitivity_frames=None if rows is None else _ranking_frames(frames, options),
                float_layers=subjects.candidate.float_layers(),
                provenance=_provenance(subjects, frames, options, resumed),
            ),
        )
        found = report.attribution
        if bisect and subjects.exact and found and found.cause in ("engine", "both"):
            node = bisect(subjects.exact, frames.pairs[chosen[0]])
            found = found.model_copy(update={"first_difference": node})
            report = report.model_copy(update={"attribution": found})
        middling = _middling(records) if report.patch_edges else None
    wanted = [changed.index for changed in report.changed_frames]
    if middling is not None and middling not in wanted:
        wanted.append(middling)
    pictures = picture_frames(
        frames,
        reference,
        candidate,
        wanted,
        patch=patch,
        on_frame=lambda done: notify("picturing", done, len(wanted)),
    )
    figure = next((picture for picture in pictures if picture.index == middling), None)
    return report, write_report(options.output, report, pictures, figure)


def _ranking_frames(frames: CheckedFrames, options: RunOptions) -> int:
    return min(options.sensitivity_frames, len(frames.names))


def _sensitivity(
    frames: CheckedFrames, options: RunOptions, notify: Notify
) -> tuple[SensitivityRow, ...] | None:
    """Layers by what quantizing each alone does, if that was asked for."""
    if options.sensitivity is None:
        return None
    from pipeline.report.sensitivity import STATE_NAME as SENSITIVITY_NAME
    from pipeline.report.sensitivity import measure  # needs onnx, which reports else do not

    if options.fresh:
        (options.output / SENSITIVITY_NAME).unlink(missing_ok=True)
    rows = measure(
        options.sensitivity,
        frames,
        choose(len(frames.names), _ranking_frames(frames, options)),
        state=options.output / SENSITIVITY_NAME,
        digest=frames.digest,
        notify=lambda done, total: notify("ranking layers", done, total),
    )
    return tuple(rows)


def _middling(records: RecordArray) -> int:
    """The frame of median disagreement."""
    shares = records["differ"][:, 0] / records["pixels"]
    return int(shares.argsort(kind="stable")[len(shares) // 2])


def _provenance(
    subjects: Subjects, frames: CheckedFrames, options: RunOptions, resumed: int
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "candidate": subjects.candidate.provenance(),
        "reference": subjects.reference.provenance(),
        "dataset": {
            **(options.dataset or {}),
            "frames": len(frames.names),
            "left out": len(frames.problems),
            "contents sha256": frames.digest,
        },
        "machine": machine(),
        "evaluation": {
            "frames scored by an earlier run": resumed,
            "bootstrap resamples": options.resamples,
            "bootstrap seed": options.seed,
        },
    }
    if subjects.exact is not None:
        found["exact graph"] = {
            "file": subjects.exact.path.name,
            "sha256": dict(subjects.exact.files),
        }
    return found
