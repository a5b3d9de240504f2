"""The command of Appendix A on a small network, against convolutions merged by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from models.checkpoints import save_segmenter
from models.locality import inject_locality
from models.repmlp import BackboneConfig
from models.segmenter import PRESETS, Preset, Segmenter, build_segmenter
from scripts.show_locality import main
from tests.helpers import exit_code

# What makes a block of the presets large is its FC; of this one's stages the second has two blocks
# of four sets and patches as wide as those of the shipped networks' third.
PRESET = Preset(
    "small", BackboneConfig((4, 8, 16, 32), (16, 8, 4, 2), (1, 2, 1, 1), (1, 4, 8, 16)), width=8
)
BLOCKS = PRESET.backbone.blocks
_run = partial(exit_code, main)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, PRESET.name, PRESET)


@pytest.fixture(scope="module")
def trained() -> Segmenter:
    """A network with convolutions strong enough to be seen, and BatchNorm that does something."""
    model = build_segmenter(PRESET, seed=3)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("repconv3.conv.weight"):
            value.mul_(4)
        if name.endswith("repconv3.bn.running_var"):
            value.fill_(0.25)
    model.load_state_dict(state)
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(trained: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_segmenter(trained, PRESET.name, path)
    return path


def test_the_shares_are_of_the_merged_kernel(
    trained: Segmenter, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.png"
    code = _run(
        "--checkpoint", checkpoint, "--output", figure, "--json",
        "--stage", 2, "--block", BLOCKS[1], "--point", "4,6", "--set", 2,
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    found = json.loads(captured.out)
    name = f"stages.1.{BLOCKS[1] - 1}.repmlp_block"
    assert found["block"] == name
    # Delta functions through the block's own layers: what each input position gives at (4, 6).
    block = dict(trained.backbone.repmlp_blocks())[name]
    side, sets = block.h, block.sets
    deltas = torch.eye(side * side).reshape(-1, 1, side, side).expand(-1, sets, -1, -1)
    with torch.no_grad():
        norm = block.fc3_bn
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        merged = block.fc3_matrix()[1, 3 * side + 5] * scale[1]
        for size in block.kernels:
            branch = block.branch(size)
            answer = branch(deltas) - branch(torch.zeros_like(deltas[:1]))
            merged = merged + answer[:, 1, 3, 5]
    kernels = {"before": block.fc3_matrix()[1, 3 * side + 5].detach(), "after": merged}
    for when, row in kernels.items():
        weight = row.abs().reshape(side, side)
        inside = weight[2:5, 4:7].sum() / weight.sum()
        assert found[when]["inside"] == pytest.approx(100 * float(inside), abs=1e-3)
        assert found[when]["inside"] + found[when]["outside"] == pytest.approx(100)
    assert found["after"]["inside"] > 2 * found["before"]["inside"]
    assert "before injection:" in captured.err
    assert "after injection:" in captured.err


def test_what_cannot_be_shown_exits_2(
    trained: Segmenter, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed = tmp_path / "deploy.safetensors"
    save_segmenter(inject_locality(trained).model, PRESET.name, deployed)
    figure = tmp_path / "figure.png"
    cases = [
        (
            ("--stage", 5),
            f"no block 1 in stage 5: stages 1 to 4 have {', '.join(map(str, BLOCKS))} blocks",
        ),
        (("--block", 9), "no block 9 in stage 3"),
        (("--point", "9,1"), "--point 9,1 is outside the patch"),
        (("--point", "0,1"), "not ROW,COLUMN"),
        (("--set", 9999), "--set 9999"),
        (("--checkpoint", deployed), "deploy form"),
        (("--checkpoint", tmp_path / "none.safetensors"), "none.safetensors"),
        (("--output", tmp_path / "figure.xyz"), "no picture"),
    ]
    for options, said in cases:
        code = _run(
            "--checkpoint", checkpoint, "--output", figure, "--point", "1,1", *options
        )  # fmt: skip
        error = " ".join(capsys.readouterr().err.split())
        assert code == 2, options
        assert said in error, (options, error)
        assert not figure.exists()
