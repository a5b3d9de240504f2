"""Checkpoints of another network, and those that would choose how much memory is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoints import load_segmenter, read_tensors, save_segmenter
from models.errors import ModelError
from models.locality import inject_locality
from models.segmenter import Segmenter
from tests.models.helpers import tiny_segmenter

pytestmark = pytest.mark.usefixtures("_tiny_is_a_preset")


def _with(path: Path, extra: dict[str, torch.Tensor], model: Segmenter | None = None) -> None:
    """A whole tiny network's file, and more."""
    save_segmenter(model or tiny_segmenter(), "tiny", path)
    tensors, metadata = read_tensors(path)
    save_file({**tensors, **extra}, path, metadata)


def test_a_network_with_more_to_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    attention = {"head.attention.weight": torch.zeros(4), "head.attention.bias": torch.zeros(4)}
    _with(path, attention)
    with pytest.raises(ModelError, match=r"'head\.attention\.bias' and 1 more, for which .*tiny"):
        load_segmenter(path)
    # What trains only, and what classified images, is not deployed.
    _with(
        path, {"auxiliary.classifier.weight": torch.zeros(4), "backbone.head.bias": torch.ones(2)}
    )
    _model, _preset, report = load_segmenter(path)
    assert report.skipped == ("auxiliary.classifier.weight", "backbone.head.bias")


@pytest.mark.parametrize("size", ["0", "4", "129", "30001", "9" * 5000])
def test_a_key_does_not_choose_how_much_memory_is_taken(tmp_path: Path, size: str) -> None:
    path = tmp_path / "t.safetensors"
    _with(path, {f"backbone.stages.0.0.repmlp_block.repconv{size}.conv.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"has a convolution of \d+(\.\.\.)?: odd sizes") as told:
        load_segmenter(path)
    assert len(str(told.value)) < 300


def test_nor_does_a_tensors_shape(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    local = {"backbone.stages.0.0.repmlp_block.local.weight": torch.zeros(1, 1, 1, 40001)}
    _with(path, local, inject_locality(tiny_segmenter()).model)
    with pytest.raises(ModelError, match="has a convolution of 40001"):
        load_segmenter(path)
