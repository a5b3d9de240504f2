"""Untrained weights: the same file for the same network, another where the network is another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoints import load_segmenter, read_tensors
from models.segmenter import PRESETS
from models.untrained import random_checkpoint
from tests.models.helpers import TINY


@pytest.fixture(autouse=True)
def _tiny_is_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def test_random_weights_are_written_again_only_where_others_lie(tmp_path: Path) -> None:
    path = random_checkpoint("tiny", tmp_path / "store")
    content = path.read_bytes()
    tensors, metadata = read_tensors(path)
    assert random_checkpoint("tiny", tmp_path / "store").read_bytes() == content
    for others in (
        {key: value + 1 for key, value in tensors.items()},  # of the preset before a change
        dict(list(tensors.items())[1:]),
    ):
        save_file(others, path, metadata)
        assert random_checkpoint("tiny", tmp_path / "store") == path
        again, _metadata = read_tensors(path)
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    path.write_bytes(content[: len(content) // 2])
    load_segmenter(random_checkpoint("tiny", tmp_path / "store"))


def test_what_goes_through_a_deep_untrained_network_stays_of_its_size(tmp_path: Path) -> None:
    """edge-m's logits came to tens of thousands before, D256's to 10^12: beyond float32's steps."""
    model, _preset, _report = load_segmenter(random_checkpoint("edge-m", tmp_path))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        logits = model.eval()(torch.randn(1, 3, 256, 256, generator=generator))
    assert 0.1 < float(logits.std()) < 10
    assert float(logits.abs().max()) < 100
