"""The mean of checkpoints, against NumPy's, and what cannot be averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from calibration.cityscapes import CLASS_NAMES
from models.checkpoints import load_segmenter, save_segmenter
from models.errors import ModelError
from models.locality import inject_locality
from models.segmenter import PRESETS
from pipeline.errors import UsageError
from scripts.average_weights import main
from tests.models.helpers import TINY, tiny_segmenter


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def trained(path: Path, seed: int, *, deploy: bool = False) -> Path:
    model = tiny_segmenter(seed)
    save_segmenter(inject_locality(model).model if deploy else model, "tiny", path)
    return path


def test_every_weight_is_the_mean(tmp_path: Path) -> None:
    files = [trained(tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]
    out = tmp_path / "new" / "mean.safetensors"
    assert main([*map(str, files), "--output", str(out)]) == 0
    parts, got = [load_file(f) for f in files], load_file(out)
    assert set(got) == set(parts[0])
    for key, value in got.items():
        want = np.mean([p[key].astype(np.float64) for p in parts], axis=0)
        if np.issubdtype(value.dtype, np.floating):
            np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-12)
    _model, preset, report = load_segmenter(out)
    assert preset.name == "tiny"
    assert not report.fresh


def test_what_cannot_be_averaged_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    one = trained(tmp_path / "one.safetensors", 0)
    deploy = trained(tmp_path / "deploy.safetensors", 1, deploy=True)
    out = tmp_path / "mean.safetensors"
    with pytest.raises(UsageError, match=r"two checkpoints or more, or --favour CLASS=LOGIT, for"):
        main([str(one), "--output", str(out)])
    with pytest.raises(UsageError, match="name it"):
        main([str(one), str(one), "--output", str(tmp_path / "mean.pt")])
    with pytest.raises(ModelError, match="another form"):
        main([str(one), str(deploy), "--output", str(out)])
    with pytest.raises(ModelError, match=r"none\.safetensors' does not exist"):
        main([str(one), str(tmp_path / "none.safetensors"), "--output", str(out)])
    assert not out.exists()


def test_a_favoured_class_has_so_much_more_logit_and_the_others_what_they_had(
    tmp_path: Path,
) -> None:
    one = trained(tmp_path / "one.safetensors", 0)
    out = tmp_path / "favoured.safetensors"
    assert main([str(one), "--favour", "pole=1.5", "--favour", "car=-2", "--output", str(out)]) == 0
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (load_segmenter(f)[0].eval()(image) for f in (one, out))
    wanted = np.zeros(before.shape[1])
    wanted[[CLASS_NAMES.index("pole"), CLASS_NAMES.index("car")]] = 1.5, -2
    added = (after - before).double().numpy()
    np.testing.assert_allclose(
        added, np.broadcast_to(wanted[:, None, None], added.shape), atol=1e-5
    )


def test_a_class_named_twice_is_refused_rather_than_half_obeyed(tmp_path: Path) -> None:
    one = trained(tmp_path / "one.safetensors", 0)
    out = tmp_path / "favoured.safetensors"
    with pytest.raises(UsageError, match="'pole=2': 'pole' is named twice"):
        main([str(one), "--favour", "pole=1", "--favour", "pole=2", "--output", str(out)])
    assert not out.exists()


@pytest.mark.parametrize("entry", ["pole", "pole=", "pole=nan", "pole=11", "lamp=1", "=1"])
def test_what_cannot_be_favoured_is_refused(tmp_path: Path, entry: str) -> None:
    one = trained(tmp_path / "one.safetensors", 0)
    out = tmp_path / "favoured.safetensors"
    with pytest.raises(UsageError, match="give CLASS=LOGIT"):
        main([str(one), "--favour", entry, "--output", str(out)])
    assert not out.exists()
