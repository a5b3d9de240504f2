"""The network as PyTorch runs it, eager, float32: in train form, and with its locality injected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints import load_segmenter
from models.locality import inject_locality
from models.segmenter import BgrFrames, Segmenter
from pipeline.benchmark.contenders import Entries, Entry, Facts
from pipeline.benchmark.rows import TORCH_DEPLOY, TORCH_TRAIN
from pipeline.benchmark.turns import Contender, timed
from pipeline.engines.base import FrameBatch
from pipeline.errors import EngineError


def torch_entries(
    checkpoint: Path, preset: str, injection: str, frame: FrameBatch, seconds: float
) -> Entries:
    """Both forms of a checkpoint. One in deploy form already has no train form to run.

    Args:
        checkpoint: the file.
        preset: its size.
        injection: ``full`` or ``split``.
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
