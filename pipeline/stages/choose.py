"""Which blocks to inject whole and which to split: what INT8 loses in each, against what it costs.

Both forms are lowered and quantized from the same frames. Then, block by block and by measurement:

* *error*: the block alone in int8 and all else in float, executed exactly; e = ||logits - float's||
  / ||float's||, in either form.
* *extra*: the time of the split engine minus its time without that one convolution and its sum.
  Engines take turns, so that what slows the machine slows all of them; medians of the differences.

A block is split where that removes a greater share of the error than it adds to the time:

    (e_full^2 - e_split^2) / sum over blocks of e_full^2   >   extra / time of the engine unsplit

and is more than ``LEAST_SHARE``: times below what can be measured would make splitting free.

Errors of different blocks are independent enough that their squares add; so both sides are shares
of the whole network's. The numbers, and so the decision, are measured once and kept with the
artifact; from the same numbers the decision is always the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from calibration.ablation import Ablation
from calibration.frames import FrameList
from calibration.quantize import QuantizeSettings, calibrate
from models.checkpoints import load_segmenter
from models.locality import inject_locality
from models.segmenter import Segmenter
from pipeline.artifact import Artifact
from pipeline.engines.base import Engine
from pipeline.engines.cpu import cpu_count, device_facts
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.errors import merged_already
from pipeline.frame_stage import FrameStage, Stack
from pipeline.lowering.cost import multiply_adds
from pipeline.lowering.network import lower
from pipeline.stage import Notify, Product, StageConfig
from pipeline.store import Store
from pipeline.verify import AgreementMeter

PLAN = "injection.json"
SECONDS = 6.0
"""Spent on timing at most, once every engine has run ``LEAST`` times."""
LEAST, MOST = 5, 41
LEAST_MS = 1e-6
LEAST_SHARE = 0.02
"""Of all blocks' squared error, that splitting one must remove."""
MOST_STACKS = 8
"""That calibrate or judge: every other one; one alone does both."""


class ChooseConfig(StageConfig):
    """Preset where the checkpoint does not say it, the engine's shape, and FC3's spelling.
    ``made_by``: versions of the stages whose work it does itself, since the plan is only as new as
    they are."""

    preset: str | None
    batch: int
    height: int
    width: int
    opset: int
    made_by: dict[str, int]
    convolve: bool = False


@dataclass(frozen=True)
class BlockFacts:
    """What was measured of one block.

    Attributes:
        block: its name.
        full_error: relative error of the logits with this block alone in int8, injected whole.
        split_error: the same, split.
        extra_ms: milliseconds the split engine takes longer for this block's convolution.
        error_share: share of all blocks' squared full error that splitting this one removes.
        time_share: ``extra_ms`` over the time of the engine with no block split.
        form: the decision.
    """

    block: str
    full_error: float
    split_error: float
    extra_ms: float
    error_share: float
    time_share: float
    form: str


def decide(
    errors: Mapping[str, tuple[float, float]], extra: Mapping[str, float], unsplit: float
) -> list[BlockFacts]:
    """The rule of the module's docstring.

    Args:
        errors: (full, split) relative errors by block.
        extra: milliseconds by block; below zero is noise and counts as nothing.
        unsplit: milliseconds of the engine without any of them, > 0.
    """
    total = sum(full**2 for full, _split in errors.values())
    found = []
    for block, (full, split) in errors.items():
        removed = max(0.0, full**2 - split**2) / total if total else 0.0
        added = max(0.0, extra[block]) / unsplit
        form = "split" if removed > max(added, LEAST_SHARE) else "full"
        found.append(BlockFacts(block, full, split, extra[block], removed, added, form))
    return found


def milliseconds(
    times: Mapping[str, npt.NDArray[np.float64]],
) -> tuple[dict[str, float], float]:
    """(what each block's convolution takes, what is left of the engine without any of them).

    Args:
        times: seconds (rounds,) of the split engine, ``""``, and of it without each convolution.
    """
    whole = times[""]
    extra = {name: float(np.median(whole - each)) * 1e3 for name, each in times.items() if name}
    left = float(np.median(whole)) * 1e3 - sum(max(0.0, value) for value in extra.values())
    return extra, max(left, LEAST_MS)  # where they add up to more than all of it, by noise


def without_convolution(model: onnx.ModelProto, block: str) -> onnx.ModelProto:
    """A split Q/DQ graph in which one block's FC3 goes on alone: for timing, not for labels."""
    shorter = onnx.ModelProto()
    shorter.CopyFrom(model)
    graph = shorter.graph
    total = next(node for node in graph.node if node.name == f"{block}.sum")
    nodes = [node for node in graph.node if node is not total]
    for node in nodes:
        # FC3's side of the sum is its first.
        node.input[:] = [total.input[0] if name == total.output[0] else name for name in node.input]
    wanted = {output.name for output in graph.output}
    while len(nodes) > len(nodes := _read(nodes, wanted)):
        pass
    del graph.node[:]
    graph.node.extend(nodes)
    return shorter


