"""What a build's result says, in lines for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipeline.build_result import BuildResult, BuiltEngine
from pipeline.engines.cpu import overflow_warning
from pipeline.wording import counted, flattered

ALARMING: Final = 0.95
"""Share of labels as fp32 below which INT8 is worth a warning: ours keep 98 to 99.5 %."""
CRUDE: Final = 0.1
"""Share of an FC kernel's output that rounding may lose without a warning: ours lose 0.05."""


@dataclass(frozen=True)
class Line:
    """One line. ``good`` and ``bad`` are verdicts; what is warned of stands out by itself."""

    kind: Literal["say", "warn", "good", "bad"]
    text: str


def lines(result: BuildResult) -> Iterator[Line]:
    """What was built, what the checks said of it, and what to do with it."""
    if result.finetune is not None:
        yield _finetune(result.finetune)
    if result.search is not None:
        yield _search(result.search)
    frames = result.calibration
    if frames is not None and frames["taken"] < frames["requested"]:
        yield Line(
            "warn",
            f"calibrated on {frames['taken']} frames, not {frames['requested']}: there are no more",
        )
    if result.quantized is not None and not result.options.random_weights:
        yield from _rounding(result.quantized.facts.get("rounding", []))
    for each in result.engines:
        yield from _engine(each, random_weights=result.options.random_weights)
    if result.comparison is not None:
        for pair, same in result.comparison["labels"].items():
            yield Line("say", f"{pair}: {same:.2%} of labels are the same")
    for each in result.engines:
        if each.backend == "openvino" and each.path is not None:
            engine = shlex.quote(str(each.path))
            yield Line("say", f"to take it to another CPU: make_bundle.py {engine}")
    if "tensorrt" in result.graphs:
        graph = shlex.quote(str(result.graphs["tensorrt"]))
        yield Line("say", f"to build for an NVIDIA GPU elsewhere: make_bundle.py {graph}")
    yield Line("say", f"{result.seconds:.1f} s")


def _engine(built: BuiltEngine, *, random_weights: bool) -> Iterator[Line]:
    """One engine: its checks, what fell back, the gate, its tuning, and where it is."""
    checks, facts = built.checks, built.artifact.facts
    if checks["engine_agreement"] is not None:
        share = checks["engine_agreement"]
        yield Line("say", f"{built.backend}: agrees with its graph on {share:.2%}")
    else:
        yield Line("warn", f"{built.backend}: built, not executed: {facts['not_executed']}")
    if checks["int8_agreement"] is not None:
        share = checks["int8_agreement"]
        yield Line("say", f"{built.backend}: int8 agrees with fp32 on {share:.2%}")
        if share < ALARMING and not random_weights:
            yield Line(
                "warn",
                "that is few: are the calibration frames like those it will see? "
                "accuracy_report.py tells what it costs",
            )
    overflows = overflow_warning(facts.get("weight_bits"))
    if overflows is not None:
        yield Line("warn", overflows)
    for node in facts.get("float_fallback", ()):
        yield Line("warn", f"'{node}' was to run in int8 and runs in {facts['nodes'][node]}")
    if built.gate is not None:
        verdict = built.gate.verdict
        told = f"{built.backend} {built.gate.scored}: {built.gate.headline}"
        yield Line("good" if verdict.passed else "bad", told)
        for reason in verdict.reasons:
            yield Line("say", f"  {reason}")
        if built.gate.calibrated:
            text = flattered(built.gate.calibrated, built.gate.frames, "it")
            yield Line("warn", f"{built.backend}: {text}")
    if built.tuning is not None:
        yield from _tuning(built.backend, built.tuning)
    if built.other is not None:
        yield Line("warn", f"it replaces an engine that was built by: {built.other}")
    yield Line("say", "not published" if built.path is None else str(built.path))


def _rounding(layers: list[dict[str, Any]]) -> Iterator[Line]:
    """The FC kernel that one scale serves worst, where that is bad."""
    if not layers:
        return
    lost, layer = max((min(each["nearest"], each["compensated"]), each["layer"]) for each in layers)
    if lost > CRUDE:
        yield Line(
            "warn",
            f"rounding loses {lost:.0%} of the output of '{layer}': one INT8 scale is "
            "too few for its weights; --injection auto splits the blocks where that pays",
        )


def _finetune(found: dict[str, Any]) -> Line:
    """What the fine-tuning brought, or that it brought nothing."""
    if not found["kept"]:
        return Line(
            "warn",
            "fine-tuning brought INT8 no nearer to fp32 on held-out frames: its weights are as "
            "they were",
        )
    before, after = found["labels_before"], found["labels_after"]
    return Line(
        "say",
        f"fine-tuned: on {found['held_out']} held-out frames {after:.2%} of labels as fp32, "
        f"{before:.2%} before",
    )


def _search(found: dict[str, Any]) -> Line:
    """What was left in float, or why nothing was."""
    layers = found["floating"]
    if not layers:
        return Line(
            "warn",
            "the search left nothing in float: frames of the calibration split lose no more than "
            "the limits allow, so they cannot say what val needs",
        )
    share = found["float_share"]
    return Line("say", f"in float, {share:.1%} of the multiply-adds: {', '.join(layers)}")


def _tuning(backend: str, found: dict[str, Any]) -> Iterator[Line]:
    """What was chosen, what it gives a tile, and what it is better than.

    By the tile, so that engines of different ``--batch`` can be compared.
    """
    for goal in ("latency", "throughput"):
        chosen = found[goal]["chosen"]
        figures = next(
            each
            for each in found[goal]["candidates"]
            if all(each[key] == value for key, value in chosen.items())
        )
        streams, threads = chosen["streams"], figures["threads_taken"]
        setup = f"{counted(streams, 'stream')} on {counted(threads, 'thread')}"
        speed = f"{figures['tiles_per_second']:.1f} tiles/s"
        if goal == "latency":
            speed = f"{figures['ms'] / found['tiles']:.1f} ms a tile, {figures['ms']:.1f} ms in all"
        gain = found[goal]["gain"]
        better = "the default; nothing beat it"
        if gain is not None:
            better = (
                f"{gain['value']:.2f} times the default ({gain['low']:.2f} to {gain['high']:.2f})"
            )
        yield Line(
            "say", f"{backend}: for {goal} {setup}, {chosen['slots']} slots: {speed}; {better}"
        )
    if found["load"]["loaded"] is not None:
        yield Line(
            "warn",
            f"tuned on a busy machine: {found['load']['loaded']}; remove the tune-* folder in "
            ".store to measure again",
        )
