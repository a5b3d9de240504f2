"""The mean of trained networks (model soups, Wortsman et al., ICML 2022, arXiv:2203.05482), and
classes favoured afterwards (logit adjustment, Menon et al., ICLR 2021, arXiv:2007.07314)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from models.checkpoints import load_segmenter
from models.errors import ModelError
from models.segmenter import Preset, Segmenter


def average(files: Sequence[Path], preset: str | None = None) -> tuple[Segmenter, Preset]:
    """(the network whose every weight and statistic is the mean of the files', its preset).

    Sums are float64. What counts (``num_batches_tracked``) is the first file's.

    Args:
        files: checkpoints of one preset and form, at least one.
        preset: of checkpoints that do not say.

    Raises:
        ModelError: a file that cannot be read, or is in another form than the first.
    """
    mean, found, _report = load_segmenter(files[0], preset)
    state = mean.state_dict()
    total = {key: value.double() for key, value in state.items() if value.is_floating_point()}
    for file in files[1:]:
        other = load_segmenter(file, found.name)[0].state_dict()
        if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in state.items()}:
            raise ModelError(f"'{file}' is in another form than '{files[0]}'")
        for key in total:
            total[key] += other[key].double()
    with torch.no_grad():
        for key, value in total.items():
            state[key].copy_(value / len(files))
    return mean, found


def favour(model: Segmenter, logits: Mapping[int, float]) -> None:
    """Add to the logits of classes, by train id, everywhere and for good: it is in their bias.

    A class of few pixels that is found rarely is worth calling at a probability far below a half
    where IoU is what counts. Raises ``ModelError`` when the classifier has no bias.
    """
    added = torch.zeros(model.head.classes)
    for train_id, logit in logits.items():
        added[train_id] = logit
    bias = model.head.classifier.bias
    if bias is None:
        raise ModelError("the classifier has no bias to favour a class by")
    with torch.no_grad():
        bias += added
