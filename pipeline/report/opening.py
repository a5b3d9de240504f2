"""The engines of a report: opened where they are named by a path, built where by a precision.

Nothing is printed here: who calls is told what happens, line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from calibration.cityscapes import FramePair
from calibration.frames import DEFAULT_COUNT
from pipeline import DEFAULT_SHAPE, PRECISIONS, Backend, Injection, Precision
from pipeline.console import BUILD_PACKAGES, require
from pipeline.errors import UsageError
from pipeline.report.run import Subjects
from pipeline.report.subjects import (
    Graphs,
    Subject,
    check_same_weights,
    checkpoint_of,
    exact_graph_of,
    graphs_of,
    open_subject,
    preset_of,
    told_apart,
)

if TYPE_CHECKING:
    from pipeline.build import BuildResult

Tell: TypeAlias = Callable[[str], None]
"""Takes one line for a person."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The two engines, and how what is not there yet is built.

    Attributes:
        reference, candidate: an engine's path, or one of ``PRECISIONS``.
        allow_host_code: see ``open_engine``; of TensorRT engines that are named by a path.
        engines: folder of the engines that are built.
        train_form: whether a candidate that is built keeps its branches apart, for study.
        backend, injection, dataset, frames: see ``BuildOptions``.
        shape, preset, checkpoint: the same; where ``None``, those of the engine that is compared.
    """

    reference: str
    candidate: str
    allow_host_code: bool = False
    engines: Path
    train_form: bool = False
    backend: Backend
    injection: Injection
    dataset: Path | None = None
    frames: int = DEFAULT_COUNT
    shape: tuple[int, int] | None = None
    preset: str | None = None
    checkpoint: Path | None = None


def open_subjects(
    wanted: Wanted, stack: ExitStack, *, with_exact: bool, say: Tell, warn: Tell
) -> Subjects:
    """Open what has a path, build and open what is a precision, find the exact graph.

    Args:
        wanted: the engines.
        stack: closes them.
        with_exact: whether the candidate's exact graph is opened too.
        say: told of builds.
        warn: told where another engine is left as it is.

    Raises:
        UsageError: engines that cannot be compared, see also ``check_same_weights``.
        EdgeError: what opening or building raises, see ``open_engine`` and ``build``.
    """
    asked = {"--reference": wanted.reference, "--candidate": wanted.candidate}
    found: dict[str, Subject] = {}
    precisions: dict[str, Precision] = {each: each for each in PRECISIONS}
    for option, name in asked.items():
        if name in precisions:
            continue
        path = Path(name)
        allow = wanted.allow_host_code and path.suffix == ".engine"
        found[option] = _opened(path.stem, path, stack, allow_host_code=allow)
    for option, name in asked.items():
        if name in precisions:
            other = next(iter(found.values()), None)
            result = _built(wanted, option, precisions[name], other, say)
            if option == "--candidate":
                _warn_of_others(result, warn)
            found[option] = _opened(name, result.engine, stack)
            if other is not None:
                check_same_weights(option, found[option], other)
    if sorted(found["--reference"].files.values()) == sorted(found["--candidate"].files.values()):
        raise UsageError(
            f"--reference {wanted.reference} and --candidate {wanted.candidate} are the same "
            "engine, which loses nothing against itself: name two"
        )
    reference, candidate = told_apart(found["--reference"], found["--candidate"])
    graph = exact_graph_of(candidate)
    exact = _opened("exact graph", graph, stack) if graph and with_exact else None
    subjects = Subjects(reference, candidate, exact)
    subjects.check()
    return subjects


def _opened(name: str, path: Path, stack: ExitStack, *, allow_host_code: bool = False) -> Subject:
    subject = open_subject(name, path, allow_host_code=allow_host_code)
    stack.callback(subject.engine.close)
    return subject


def _built(
    wanted: Wanted, option: str, precision: Precision, other: Subject | None, say: Tell
) -> BuildResult:
    """Build the engine of that option, or find it; of the other one's size, preset and weights
    where not told."""
    require(*BUILD_PACKAGES, extra="build", why=f"building the {precision} engine")
    from pipeline.build import BuildOptions, build

    shape, preset = wanted.shape, wanted.preset
    if other is not None:
        height, width = other.engine.inputs[0].shape[1:3]
        if shape not in (None, (height, width)):
            raise UsageError(
                f"--shape {shape[0]}x{shape[1]}: the engine it is compared with takes "
                f"{height}x{width}"
            )
        shape = (height, width)
        if preset is None and wanted.checkpoint is None:
            preset = preset_of(other)
    checkpoint = wanted.checkpoint or (checkpoint_of(other) if other is not None else None)
    train_form = wanted.train_form and option == "--candidate"
    say(f"{precision}: building the engine, or finding it in '{wanted.engines}'")
    return build(
        BuildOptions(
            precision=precision, backend=wanted.backend, checkpoint=checkpoint,
            preset=preset, shape=shape or DEFAULT_SHAPE, dataset=wanted.dataset,
            frames=wanted.frames, output=wanted.engines,
            injection="train" if train_form else wanted.injection, replace_other=False,
        )
    )  # fmt: skip


def _warn_of_others(result: BuildResult, warn: Tell) -> None:
    for each in result.engines:
        if each.other is not None:
            warn(
                f"judging '{each.path}'; the engine of its usual name was built otherwise and is "
                f"left as it is, --candidate judges it: {each.other}"
            )


def graphs_to_rank(subjects: Subjects) -> Graphs:
    """The graphs behind the candidate.

    Raises ``UsageError`` where there are none, or where the two no longer share their weights.
    """
    manifest = subjects.candidate.manifest
    if manifest and manifest.provenance.get("finetune", {}).get("finetune", {}).get("kept"):
        raise UsageError(
            f"--sensitivity: {subjects.candidate.path} is fine-tuned: its layers were taught "
            "together and cannot be judged one by one against the float graph",
            hint="rank the engine that is built without --finetune",
        )
    graphs = graphs_of(subjects.candidate, subjects.reference)
    if graphs is None:
        raise UsageError(
            "--sensitivity needs a candidate whose Q/DQ graph and float graph are at hand",
            hint="give --candidate int8, an engine in the folder it was built in, or two .onnx "
            "files, quantized and float",
        )
    require("onnx", extra="build", why="ranking layers")
    return graphs


def check_bisectable(subjects: Subjects) -> None:
    """Raise ``UsageError`` where ``bisect`` could not look."""
    if subjects.candidate.engine.info.backend != "openvino" or subjects.exact is None:
        raise UsageError("--bisect needs an OpenVINO candidate whose exact graph is at hand")


def bisect(graph: Subject, frame: FramePair) -> str | None:
    """The first node at which the engine leaves its graph, by running both cut there.

    Args:
        graph: the exact graph, open.
        frame: what both are shown.
    """
    import onnx

    from calibration.frames import load
    from pipeline.divergence import first_divergence, trace

    batch, height, width, _channels = graph.engine.inputs[0].shape
    stack = np.repeat(load(frame, (height, width))[None], batch, 0)
    cut = first_divergence(trace(onnx.load(graph.path), stack))
    return None if cut is None else f"{cut.node} ({cut.kind}), by {cut.error:.1%} of its norm"
