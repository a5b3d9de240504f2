"""What a build starts from: a data set to calibrate on, and a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

from calibration.cityscapes import Cityscapes
from calibration.streets import write_dataset
from models import DEFAULT_PRESET
from models.checkpoints import load_segmenter, save_segmenter, shipped_checkpoint
from models.segmenter import build_segmenter, find_preset
from pipeline.artifact import Artifact
from pipeline.build_options import BuildOptions
from pipeline.stage import Notify, StageEvent
from pipeline.stages.inject import checkpoint_artifact
from pipeline.store import Store

# Enough streets to calibrate with and to look at, where no data set is at hand.
STREETS_TRAIN, STREETS_VAL = 128, 24


def open_dataset(root: Path | None, output: Path, notify: Notify | None = None) -> Cityscapes:
    """The data set at ``root``, or procedural streets kept in the output folder's store."""
    if root is not None:
        return Cityscapes(root)
    start = time.perf_counter()
    folder = output / ".store" / "streets"
    there = folder.is_dir()
    if notify is not None and not there:
        notify(StageEvent("streets"))
    write_dataset(folder, train=STREETS_TRAIN, val=STREETS_VAL)
    if notify is not None:
        notify(StageEvent("streets", there, time.perf_counter() - start))
    return Cityscapes(folder)


def find_checkpoint(options: BuildOptions, store: Store) -> tuple[Artifact, str]:
    """(the checkpoint, its preset's name)."""
    if options.preset is not None:
        find_preset(options.preset)  # an unknown name is that, not another checkpoint's
    if options.random_weights:
        preset = find_preset(options.preset or DEFAULT_PRESET)
        path = store.root / f"random-{preset.name}.safetensors"
        if not path.is_file():
            model = build_segmenter(preset, seed=0)
            save_segmenter(model, preset.name, path, {"weights": "random, seed 0"})
        return checkpoint_artifact(path), preset.name
    if options.checkpoint is None:
        preset_name = options.preset or DEFAULT_PRESET
        return checkpoint_artifact(shipped_checkpoint(preset_name)), preset_name
    artifact = checkpoint_artifact(options.checkpoint)
    _model, preset, _report = load_segmenter(options.checkpoint, options.preset)
    return artifact, preset.name
