"""Checkpoint -> deploy checkpoint: locality injection, each block proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from models import DEFAULT_INJECTION
from models.checkpoints import load_segmenter, save_segmenter
from models.locality import TOLERANCE, inject_locality
from pipeline import Injection
from pipeline.artifact import Artifact
from pipeline.errors import merged_already
from pipeline.stage import Product, Stage, StageConfig


class InjectConfig(StageConfig):
    """``preset`` where the checkpoint does not say it; ``form`` of injection.

    ``auto`` takes each block's form from the plan, a second input; ``train`` merges nothing.
    """

    preset: str | None = None
    form: Injection = DEFAULT_INJECTION


class InjectStage(Stage):
    """Inputs: the checkpoint, and for ``auto`` the plan of stage ``choose-injection``.

    A checkpoint already in deploy form passes through as it is where the form is the default. Any
    other form is one that was asked for and can no longer be given.
    """

    name = "inject"
    version = 4
    produces = "deploy-checkpoint"
    tools = ("torch",)
    config: InjectConfig

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``.

        Raises:
            InjectionError: a block cannot be merged; names it.
            CheckFailedError: a form asked for of a checkpoint whose branches are merged already.
        """
        source, form = inputs[0], self.config.form
        model, preset, report = load_segmenter(source.path, self.config.preset)
        proofs = []
        if form != DEFAULT_INJECTION and report.form != "train":
            raise merged_already(source.path, form)
        if report.form == "train" and form != "train":
            forms = inputs[1].facts["forms"] if form == "auto" else form
            injection = inject_locality(model, forms)
            model, proofs = injection.model, [asdict(proof) for proof in injection.proofs]
        save_segmenter(model, preset.name, folder / "deploy.safetensors")
        return Product(
            main="deploy.safetensors",
            facts={
                "preset": preset.name,
                "naming": report.naming,
                "form": form if proofs or form == "train" else "as in the checkpoint",
                "forms": {proof["block"]: proof["form"] for proof in proofs},
                "skipped": list(report.skipped),
                "tolerance": TOLERANCE,
                "error": max((p["error"] for p in proofs), default=None),
                "stored_error": max((p["stored_error"] for p in proofs), default=None),
                "blocks": proofs,
            },
        )
