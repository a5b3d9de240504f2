"""Bad options and bad files: exit code 2, one line that names them, and nothing left behind."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.streets import write_dataset
from tests.scripts.build_engine.command import Run, left_in, process, words


def test_bad_input_exits_2_from_a_process_too(home: Path, tmp_path: Path) -> None:
    done = process(*words(home, tmp_path / "out", "--json", dataset=tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("error:") == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_options_exit_2_and_name_the_option(run: Run, tmp_path: Path) -> None:
    cases: list[tuple[tuple[str, ...], dict[str, object], str]] = [
        ((), {"precision": "int4"}, "--precision"),
        ((), {"backend": "onnx"}, "--backend"),
        ((), {"shape": "64"}, "'64' is not HxW"),
        ((), {"shape": "65x128"}, "--shape 65x128 is not a whole number of 32x32 patches"),
        ((), {"shape": "65x128"}, "nearest sizes that fit: 64x128, 96x128"),
        ((), {"calibration_shape": "100x256"}, "--calibration-shape 100x256 is not a whole"),
        ((), {"batch": "0"}, "positive"),
        ((), {"frames": "-3"}, "positive"),
        ((), {"min_agreement": "101"}, "--min-agreement 101"),
        ((), {"min_agreement": "nan"}, "--min-agreement nan"),
        ((), {"max_drop": "-1"}, "--max-drop -1"),
        ((), {"max_class_drop": "nan"}, "--max-class-drop nan"),
        ((), {"max_drop": "1", "precision": "fp32"}, "--precision fp32"),
        (("--force-split",), {"max_drop": "1", "split": "val"}, "score the val split"),
        ((), {"max_class_drop": "1", "precision": "fp32"}, "--max-class-drop"),
        ((), {"precision": "fp32", "frames": "4"}, "--frames means nothing to --precision fp32"),
        ((), {"precision": "fp16", "estimator": "minmax"}, "--estimator means nothing"),
        (("--force-split",), {"precision": "fp32"}, "--force-split means nothing"),
        ((), {"precision": "fp32", "split": "train"}, "--split means nothing"),
        ((), {"shape": "99968x99968"}, "--shape 99968x99968: more than 64 megapixels"),
        ((), {"calibration_shape": "32768x32768"}, "--calibration-shape 32768x32768: more"),
        ((), {"batch": "999999999"}, "with --batch 999999999: more than 64 megapixels"),
        ((), {"batch": "9" * 21}, "more than 9 digits"),
        ((), {"workspace": "9" * 20, "backend": "tensorrt"}, "--workspace"),
        ((), {"workspace": "2000000", "backend": "tensorrt"}, "--workspace 2000000: give 1048576"),
        (("--random-weights",), {}, "--random-weights and --checkpoint"),
        ((), {"workspace": "64"}, "--workspace means nothing to OpenVINO"),
        (("--strict-int8",), {}, "--strict-int8 means nothing to OpenVINO"),
        (("--labels",), {}, "--labels means nothing to OpenVINO"),
        ((), {"compute_capability": "8.9"}, "--compute-capability means nothing to OpenVINO"),
        ((), {"flavour": "tensorrt-rtx"}, "--flavour means nothing to OpenVINO"),
        ((), {"precision": "int8+fp16"}, "int8+fp16 is TensorRT's"),
        ((), {"precision": "int8+fp16", "backend": "all"}, "int8+fp16 is TensorRT's"),
        (("--strict-int8",), {"backend": "tensorrt", "precision": "fp16"}, "--strict-int8"),
        ((), {"preset": "edge-xxl"}, "unknown preset 'edge-xxl'"),
        ((), {"preset": "edge-m"}, "'tiny', not 'edge-m'"),
        ((), {"split": "val"}, "allow it with --force-split"),
        ((), {"split": "holdout"}, "holdout"),
    ]
    for more, options, said in cases:
        code, out, err = run(tmp_path / "out", "--json", *more, **options)
        assert (code, out) == (2, ""), (options, err)
        assert said in err, (options, err)
        assert err.count("error:") == 1
        assert "Traceback" not in err
    assert left_in(tmp_path / "out") == set()


def test_what_the_flavour_lacks_is_refused_before_anything_is_computed(
    run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    output = tmp_path / "out"
    for more, said in (
        (("--timing-cache",), "has no timing cache"),
        (("--optimization-level", "3"), "has no optimization level"),
        (("--hardware", "ampere+"), "has no hardware compatibility"),
        (("--version-compatible",), "has no version compatibility"),
        (("--compute-capability", "3.5"), "compute capability '3.5'"),
    ):
        code, out, err = run(
            output, *more, "--flavour", "tensorrt-rtx", backend="tensorrt", checkpoint="none.pth"
        )
        assert (code, out) == (2, ""), err
        assert said in err, err
    assert not list((output).glob(".store/*"))


def _no_tree(folder: Path) -> dict[str, object]:
    return {"dataset": folder / "nowhere"}


def _empty_split(folder: Path) -> dict[str, object]:
    (folder / "empty" / "leftImg8bit" / "train").mkdir(parents=True)
    return {"dataset": folder / "empty"}


def _broken_frame(folder: Path) -> dict[str, object]:
    tree = write_dataset(folder / "broken", train=2, val=1, height=64, width=128)
    path = sorted(tree.glob("leftImg8bit/train/*/*.png"))[0]
    path.write_bytes(path.read_bytes()[:-40])
    return {"dataset": tree}


def _wrong_label(folder: Path) -> dict[str, object]:
    tree = write_dataset(folder / "labels", train=2, val=1, height=64, width=128)
    path = next(tree.glob("gtFine/val/*/*labelIds.png"))
    cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
    return {"dataset": tree, "max_drop": 1}


def _unreadable_label(folder: Path) -> dict[str, object]:
    tree = write_dataset(folder / "label", train=2, val=1, height=64, width=128)
    next(tree.glob("gtFine/val/*/*labelIds.png")).write_bytes(b"no picture")
    return {"dataset": tree, "max_drop": 1}


def _no_checkpoint(folder: Path) -> dict[str, object]:
    return {"checkpoint": folder / "none.safetensors"}


def _checkpoints_folder(folder: Path) -> dict[str, object]:
    (folder / "weights").mkdir()
    return {"checkpoint": folder / "weights"}


def _corrupt(folder: Path) -> dict[str, object]:
    (folder / "corrupt.safetensors").write_bytes(b"\x00" * 100)
    return {"checkpoint": folder / "corrupt.safetensors"}


def _foreign(folder: Path) -> dict[str, object]:
    import torch

    torch.save({"fc.weight": torch.zeros(3, 3)}, folder / "foreign.pth")
    return {"checkpoint": folder / "foreign.pth", "preset": "tiny"}


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed-by-pickle",)


def _code(folder: Path) -> dict[str, object]:
    (folder / "code.pth").write_bytes(pickle.dumps(_Code()))
    return {"checkpoint": folder / "code.pth", "preset": "tiny"}


def _file_in_the_way(folder: Path) -> dict[str, object]:
    (folder / "file").write_text("in the way")
    return {"output": folder / "file"}


def _below_a_file(folder: Path) -> dict[str, object]:
    (folder / "file").write_text("in the way")
    return {"output": folder / "file" / "below"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_tree, "nowhere"),
        (_empty_split, "train"),
        (_broken_frame, "_leftImg8bit.png"),
        (_wrong_label, "_labelIds.png"),
        (_unreadable_label, "_labelIds.png"),
        (_no_checkpoint, "none.safetensors"),
        (_corrupt, "corrupt.safetensors"),
        (_foreign, "foreign.pth"),
        (_checkpoints_folder, "weights' is not a file"),
        (_code, "code.pth"),
        (_file_in_the_way, "folder '"),
        (_below_a_file, "folder '"),
    ],
)
def test_bad_files_exit_2_and_name_the_file(
    run: Run, tmp_path: Path, spoil: Callable[[Path], dict[str, object]], said: str
) -> None:
    spoilt = spoil(tmp_path)
    output = Path(str(spoilt.pop("output", tmp_path / "out")))
    code, out, err = run(output, "--json", **spoilt)
    assert (code, out) == (2, ""), err
    assert said in err, err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert left_in(output) == set()
    assert not Path("executed-by-pickle").exists()
