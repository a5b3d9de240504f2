"""Stages that look at frames: which ones, and what decodes them, is part of their key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from calibration.frames import FrameList
from pipeline.stage import PICTURES, Notify, Stage, StageConfig
from pipeline.store import Store
from pipeline.verify import batches, check_count

Stack: TypeAlias = npt.NDArray[np.uint8]
"""Frames as a network takes them: (N, H, W, 3) BGR."""


class FrameStage(Stage):
    """A stage that takes frames beside its artifacts.

    Its key and facts name the frames by the hash of the very list it was given.

    Args:
        config: of the stage.
        store: where its artifacts are kept.
        frames: to look at.
        notify: told of the stage.
    """

    def __init__(
        self, config: StageConfig, store: Store, frames: FrameList, notify: Notify | None = None
    ) -> None:
        super().__init__(config, store, notify)
        self.frames = frames

    def parameters(self) -> dict[str, Any]:
        """The config, and the frames' hash as ``frames``."""
        return super().parameters() | {"frames": self.frames.sha256}

    def distributions(self) -> tuple[str, ...]:
        """``tools``, and what decodes and resizes frames."""
        return (*super().distributions(), *PICTURES)

    def stacks(self, shape: Sequence[int]) -> list[Stack]:
        """All frames as a network of input (N, H, W, 3) takes them, see ``verify.batches``."""
        return self._stacks(shape, -(-len(self.frames) // shape[0]))

    def check_stacks(self, shape: Sequence[int], cost: int, most: int) -> list[Stack]:
        """As many as a comparison can afford, see ``verify.check_count``.

        Args:
            shape: of the network's input, (N, H, W, 3).
            cost: multiply-adds of one inference.
            most: how many stacks at most.
        """
        return self._stacks(shape, check_count(cost, most))

    def _stacks(self, shape: Sequence[int], limit: int) -> list[Stack]:
        batch, height, width, _channels = shape
        return list(batches(self.frames.images(height, width), batch, limit))
