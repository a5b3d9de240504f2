"""The command itself: what it prints, how it exits, and what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import pytest

from calibration.errors import CalibrationDataError
from calibration.qdq_graph import QuantizedGraphError
from calibration.quantize import QuantizeSettings
from calibration.streets import write_dataset
from models.checkpoints import save_segmenter
from models.errors import ModelError
from models.segmenter import PRESETS
from pipeline.artifact import open_artifact
from pipeline.build_options import TensorRTOptions
from pipeline.console import run_command
from pipeline.errors import EdgeError
from scripts.build_engine import build_options, build_parser, main
from tests.models.helpers import TINY, tiny_segmenter

ROOT = Path(__file__).parents[2]
# The command, on a network that is small enough for tests.
COMMAND = (
    "import runpy, sys; from models.segmenter import PRESETS;"
    "from tests.models.helpers import TINY;"
    "PRESETS['tiny'] = TINY; sys.argv[0] = 'scripts/build_engine.py';"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
NAME = "tiny-int8-64x128"
Answer: TypeAlias = tuple[int, str, str]
Run: TypeAlias = Callable[..., Answer]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, ``tree``, and a checkpoint, ``tiny.safetensors``."""
    PRESETS.setdefault("tiny", TINY)
    folder = tmp_path_factory.mktemp("home")
    write_dataset(folder / "tree", train=4, val=2, height=64, width=128)
    save_segmenter(tiny_segmenter(), "tiny", folder / "tiny.safetensors")
    return folder


def words(home: Path, output: Path, *more: str, **options: object) -> list[str]:
    """The command's arguments, good ones unless told otherwise."""
    chosen = {
        "checkpoint": home / "tiny.safetensors", "dataset": home / "tree", "shape": "64x128",
        "frames": 4, "min_agreement": 50, "output": output, **options,
    }  # fmt: skip
    return [
        part
        for name, value in chosen.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ] + list(more)


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process: (exit code, stdout, stderr in one line)."""
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)

    def command(output: Path, *more: str, **options: object) -> Answer:
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: main(words(home, output, *more, **options)))
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, " ".join(captured.err.split())

    return command


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"COLUMNS": "100", "PYTHONPATH": "."} | environment, timeout=200,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the output folder of one good run in a process of its own, what it printed on stdout)."""
    output = tmp_path_factory.mktemp("made")
    done = process(*words(home, output, "--json"))
    assert done.returncode == 0, done.stderr
    (output / "stdout.json").write_text(done.stdout)
    (output / "stderr.txt").write_text(done.stderr)
    return output, output / "stdout.json"


def left_in(output: Path) -> set[str]:
    """What lies in an output folder besides whole artifacts of the store."""
    if not output.is_dir():
        return set()
    found = {path.name for path in output.iterdir()} - {".store"}
    for path in (output / ".store").glob("*"):
        if path.name.startswith("."):
            found.add(path.name)
        elif (path / "artifact.json").is_file():
            open_artifact(path / "artifact.json")
    return found


def test_stdout_is_one_object_and_all_else_is_on_stderr(made: tuple[Path, Path]) -> None:
    output, stdout = made
    text = stdout.read_text()
    found, end = json.JSONDecoder().raw_decode(text)
    assert text[end:] == "\n"
    assert {
        "engine", "manifest", "precision", "backend", "preset", "shape", "checks", "cached",
        "seconds",
    } <= set(found)  # fmt: skip
    assert Path(found["engine"]) == output / f"{NAME}.xml"
    assert open_artifact(Path(found["manifest"])).path == output / f"{NAME}.xml"
    assert (found["preset"], found["shape"], found["precision"]) == ("tiny", [64, 128], "int8")
    assert found["executed"] is True
    assert found["gate"] is None
    assert found["checks"]["engine_agreement"] >= 0.5
    assert found["checks"]["injection_error"] < 1e-12
    assert "quantize" in (output / "stderr.txt").read_text()
    assert left_in(output) == {
        f"{NAME}.xml", f"{NAME}.bin", f"{NAME}.xml.json", "stdout.json", "stderr.txt",
    }  # fmt: skip


