"""Checkpoints: three namings, two forms, and files that would harm us."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.checkpoints import (
    load_into,
    load_segmenter,
    read_tensors,
    rename_keys,
    save_segmenter,
)
from models.errors import ModelError, UnsafeCheckpointError
from models.locality import inject_locality
from models.segmenter import PRESETS, Segmenter, build_segmenter, find_preset
from tests.helpers import full_disk
from tests.models.helpers import TINY, randomise, tiny_segmenter

pytestmark = pytest.mark.usefixtures("_tiny_is_a_preset")


# Keys of the published classification release, written down from its module names.
PUBLISHED = (
    "conv_embedding.conv.weight", "conv_embedding.bn.running_mean",
    "stages.0.0.repmlp_block.fc3.weight", "stages.0.0.repmlp_block.fc3_bn.weight",
    "stages.0.0.repmlp_block.repconv1.conv.weight", "stages.0.0.repmlp_block.repconv3.bn.bias",
    "stages.0.0.repmlp_block.gp.fc1.weight", "stages.0.0.repmlp_block.gp.fc2.bias",
    "stages.0.0.ffn_block.ffn_fc1.conv.weight", "stages.0.0.ffn_block.ffn_fc2.bn.running_var",
    "stages.0.0.prebn1.weight", "stages.3.0.prebn2.bias",
)  # fmt: skip


# Our head's names -> MMSegmentation's, beside the pyramid's branches.
THEIRS = {
    "head.ppm.bottleneck.": "decode_head.bottleneck.",
    "head.fusion.": "decode_head.fpn_bottleneck.",
    "head.laterals.": "decode_head.lateral_convs.",
    "head.fpn.": "decode_head.fpn_convs.",
    "head.classifier.": "decode_head.conv_seg.",
}


def published_file(path: Path, *, deploy: bool = False) -> dict[str, torch.Tensor]:
    """A backbone under the published names, with the classifier's own parts beside it."""
    model = tiny_segmenter(seed=3)
    if deploy:
        model = inject_locality(model).model
    state = {
        key.removeprefix("backbone."): value
        for key, value in model.state_dict().items()
        if key.startswith("backbone.")
        and not key.startswith(("backbone.downsample", "backbone.norms"))
    }
    state["embeds.0.conv.weight"] = torch.zeros(8, 4, 2, 2)
    state["head_norm.weight"] = torch.zeros(32)
    state["head.weight"] = torch.zeros(1000, 32)
    torch.save({"model": state}, path)
    return state


def test_the_backbone_has_the_published_keys() -> None:
    state = {k.removeprefix("backbone.") for k in tiny_segmenter().state_dict()}
    assert not set(PUBLISHED) - state


def test_a_published_backbone_initialises_and_tells_what_it_skipped(tmp_path: Path) -> None:
    published = published_file(tmp_path / "imagenet.pth")
    model = build_segmenter(TINY, seed=0)
    report = load_into(model, tmp_path / "imagenet.pth")
    assert report.naming == "repmlpnet"
    assert report.skipped == ("embeds.0.conv.weight", "head.weight", "head_norm.weight")
    assert all(
        key.startswith(("backbone.downsample", "backbone.norms", "head.")) for key in report.fresh
    )
    loaded = model.state_dict()
    for key in report.loaded:
        assert torch.equal(loaded[key], published[key.removeprefix("backbone.")])


def test_a_published_deploy_backbone_loads_into_a_deploy_network(tmp_path: Path) -> None:
    published_file(tmp_path / "deploy.pth", deploy=True)
    report = load_into(build_segmenter(TINY, deploy=True, seed=0), tmp_path / "deploy.pth")
    assert report.form == "deploy"
    assert "backbone.stages.0.0.repmlp_block.fc3.bias" in report.loaded


