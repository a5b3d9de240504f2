"""Checkpoints that cannot be read, each told as what it is: cut short, something else, or code."""

from __future__ import annotations

import io
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from models.checkpoints import read_tensors
from models.errors import ModelError, UnsafeCheckpointError


def _saved(kind: str) -> bytes:
    tensors = {"a.weight": torch.ones(500), "b.weight": torch.zeros(3)}
    if kind == "safetensors":
        return bytes(save(tensors, {"preset": "tiny"}))
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=kind == "pth")
    return buffer.getvalue()


def _told(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_tensors(path)
    assert not isinstance(caught.value, UnsafeCheckpointError)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "old.pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_file_that_was_cut_short_is_to_be_copied_again(
    tmp_path: Path, kind: str, share: float
) -> None:
    path = tmp_path / f"a.{kind}"
    whole = _saved(kind)
    path.write_bytes(whole)
    assert set(read_tensors(path)[0]) == {"a.weight", "b.weight"}
    cut = whole[: int(share * len(whole))]
    assert "is incomplete: copy or download it again" in _told(path, cut)


def test_a_file_with_more_behind_it_is_not_cut_short(tmp_path: Path) -> None:
    told = _told(tmp_path / "a.safetensors", _saved("safetensors") + b"more")
    assert "is not a safetensors file" in told


@pytest.mark.parametrize(
    "content",
    [*(random.Random(seed).randbytes(3000) for seed in range(20)), b"<!DOCTYPE html><html></html>",
     b"version https://git-lfs.github.com/spec/v1\n", pickle.dumps({"epoch": 3})],
)  # fmt: skip
def test_what_is_no_checkpoint_is_not_said_to_run_code(tmp_path: Path, content: bytes) -> None:
    assert "is not a checkpoint" in _told(tmp_path / "a.pth", content)
    other = _told(tmp_path / "a.safetensors", content)
    assert "is not a safetensors file" in other


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed-by-pickle",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_pickle_of_code_is(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"x": _Code()}, protocol=protocol))
    with pytest.raises(UnsafeCheckpointError, match="it may run code when loaded"):
        read_tensors(path)
    assert not Path("executed-by-pickle").exists()


def test_a_tensor_that_is_refused_is_told_once(tmp_path: Path) -> None:
    told = _told(tmp_path / "a.safetensors", save({"x": torch.zeros(2, dtype=torch.complex64)}))
    assert told.count("checkpoint '") == 1
    assert "'x' is complex64" in told