def test_help_is_on_stdout_and_names_every_option() -> None:
    done = process("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--precision", "--max-drop", "--compute-capability", "--strict-int8", "--json"):
        assert option in done.stdout
    assert "With --json" not in done.stdout


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
        ((), {"shape": "65x128"}, "64x128"),
        ((), {"batch": "0"}, "positive"),
        ((), {"frames": "-3"}, "positive"),
        ((), {"min_agreement": "101"}, "--min-agreement 101"),
        ((), {"min_agreement": "nan"}, "--min-agreement nan"),
        ((), {"max_drop": "-1"}, "--max-drop -1"),
        ((), {"max_class_drop": "nan"}, "--max-class-drop nan"),
        ((), {"max_drop": "1", "precision": "fp32"}, "--precision fp32"),
        (("--force-split",), {"max_drop": "1", "split": "val"}, "--max-drop scores the val split"),
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
        ((), {"split": "val"}, "split 'val'"),
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
        (_code, "code.pth"),
        (_file_in_the_way, "--output '"),
        (_below_a_file, "--output '"),
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_another_owner_exits_2(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir(mode=0o500)
    code, _out, err = run(output)
    assert code == 2
    assert "--output" in err


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_an_output_that_refuses_files_exits_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("pipeline.publish.tempfile.TemporaryFile", refuse)
    code, _out, err = run(tmp_path / "out")
    assert code == 2
    assert f"--output '{tmp_path / 'out'}' cannot be written to: {os.strerror(reason)}" in err


def test_a_full_disk_exits_2_and_a_rerun_recovers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at once, or after a while: at the first fsync, or at a later one."""
    real, left = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    output = tmp_path / "out"
    for room in (0, 5):
        left = room
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            code, out, err = run(output, "--json", precision="fp32")
        assert (code, out) == (2, ""), err
        assert f"no room in '{output}': No space left on device" in err
        assert "Traceback" not in err
        assert left_in(output) == set()
    assert run(output, precision="fp32")[0] == 0
    assert "tiny-fp32-64x128.xml.json" in left_in(output)


def test_openvinos_own_writer_without_room_exits_2(made: tuple[Path, Path], run: Run) -> None:
    """The system's limit on file sizes stands for a full disk that even C++ code must notice."""
    output, _stdout = made
    for folder in (output / ".store").glob("build-openvino-*"):
        shutil.rmtree(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code, _out, err = run(output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2, err
    assert "OpenVINO cannot write" in err
    assert "Traceback" not in err
    left_in(output)
    assert not list((output / ".store").glob(".build-*"))
    assert run(output)[0] == 0


def test_the_estimator_is_the_librarys_default(home: Path, tmp_path: Path) -> None:
    asked = build_options(build_parser().parse_args(words(home, tmp_path)))
    assert asked.settings == QuantizeSettings()
    assert asked.gate is None
    assert asked.tensorrt == TensorRTOptions()


def test_a_full_disk_while_publishing_leaves_nothing_half(
    made: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _stdout = made
    manifest = output / f"{NAME}.xml.json"
    manifest.unlink()
    (output / f"{NAME}.bin").unlink()

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.publish.shutil.copyfileobj", full)
        code, _out, err = run(output)
    assert code == 2
    assert "no room in" in err
    assert not manifest.exists()
    assert not [path for path in output.iterdir() if path.name.startswith(f".{NAME}")]
    assert run(output)[0] == 0
    assert open_artifact(manifest).path.name == f"{NAME}.xml"


def test_the_gate_exits_1_and_withdraws_the_engine(made: tuple[Path, Path], run: Run) -> None:
    """Random weights lose something: a limit far above passes, one below does not."""
    output, _stdout = made
    code, out, _err = run(output, "--json", max_drop=99, max_class_drop=100)
    passed = json.loads(out)
    assert code == 0
    assert passed["passed"] is True
    gate = passed["gate"]
    assert (gate["split"], gate["frames"], gate["scored"]) == ("val", 2, "engine")
    assert gate["drop"] == gate["reference"]["miou"] - gate["candidate"]["miou"]
    assert (output / f"{NAME}.xml").is_file()
    manifest = output / f"{NAME}.xml.json"
    assert open_artifact(manifest).facts["gate"] == gate
    assert run(output)[0] == 0
    assert open_artifact(manifest).facts["gate"] == gate, "a build without a gate forgot it"
    worst = gate["worst_class"]["drop"]
    assert worst > 0, "int8 of this network must lose a class something, or nothing is tested"
    code, out, err = run(output, "--json", max_drop=99, max_class_drop=worst / 2)
    refused = json.loads(out)
    assert code == 1, err
    assert refused["gate"]["worst_class"] == gate["worst_class"]
    assert (refused["passed"], refused["engine"], refused["manifest"]) == (False, None, None)
    assert refused["gate"]["reasons"][0].startswith(gate["worst_class"]["name"])
    assert "REGRESSION" in err
    assert not list(output.glob(f"{NAME}.*"))
    assert run(output)[0] == 0
    assert (output / f"{NAME}.xml").is_file()


@pytest.mark.parametrize(
    "error",
    [
        EdgeError("one\nline"), CalibrationDataError("one\nline"), ModelError("one\nline"),
        QuantizedGraphError("one\nline"), OSError(errno.ENOSPC, "one line"),
    ],
)  # fmt: skip
def test_every_error_of_ours_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: one line\n"


def test_a_bug_keeps_its_traceback() -> None:
    def fail() -> int:
        raise ValueError("nobody's fault but ours")

    with pytest.raises(ValueError, match="ours"):
        run_command(fail)
