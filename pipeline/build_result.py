"""What came of a build, for callers and for ``build_engine.py --json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.build_options import BuildOptions
from pipeline.engines.opening import manifest_of
from pipeline.errors import EngineError
from pipeline.gate import Outcome
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH


@dataclass(frozen=True)
class BuiltEngine:
    """One engine: where it is, and what is known of it.

    ``path`` is ``None`` where the gate refused it: then it is not in the output folder. ``tuning``
    is what ``TuneStage`` found, ``None`` where nothing was tuned. ``other`` is the command that
    made another engine of its name, if there was one: replaced, or left where it is.
    """

    backend: str
    path: Path | None
    artifact: Artifact
    checks: dict[str, Any]
    gate: Outcome | None
    tuning: dict[str, Any] | None = None
    other: str | None = None

    @property
    def manifest(self) -> Path | None:
        """Where the manifest lies."""
        return None if self.path is None else manifest_of(self.path)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; of TensorRT also the flavour, the layers, and whether it was executed."""
        facts = self.artifact.facts
        reason = facts.get("not_executed")
        found = {
            "backend": self.backend,
            "engine": None if self.path is None else str(self.path),
            "manifest": None if self.manifest is None else str(self.manifest),
            "precision": facts["precision"],
            "executed": facts["agreement"] is not None,
            "not_executed": reason,
            "checks": self.checks,
            "gate": None if self.gate is None else self.gate.as_json(),
            "tuning": self.tuning,
        }
        keys = ("flavour", "built_with", "output", "float_fallback", "float_by_design", "nodes",
                "layers", "warnings")  # fmt: skip
        return found | {key: facts[key] for key in keys if key in facts}


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """Where everything is, and what the checks said.

    ``engines`` holds one for each back end, OpenVINO's first. ``comparison`` is what the stage
    ``compare`` found, ``None`` where only OpenVINO was asked for. ``search`` is what was left in
    float so that the gate's limits are kept, ``None`` where nothing was searched for.
    """

    options: BuildOptions
    preset: str
    graph: Artifact
    quantized: Artifact | None
    engines: tuple[BuiltEngine, ...]
    comparison: dict[str, Any] | None
    cached: tuple[str, ...]
    seconds: float
    search: dict[str, Any] | None = None

    @property
    def engine(self) -> Path:
        """The first engine. Raises ``EngineError`` where the gate refused it."""
        if self.engines[0].path is None:
            raise EngineError("the gate refused the engine, so there is none")
        return self.engines[0].path

    @property
    def manifest(self) -> Path:
        """The first engine's manifest."""
        return manifest_of(self.engine)

    @property
    def checks(self) -> dict[str, Any]:
        """The first engine's checks."""
        return self.engines[0].checks

    @property
    def finetune(self) -> dict[str, Any] | None:
        """What fine-tuning brought, see ``distill.Distilled``; ``None`` where there was none."""
        return None if self.quantized is None else self.quantized.facts.get("finetune")

    @property
    def graphs(self) -> dict[str, Path]:
        """The Q/DQ graph in each back end's spelling: what a bundle is made of, and the report's
        exact candidates. Empty where nothing was quantized."""
        if self.quantized is None:
            return {}
        folder = self.quantized.manifest_path.parent
        found = {"openvino": folder / OPENVINO_GRAPH, "tensorrt": folder / TENSORRT_GRAPH}
        return {back_end: path for back_end, path in found.items() if path.is_file()}

    @property
    def calibration(self) -> dict[str, int] | None:
        """How many frames were ``requested`` and ``taken``; ``None`` without quantization."""
        if self.quantized is None:
            return None
        # Not what the graph's manifest says was requested: one made of all frames there are serves
        # whoever asks for as many or more.
        taken = self.quantized.manifest.provenance["quantize"]["calibration"]["taken"]
        return {"requested": self.options.frames, "taken": int(taken)}

    @property
    def passed(self) -> bool:
        """Whether the gate let every engine through; true without a gate."""
        return all(each.gate is None or each.gate.verdict.passed for each in self.engines)

    def as_json(self) -> dict[str, Any]:
        """The object that ``build_engine.py --json`` prints; documented there."""
        options = self.options
        return self.engines[0].as_json() | {
            "backend": options.backend, "precision": options.precision, "preset": self.preset,
            "shape": list(options.shape), "batch": options.batch, "passed": self.passed,
            "engines": [each.as_json() for each in self.engines],
            "comparison": self.comparison, "search": self.search, "finetune": self.finetune,
            "graphs": {back_end: str(path) for back_end, path in self.graphs.items()},
            "calibration": self.calibration, "cached": list(self.cached),
            "seconds": round(self.seconds, 3),
        }  # fmt: skip
