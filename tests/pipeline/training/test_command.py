"""The training command: what it refuses before a step is taken, and what it takes up again."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from calibration.cityscapes import Cityscapes
from calibration.errors import CalibrationDataError
from models.checkpoints import load_segmenter, save_segmenter
from models.segmenter import PRESETS, build_segmenter, find_preset
from pipeline.errors import CheckFailedError, CheckpointError, DatasetError
from pipeline.training.data import Mixture
from pipeline.training.loop import Trainer
from pipeline.training.loss import LOSSES
from pipeline.training.score import confusion_matrix, validation_size
from pipeline.training.state import reading, sole_writer
from scripts.train import build_parser, main
from tests.helpers import exit_code
from tests.models.helpers import TINY, tiny_segmenter
from tests.pipeline.training.test_training import make_trainer

SMALL = ("--preset", "edge-s", "--crop", "128x128", "--batch", "2", "--every", "1", "--no-bf16",
         "--val-shape", "128x128", "--threads", "1", "--device", "cpu")  # fmt: skip
_run = partial(exit_code, main)


def test_a_run_goes_on_only_as_what_it_began_as(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs [1]" / "a[/b]"  # markup, were it not printed as it is
    first = tmp_path / "first.safetensors"
    save_segmenter(build_segmenter(TINY, seed=1), "tiny", first)
    same = (*SMALL, "--data", f"{streets}:0.5", "--output", output, "--steps", "2")
    assert _run(*same, "--until", "1") == 0
    assert str(output) in capsys.readouterr().err
    relabel = tmp_path / "map.json"
    relabel.write_text(json.dumps({"bus": "car"}))
    for more, option in (
        (("--data", f"{streets}:2"), "--data"),
        (("--label-map", f"{streets}={relabel}"), "--label-map"),
        (("--val-shape", "128x256"), "--val-shape"),
    ):
        assert _run(*same, *more) == 2, more
        told = capsys.readouterr().err
        assert "is of another run" in told
        assert option in told
    assert _run(*same, "--json") == 0
    captured = capsys.readouterr()
    assert "at step 1" in captured.err
    assert json.loads(captured.out)["step"] == 2
    model, preset, _report = load_segmenter(output / "best.safetensors")
    assert preset.name == "edge-s"
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    for damage in (b"", b"PK\x03\x04 no zip", (output / "last.pt").read_bytes()[:-2000]):
        (output / "last.pt").write_bytes(damage)
        assert _run(*same) == 2
        told = capsys.readouterr().err
        assert "damaged" in told
        assert "Traceback" not in told


def test_other_weights_to_begin_from_are_another_run(streets: Path, tmp_path: Path) -> None:
    def trainer(origin: str) -> Trainer:
        made = make_trainer(streets, tmp_path)
        made.origin = {"--init": origin}
        return made

    list(trainer("none").run(until=3))
    with pytest.raises(CheckpointError, match="--init none -> 12ab"):
        trainer("12ab").resume()
    assert trainer("none").resume()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--batch", "1"), "--batch 1: BatchNorm needs 2"),
        (("--batch", "1" * 21), "argument --batch"),
        (("--rate", "nan"), "--rate nan"),
        (("--rate", "1e30"), "--rate 1e+30"),
        (("--seed", "-1"), "--seed -1"),
        (("--threads", "99999999"), "--threads 99999999"),
        (("--data", "{streets}:nan"), ":nan: give a weight above 0"),
        (("--val-shape", "100x128"), "--val-shape 100x128 is not a whole number of"),
        (("--crop", "100x128"), "--crop 100x128 is not a whole number of"),
        (("--init", "{tmp}"), "checkpoint '"),
        (("--output", "{streets}/streets.json"), "folder '"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...],
    told: str,
) -> None:  # fmt: skip
    words = [word.format(streets=streets, tmp=tmp_path) for word in more]
    output = tmp_path / "run"
    assert _run(*SMALL, "--data", streets, "--output", output, "--steps", "1", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert not list(output.glob("*"))


@pytest.mark.parametrize("size", ["x", "-1", "2"])
def test_an_environment_that_describes_no_world(
    streets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("RANK", raising=False)
    assert _run(*SMALL, "--data", streets) == 2
    assert "torchrun" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_saved(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(streets, tmp_path)
    loss = trainer.loss
    monkeypatch.setattr(
        trainer, "loss", lambda b: loss(b) * (float("nan") if trainer.step == 4 else 1)
    )
    with pytest.raises(CheckFailedError, match="step 5: the loss is nan"):
        list(trainer.run())
    again = make_trainer(streets, tmp_path)
    assert again.resume()
    assert again.step == 3
    assert all(bool(torch.isfinite(v).all()) for v in again.ema.values())


def test_a_validation_that_fails_costs_no_step(streets: Path, tmp_path: Path) -> None:
    def unreadable(_network: Any) -> Any:
        raise DatasetError("a label cannot be read")

    trainer = make_trainer(streets, tmp_path)
    trainer.validate = unreadable
    with pytest.raises(DatasetError):
        list(trainer.run())
    again = make_trainer(streets, tmp_path)
    again.validate = lambda _network: np.full(19, 40.0)
    assert again.resume()
    assert again.step == 3
    events = list(again.run())
    assert [(e.step, e.miou) for e in events] == [(3, 40.0), (4, None), (5, None), (6, 40.0)]


def test_a_val_split_without_labels_judges_nothing(streets: Path, tmp_path: Path) -> None:
    trainer = make_trainer(streets, tmp_path)
    trainer.validate = lambda _network: np.full(19, np.nan)
    with pytest.raises(DatasetError, match="no labelled pixel"):
        list(trainer.run())


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        ((360, 480), (384, 512)),
        ((512, 1024), (512, 1024)),
        ((1024, 2048), (512, 1024)),
        ((1080, 1920), (512, 896)),
        ((60, 60), (128, 128)),
    ],
)
def test_val_frames_keep_their_aspect(frame: tuple[int, int], size: tuple[int, int]) -> None:
    assert validation_size(frame, 128) == size


def test_two_runs_do_not_share_a_folder(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sole_writer(tmp_path):
        assert _run(*SMALL, "--data", streets, "--output", tmp_path, "--steps", "1") == 2
    assert "is in use by another run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_is_no_number_takes_no_step(
    streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(streets, tmp_path)
    average = trainer.world.average

    def spoilt(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
        if trainer.step == 4:
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("inf"))  # type: ignore[union-attr]
        return average(model, loss)

    monkeypatch.setattr(type(trainer.world), "average", lambda _world, *given: spoilt(*given))
    with pytest.raises(CheckFailedError, match="step 5: the gradient's norm is"):
        list(trainer.run())
    assert all(bool(torch.isfinite(p).all()) for p in trainer.model.parameters())


def test_another_networks_numbers_are_another_run(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The preset's name may stay while its numbers change."""
    same = (*SMALL, "--data", streets, "--output", tmp_path / "run", "--steps", "2")
    assert _run(*same, "--until", "1") == 0
    preset = find_preset("edge-s")
    gelu = replace(preset, backbone=replace(preset.backbone, activation="gelu"))
    monkeypatch.setitem(PRESETS, "edge-s", gelu)
    assert _run(*same) == 2
    told = capsys.readouterr().err
    assert "--preset edge-s" in told
    assert "Traceback" not in told


