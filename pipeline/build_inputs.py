"""What a build starts from: a data set to calibrate on, and a checkpoint."""

from __future__ import annotations

import re
import time
from pathlib import Path

from calibration.cityscapes import Cityscapes
from calibration.streets import write_dataset
from models import DEFAULT_PRESET, WEIGHTS
from models.checkpoints import (
    is_shipped,
    load_segmenter,
    shipped_checkpoint,
)
from models.segmenter import find_preset
from models.untrained import random_checkpoint
from pipeline.artifact import Artifact, checkpoint_artifact, sha256_of
from pipeline.build_options import BuildOptions
from pipeline.errors import CheckpointError
from pipeline.lineage import STORE
from pipeline.stage import Notify, StageEvent
from pipeline.store import Store

# Enough streets to calibrate with and to look at, where no data set is at hand.
STREETS_TRAIN, STREETS_VAL = 128, 24
MOST_OF_A_NAME = 60
# Names that every training gives: the folder tells more.
_SAY_NOTHING = ("best", "last", "model", "checkpoint", "latest")


def open_dataset(root: Path | None, output: Path, notify: Notify | None = None) -> Cityscapes:
    """The data set at ``root``, or procedural streets kept in the output folder's store."""
    if root is not None:
        return Cityscapes(root)
    start = time.perf_counter()
    folder = output / STORE / "streets"
    there = folder.is_dir()
    if notify is not None and not there:
        notify(StageEvent("streets"))
    write_dataset(folder, train=STREETS_TRAIN, val=STREETS_VAL)
    if notify is not None:
        notify(StageEvent("streets", there, time.perf_counter() - start))
    return Cityscapes(folder)


def checkpoint_file(given: Path | None, preset: str, folder: Path, *, random: bool) -> Path:
    """The checkpoint: the given one, untrained weights, or what is shipped for the preset.

    Args:
        given: by the user, if at all.
        preset: its name.
        folder: where untrained weights are kept, so that what was built from them is found again.
        random: whether the network shall be untrained, always the same.

    Raises:
        ModelError: no such preset, or none is shipped for it.
    """
    if random:
        return random_checkpoint(preset, folder)
    return shipped_checkpoint(preset) if given is None else given


def find_checkpoint(options: BuildOptions, store: Store) -> tuple[Artifact, str]:
    """(the checkpoint, its preset's name). Raises ``CheckpointError``, ``ModelError``."""
    if options.preset is not None:
        find_preset(options.preset)  # an unknown name is that, not another checkpoint's
    given, named = options.checkpoint, options.preset or DEFAULT_PRESET
    path = checkpoint_file(given, named, store.root, random=options.random_weights)
    if not path.is_file():
        wrong = "is not a file" if path.exists() else "does not exist"
        raise CheckpointError(f"checkpoint '{path}' {wrong}")
    if given is not None:
        _model, preset, _report = load_segmenter(given, options.preset)
        named = preset.name
    return checkpoint_artifact(path, weights_name(options, named, path)), named


def label_of(checkpoint: Artifact) -> str:
    """What the weights are called; empty for shipped ones."""
    return str(checkpoint.manifest.provenance["checkpoint"]["label"])


def engine_name(options: BuildOptions, preset: str, label: str) -> str:
    """What an engine's files are called. Weights that are not shipped are named too: ``label``."""
    height, width = options.shape
    weights = f"-{label}" if label else ""
    batch = f"-b{options.batch}" if options.batch > 1 else ""
    # Never in the place of an engine that is meant to be used.
    form = "-train" if options.injection == "train" else ""
    return f"{preset}{weights}{form}-{options.precision}-{height}x{width}{batch}"


def weights_name(options: BuildOptions, preset: str, checkpoint: Path) -> str:
    """What a checkpoint's weights are called; empty for shipped ones, however their file is."""
    if options.random_weights:
        return "random"
    if is_shipped(checkpoint):
        return ""
    shipped = WEIGHTS / f"{preset}.safetensors"
    digest = sha256_of(checkpoint)
    if shipped.is_file() and sha256_of(shipped) == digest:
        return ""
    stem = checkpoint.stem
    if stem in _SAY_NOTHING:
        stem = checkpoint.absolute().parent.name
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:MOST_OF_A_NAME]
    if stem != preset:
        return stem
    return digest[:8] if shipped.is_file() else ""