@pytest.mark.parametrize("deploy", [True, False])
def test_a_checkpoint_of_the_other_form_is_refused_and_nothing_is_touched(
    tmp_path: Path, *, deploy: bool
) -> None:
    """By the published names and by ours: their keys are the same for the most part."""
    published_file(tmp_path / "theirs.pth", deploy=deploy)
    ours = tiny_segmenter()
    save_segmenter(
        inject_locality(ours).model if deploy else ours, "tiny", tmp_path / "ours.safetensors"
    )
    model = build_segmenter(TINY, deploy=not deploy, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    given, wanted = ("deploy", "train") if deploy else ("train", "deploy")
    for name in ("theirs.pth", "ours.safetensors"):
        said = f"{name}' is in {given} form, the network in {wanted} form: "
        with pytest.raises(ModelError, match=said):
            load_into(model, tmp_path / name)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_mmsegmentation_names_become_ours(tmp_path: Path) -> None:
    model = tiny_segmenter(seed=5)
    theirs = {}
    for key, value in model.state_dict().items():
        new = key
        for i in range(4):
            new = new.replace(f"head.ppm.branches.{i}.", f"decode_head.psp_modules.{i}.1.")
        for mine, other in THEIRS.items():
            new = new.replace(mine, other) if new.startswith("head.") else new
        theirs[new] = value
    torch.save({"state_dict": theirs}, tmp_path / "mmseg.pth")
    loaded, preset, report = load_segmenter(tmp_path / "mmseg.pth", "tiny")
    assert (preset.name, report.naming) == ("tiny", "mmsegmentation")
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("form", ["train", "full", "split"])
def test_every_form_survives_saving(tmp_path: Path, form: str) -> None:
    model = tiny_segmenter()
    if form != "train":
        model = inject_locality(model, form).model
    path = tmp_path / "net.safetensors"
    save_segmenter(model, "tiny", path)
    loaded, preset, report = load_segmenter(path)
    assert preset.name == "tiny"
    assert report.form == ("train" if form == "train" else "deploy")
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_a_network_with_other_parallel_kernels_loads(tmp_path: Path) -> None:
    other = replace(TINY, backbone=replace(TINY.backbone, kernels=(1, 3, 5)))
    model = randomise(build_segmenter(other, seed=0)).eval()
    save_segmenter(model, "tiny", tmp_path / "five.safetensors")
    loaded, _preset, _report = load_segmenter(tmp_path / "five.safetensors")
    assert loaded.backbone.config.kernels == (1, 3, 5)


def test_a_network_from_before_its_preset_was_refined_loads_as_it_is(tmp_path: Path) -> None:
    now = PRESETS["edge-m"]
    assert now.backbone.refine
    before = replace(now, backbone=replace(now.backbone, refine=0))
    model = randomise(build_segmenter(before, seed=0)).eval()
    save_segmenter(model, "edge-m", tmp_path / "before.safetensors")
    loaded, _preset, report = load_segmenter(tmp_path / "before.safetensors")
    assert loaded.backbone.config.refine == 0
    assert report.fresh == ()
    grown = build_segmenter(now, seed=1).eval()
    assert {
        key.split(".")[1] for key in load_into(grown, tmp_path / "before.safetensors").fresh
    } == {"refine"}
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
        torch.testing.assert_close(grown(x), model(x))


class _Bomb:
    """What a hostile pickle does when it is loaded by the unwary."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"state_dict": {"x": _Bomb(trap)}}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"evil\.pth"):
        read_tensors(tmp_path / "evil.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Bomb(trap)))
    with pytest.raises(ModelError, match=r"bare\.pth"):
        read_tensors(tmp_path / "bare.pth")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\xff" * 64])
def test_garbage_is_one_line_naming_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_segmenter(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_size_names_the_key(tmp_path: Path) -> None:
    save_segmenter(_tiny_with_relu(), "edge-s", tmp_path / "lies.safetensors")
    with pytest.raises(ModelError, match=r"does not fit: '.+' is \("):
        load_segmenter(tmp_path / "lies.safetensors")


def _tiny_with_relu() -> Segmenter:
    return build_segmenter(replace(TINY, backbone=replace(TINY.backbone, activation="relu")))


def test_weights_of_another_activation_are_refused(tmp_path: Path) -> None:
    save_segmenter(_tiny_with_relu(), "tiny", tmp_path / "t.safetensors")
    with pytest.raises(ModelError, match="trained with relu and preset 'tiny' now has gelu"):
        load_segmenter(tmp_path / "t.safetensors")
    tensors, _metadata = read_tensors(tmp_path / "t.safetensors")
    save_file(tensors, tmp_path / "old.safetensors", {"format": "repmlp-edge", "preset": "edge-s"})
    with pytest.raises(ModelError, match="trained with gelu and preset 'edge-s' now has relu"):
        load_segmenter(tmp_path / "old.safetensors")


def test_a_contradicted_preset_is_an_error(tmp_path: Path) -> None:
    save_segmenter(tiny_segmenter(), "tiny", tmp_path / "t.safetensors")
    with pytest.raises(ModelError, match="'tiny', not 'edge-m'"):
        load_segmenter(tmp_path / "t.safetensors", "edge-m")


def test_a_backbone_alone_is_not_a_trained_segmenter(tmp_path: Path) -> None:
    published_file(tmp_path / "imagenet.pth")
    with pytest.raises(ModelError, match="not a trained segmenter"):
        load_segmenter(tmp_path / "imagenet.pth", "tiny")


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_segmenter()
    with torch.no_grad():
        model.head.classifier.weight[0, 0] = float("inf")
    save_segmenter(model, "tiny", tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"head\.classifier\.weight.*infinity"):
        load_segmenter(tmp_path / "nan.safetensors")


def test_the_preset_is_guessed_from_the_shapes_where_only_one_fits(tmp_path: Path) -> None:
    torch.save(tiny_segmenter().state_dict(), tmp_path / "plain.pth")
    _model, preset, _report = load_segmenter(tmp_path / "plain.pth")
    assert preset.name == "tiny"


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    save_segmenter(tiny_segmenter(), "tiny", path)
    before = path.read_bytes()

    monkeypatch.setattr("models.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_segmenter(tiny_segmenter(seed=1), "tiny", path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_keys_that_mean_nothing_are_reported() -> None:
    naming, renamed, skipped = rename_keys({"backbone.x": torch.zeros(1)})
    assert (naming, list(renamed), skipped) == ("native", ["backbone.x"], [])


@pytest.mark.parametrize("spoil", ["int8", "negative"])
def test_a_tensor_that_cannot_be_trained_weights_is_named(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "t.safetensors"
    save_segmenter(tiny_segmenter(), "tiny", path)
    tensors, metadata = read_tensors(path)
    key = next(k for k in tensors if k.endswith(".running_var"))
    value = tensors[key]
    tensors[key] = value.to(torch.int8) if spoil == "int8" else value - 10
    save_file(tensors, path, metadata)
    told = "is int8, the network has float32" if spoil == "int8" else "a negative variance"
    with pytest.raises(ModelError, match=told) as error:
        load_segmenter(path, "tiny")
    assert key in str(error.value)


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    for path, told in (
        (tmp_path, "is a directory"),
        (Path(os.devnull), "is not a regular file"),
        (tmp_path / "none.pth", "does not exist"),
    ):
        with pytest.raises(ModelError, match=told):
            read_tensors(path)


def test_weights_from_before_the_stem_was_refined_are_known(tmp_path: Path) -> None:
    preset = find_preset("edge-m")
    assert preset.backbone.refine
    before = replace(preset, backbone=replace(preset.backbone, refine=0))
    path = tmp_path / "m.safetensors"
    save_file(build_segmenter(before).state_dict(), path)
    model, found, _report = load_segmenter(path)
    assert found.name == "edge-m"
    assert not model.backbone.refine


@pytest.mark.parametrize("kind", ["sparse", "meta", "float8"])
def test_a_tensor_that_is_none_is_named(tmp_path: Path, kind: str) -> None:
    tensors = dict(tiny_segmenter().state_dict())
    key = next(k for k in tensors if k.endswith("conv.weight"))
    value = tensors[key]
    tensors[key] = {
        "sparse": lambda: value.to_sparse(),
        "meta": lambda: value.to("meta"),
        "float8": lambda: value.to(torch.float8_e4m3fn),
    }[kind]()
    torch.save(tensors, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match=key) as error:
        load_segmenter(tmp_path / "odd.pt", "tiny")
    assert "save plain tensors" in str(error.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_model_error(data: st.DataObject) -> None:
    whole = _saved()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.pt"
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
        with contextlib.suppress(ModelError, UnsafeCheckpointError):
            read_tensors(path)


@cache
def _saved() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.ones(3), "b": {"c": [1, "x"]}}, buffer)
    return buffer.getvalue()
