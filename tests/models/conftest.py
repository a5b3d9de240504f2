"""The same random numbers for every test, in whatever order they run."""

from __future__ import annotations

import pytest
import torch

from models.segmenter import PRESETS
from tests.models.helpers import TINY


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _tiny_is_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
