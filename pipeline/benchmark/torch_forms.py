"""The network as PyTorch runs it, eager, float32: in train form, and with its locality injected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints import (
    load_segmenter,
    read_tensors,
    save_segmenter,
    shipped_checkpoint,
)
from models.locality import inject_locality
from models.segmenter import BgrFrames, Segmenter, build_segmenter, find_preset
from pipeline.benchmark.contenders import TURN_SECONDS, Entries, Entry, Facts
from pipeline.benchmark.rows import TORCH_DEPLOY, TORCH_TRAIN
from pipeline.benchmark.turns import Contender, timed
from pipeline.engines.base import FrameBatch
from pipeline.errors import CheckpointError, EngineError


def find_checkpoint(given: Path | None, preset: str, folder: Path, *, random: bool) -> Path:
    """The checkpoint file: the given one, the preset's shipped one, or random weights.

    Args:
        given: by the user, if at all.
        preset: its name.
        folder: where random weights are kept, so that what was built from them is found again.
        random: whether the network shall be untrained, always the same.

    Raises:
        ModelError: no such preset, or none is shipped for it.
        CheckpointError: the given file does not exist.
    """
    if random:
        return _random(preset, folder)
    if given is None:
        return shipped_checkpoint(preset)
    if not given.is_file():
        raise CheckpointError(f"checkpoint '{given}' does not exist")
    return given


def _random(preset: str, folder: Path) -> Path:
    """Untrained weights, written anew only where those there are others: the file's bytes differ
    from one writing to the next, and engines are found by them."""
    model = build_segmenter(find_preset(preset), seed=0)
    path = folder / f"random-{preset}.safetensors"
    if path.is_file():
        there, _metadata = read_tensors(path)
        wanted = model.state_dict()
        if there.keys() == wanted.keys() and all(
            torch.equal(there[name], wanted[name]) for name in wanted
        ):
            return path
    folder.mkdir(parents=True, exist_ok=True)
    save_segmenter(model, preset, path, {"weights": "random, seed 0"})
    return path


def torch_entries(
    checkpoint: Path, preset: str, injection: str, frame: FrameBatch,
    seconds: float = TURN_SECONDS,
) -> Entries:  # fmt: skip
    """Both forms of a checkpoint. One in deploy form already has no train form to run.

    Args:
        checkpoint: the file.
        preset: its size.
        injection: ``full``, ``split`` or ``needed``.
        frame: uint8 BGR (1, H, W, 3).
        seconds: of one turn.

    Raises:
        CheckpointError, ModelError: the checkpoint cannot be read.
    """
    model, _preset, report = load_segmenter(checkpoint, preset)
    given = torch.from_numpy(frame)
    if report.form != "train":
        reason = f"'{checkpoint.name}' is in deploy form already"
        return {
            TORCH_TRAIN: Entry(None, Facts(), reason),
            TORCH_DEPLOY: _entry(TORCH_DEPLOY, model, given, seconds),
        }
    deploy = inject_locality(model, injection).model
    return {
        TORCH_TRAIN: _entry(TORCH_TRAIN, model, given, seconds),
        TORCH_DEPLOY: _entry(TORCH_DEPLOY, deploy, given, seconds),
    }


def _entry(name: str, model: Segmenter, frame: Tensor, seconds: float) -> Entry:
    run = _runner(model, frame)
    return Entry(
        Contender((name,), lambda: {name: timed(run, seconds)}),
        Facts("fp32", None, torch.get_num_threads()),
    )


def _runner(model: Segmenter, frame: Tensor) -> Callable[[], Tensor]:
    network = BgrFrames(model).eval()

    def run() -> Tensor:
        try:
            with torch.inference_mode():
                logits: Tensor = network(frame)
                return logits
        except RuntimeError as error:  # torch's word for everything, out of memory among it
            raise EngineError(f"torch failed: {str(error).splitlines()[0]}") from error

    return run