def _read(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes whose output another of them reads, or that is wanted."""
    read = wanted.union(*(node.input for node in nodes))
    return [node for node in nodes if read.intersection(node.output)]


class ChooseStage(FrameStage):
    """One input: the checkpoint, in train form.

    Half of the frames calibrate and the others judge; ``settings`` say how ranges are found.

    Its facts: ``forms`` by block, ``blocks`` (see ``BlockFacts``), ``unsplit_ms``, ``rounds`` and
    ``frames``, and on which device the times were measured.
    """

    name = "choose-injection"
    version = 5
    produces = "injection-plan"
    tools = ("torch", "nncf", "onnx", "onnxruntime", "openvino", "numpy")
    config: ChooseConfig

    def __init__(
        self, config: ChooseConfig, settings: QuantizeSettings, store: Store, frames: FrameList,
        notify: Notify | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, store, frames, notify)
        self.settings = settings

    def parameters(self) -> dict[str, Any]:
        """The config, the frames' hash, and the settings."""
        return super().parameters() | {"settings": self.settings.as_json()}

    def device(self) -> dict[str, Any]:
        """Times are this CPU's."""
        return device_facts() | {"cpus": cpu_count()}

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` for a checkpoint in deploy form, in which
        nothing is left to choose."""
        (source,) = inputs
        model, _preset, report = load_segmenter(source.path, self.config.preset)
        if report.form != "train":
            raise merged_already(source.path, "auto")
        facts = {"device": self.device(), **self._measure(model, folder)}
        (folder / PLAN).write_text(json.dumps({"forms": facts["forms"]}), encoding="utf-8")
        return Product(main=PLAN, facts=facts)

    def _measure(self, model: Segmenter, folder: Path) -> dict[str, Any]:
        names = [name for name, _block in model.backbone.repmlp_blocks()]
        config = self.config
        errors: dict[str, list[float]] = {name: [] for name in names}
        stacks: list[Stack] = []
        quantized = onnx.ModelProto()
        for form in ("full", "split"):
            graph = lower(
                inject_locality(model, form).model, batch=config.batch, height=config.height,
                width=config.width, opset=config.opset, metadata={}, convolve=config.convolve,
            )  # fmt: skip
            if not stacks:
                shape = (config.batch, config.height, config.width, 3)
                stacks = self.check_stacks(shape, sum(multiply_adds(graph).values()), MOST_STACKS)
            making, judging = stacks[::2], stacks[1::2] or stacks
            quantized, _rounded = calibrate(graph, making, self.settings)
            for name, error in _errors(quantized, graph, names, judging, folder).items():
                errors[name].append(error)
        times = _times(quantized, names, stacks[0], folder)
        extra, unsplit = milliseconds(times)
        found = decide(
            {name: (full, split) for name, (full, split) in errors.items()}, extra, unsplit
        )
        return {
            "forms": {each.block: each.form for each in found},
            "blocks": [asdict(each) for each in found],
            "unsplit_ms": unsplit,
            "rounds": len(times[""]),
            "frames": len(stacks) * config.batch,
        }


def _errors(
    quantized: onnx.ModelProto, graph: onnx.ModelProto, names: Sequence[str],
    stacks: Sequence[Stack], folder: Path,
) -> dict[str, float]:  # fmt: skip
    """Relative error of the logits with each block's own layers quantized, and nothing else."""
    ablation = Ablation(quantized, graph)
    path = folder / "mixed.onnx"

    def run(model: onnx.ModelProto) -> list[npt.NDArray[np.float32]]:
        onnx.save(model, path)
        with OnnxRuntimeEngine(path) as engine:
            return [engine.infer(stack) for stack in stacks]

    reference = run(graph)
    found = {}
    for name in names:
        own = [each for each in ablation.layers if each == name or each.startswith(f"{name}.")]
        meter = AgreementMeter()
        for mine, theirs in zip(run(ablation.only(own)), reference, strict=True):
            meter.add(mine, theirs)
        found[name] = meter.result().logits
    path.unlink()
    return found


def _times(
    quantized: onnx.ModelProto, names: Sequence[str], stack: Stack, folder: Path
) -> dict[str, npt.NDArray[np.float64]]:
    """Seconds of the split engine, ``""``, and of it without each block's convolution, by turns."""
    path = folder / "timed.onnx"
    with ExitStack() as open_engines:
        engines: dict[str, Engine] = {}
        for name in ("", *names):
            onnx.save(without_convolution(quantized, name) if name else quantized, path)
            engines[name] = open_engines.enter_context(
                OpenVINOEngine(path, precision="int8", slots=1)
            )
            engines[name].infer(stack)  # the first run plans and allocates
        path.unlink()
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        begin = time.perf_counter()
        order = list(engines)
        for turn in range(MOST):
            if turn >= LEAST and time.perf_counter() - begin > SECONDS:
                break
            for name in order:
                start = time.perf_counter()
                engines[name].infer(stack)
                seconds[name].append(time.perf_counter() - start)
            order.append(order.pop(0))  # nobody always runs after the same one
    return {name: np.array(each) for name, each in seconds.items()}
