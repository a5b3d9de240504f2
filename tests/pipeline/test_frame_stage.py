"""Stages that look at frames: what makes their result another one, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from calibration.cityscapes import Cityscapes
from calibration.frames import FrameList, select_frames
from pipeline.artifact import Artifact, checkpoint_artifact
from pipeline.frame_stage import FrameStage
from pipeline.stage import PICTURES, Product, Stage, StageConfig
from pipeline.stages.build_openvino import BuildOpenVINOStage
from pipeline.stages.build_tensorrt import BuildTensorRTStage
from pipeline.stages.choose import ChooseStage
from pipeline.stages.compare import CompareStage
from pipeline.stages.export import ExportStage
from pipeline.stages.finetune import FinetuneStage
from pipeline.stages.quantize import QuantizeStage
from pipeline.stages.search import SearchStage
from pipeline.store import Store


class Look(FrameStage):
    """Counts frames."""

    name = "look"
    version = 1
    produces = "text"
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        (folder / "count.txt").write_text(str(len(self.frames)))
        return Product("count.txt")


@pytest.fixture
def frames(streets: Path) -> FrameList:
    return select_frames(Cityscapes(streets), 5)


def _look(frames: FrameList, folder: Path) -> Look:
    return Look(StageConfig(), Store(folder), frames)


def test_the_frames_and_what_decodes_them_make_it_new(
    frames: FrameList, streets: Path, tiny_checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = checkpoint_artifact(tiny_checkpoint)
    made = _look(frames, tmp_path).run(source)
    assert made.facts["config"] == {"frames": frames.sha256}
    assert set(made.facts["tools"]) == {"numpy", *PICTURES}
    again = select_frames(Cityscapes(streets), 5)
    assert _look(again, tmp_path).key([source]) == made.manifest.key
    fewer = select_frames(Cityscapes(streets), 4)
    assert _look(fewer, tmp_path).key([source]) != made.manifest.key
    real = Look.distributions

    def versions(names: Sequence[str]) -> dict[str, str | None]:
        return {name: "0.1" if name in PICTURES else "1" for name in names}

    monkeypatch.setattr("pipeline.stage.tool_versions", versions)
    another = _look(frames, tmp_path).key([source])
    monkeypatch.setattr(Look, "distributions", lambda self: real(self)[: -len(PICTURES)])
    assert _look(frames, tmp_path).key([source]) != another != made.manifest.key


@pytest.mark.parametrize(
    "stage",
    [BuildOpenVINOStage, BuildTensorRTStage, ChooseStage, CompareStage, ExportStage, FinetuneStage,
     QuantizeStage, SearchStage],
)  # fmt: skip
def test_every_stage_that_looks_at_frames_depends_on_what_decodes_them(stage: type[Stage]) -> None:
    assert issubclass(stage, FrameStage) or set(PICTURES) <= set(stage.tools)


def test_stacks_are_what_the_network_takes(
    frames: FrameList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = _look(frames, tmp_path)
    shape = (2, 64, 96, 3)
    found = look.stacks(shape)  # the fifth frame fills no stack
    assert [stack.shape for stack in found] == [shape] * 2
    images = list(frames.images(64, 96))
    np.testing.assert_array_equal(np.concatenate(found), np.stack(images[:4]))
    assert len(look.check_stacks(shape, 1, 8)) == 2
    assert len(look.check_stacks(shape, 1, 1)) == 1
    monkeypatch.setattr("pipeline.verify._CHECK_MULTIPLY_ADDS", 10)
    assert len(look.check_stacks(shape, 9, 8)) == 1
