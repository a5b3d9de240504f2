"""What the tests of the TensorRT stage share."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.cityscapes import Cityscapes
from calibration.frames import FrameList, select_frames
from pipeline.store import Store


@pytest.fixture(scope="module")
def frames(streets: Path) -> FrameList:
    return select_frames(Cityscapes(streets), 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("tensorrt"))