def test_validation_goes_through_the_label_map(streets: Path) -> None:
    data = Cityscapes(streets)
    pair = data.frames("val")[0]
    truth = data.read_labels(pair.label)
    table = np.arange(256, dtype=np.uint8)
    table[0] = 8  # road is called vegetation
    network, device = tiny_segmenter(), torch.device("cpu")
    plain = confusion_matrix(network, data, [pair], (64, 128), device)
    mapped = confusion_matrix(network, data, [pair], (64, 128), device, table)
    assert plain[0].sum() == (truth == 0).sum() > 0
    assert mapped[0].sum() == 0
    np.testing.assert_array_equal(mapped[8], plain[0] + plain[8])


def test_a_label_of_another_size_than_its_picture_is_refused(streets: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(streets, tree)
    path = Cityscapes(tree).frames("train")[0].label
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert label is not None
    cv2.imwrite(str(path), label[::2, ::2])
    with pytest.raises(CalibrationDataError, match="but its picture"):
        Mixture([Cityscapes(tree)], [1.0]).load(0, 0)


def test_best_weights_that_were_lost_are_made_again(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = (*SMALL, "--data", streets, "--output", tmp_path / "run", "--steps", "1")
    assert _run(*same) == 0
    best = tmp_path / "run" / "best.safetensors"
    best.unlink()
    assert _run(*same, "--json") == 0
    assert best.is_file()
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(best)
    assert len((tmp_path / "run" / "val.csv").read_text().splitlines()) == 2


def test_a_val_tree_is_the_same_by_any_path(streets: Path, tmp_path: Path) -> None:
    table = tmp_path / "map.json"
    table.write_text(json.dumps({"road": "ignore"}))
    words = (*SMALL, "--data", streets, "--label-map", f"{streets}={table}", "--steps", "1")
    assert _run(*words, "--output", tmp_path / "a", "--val", f"{streets}/../{streets.name}/") == 0
    row = (tmp_path / "a" / "val.csv").read_text().splitlines()[1]
    assert row.split(",")[1] == ""  # road is not judged


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("anything torch says"), "remove it to begin again"),
        (OSError("no archive"), "remove it to begin again"),
        (MemoryError(), "end what else uses it"),
        (torch.OutOfMemoryError("CUDA out of memory"), "end what else uses it"),
    ],
)
def test_only_a_damaged_state_is_to_be_removed(error: Exception, told: str) -> None:
    with pytest.raises(CheckpointError) as caught, reading(Path("last.pt")):
        raise error
    assert told in (caught.value.hint or "")


def test_a_state_that_may_not_be_read_says_so() -> None:
    with pytest.raises(PermissionError), reading(Path("last.pt")):
        raise PermissionError(errno.EACCES, "Permission denied", "last.pt")


def test_the_classifier_alone_is_trained_in_a_network_that_is_given(
    streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = (*SMALL, "--data", streets, "--output", tmp_path / "run", "--steps", "1",
           "--only", "classifier")  # fmt: skip
    assert _run(*run) == 2
    assert "give --init" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    first = tmp_path / "first.safetensors"
    save_segmenter(build_segmenter(find_preset("edge-s"), seed=1), "edge-s", first)
    assert _run(*run, "--loss", "plain", "--init", first) == 0
    was, now = (load_segmenter(f)[0].state_dict() for f in (first, tmp_path / "run" / "last.pt"))
    changed = {key for key, value in now.items() if not torch.equal(value, was[key])}
    assert changed <= {"head.classifier.weight", "head.classifier.bias"}
    assert changed


def test_the_command_offers_every_loss_there_is() -> None:
    action = next(each for each in build_parser()._actions if each.dest == "loss")
    assert set(action.choices or ()) == set(LOSSES)
