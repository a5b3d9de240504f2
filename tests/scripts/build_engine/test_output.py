"""What the command prints, how its gate exits, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from calibration.quantize import QuantizeSettings
from pipeline.artifact import open_artifact
from pipeline.build_options import TensorRTOptions
from pipeline.build_parser import build_options, build_parser
from pipeline.engines.cpu import cpu_features, products_saturate
from scripts.build_engine import main
from tests.helpers import exit_code
from tests.scripts.build_engine.command import FRAMES, NAME, Made, Run, left_in, words


def test_stdout_is_one_object_and_all_else_is_on_stderr(made: Made) -> None:
    output = made.output
    text = made.stdout.read_text()
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


def test_a_build_calls_nobody(made: Made) -> None:
    """OpenVINO and nncf would report themselves, and leave a client id in the home folder."""
    assert not made.calls.exists(), made.calls.read_text()
    assert not (made.user / "intel").exists()


def test_help_is_on_stdout_and_names_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert exit_code(main, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for option in ("--precision", "--max-drop", "--compute-capability", "--strict-int8", "--json"):
        assert option in out
    assert "With --json" not in out


def test_the_estimator_is_the_librarys_default(home: Path, tmp_path: Path) -> None:
    asked = build_options(build_parser("").parse_args(words(home, tmp_path)))
    saturates = products_saturate(cpu_features())
    assert asked.settings == QuantizeSettings(overflow_fix=saturates)
    assert asked.gate is None
    assert asked.tensorrt == TensorRTOptions()


def test_the_gate_exits_1_and_withdraws_the_engine(made: Made, run: Run) -> None:
    """Random weights lose something: a limit far above passes, one below does not."""
    output = made.output
    code, out, _err = run(output, "--json", max_drop=99, max_class_drop=100)
    passed = json.loads(out)
    assert code == 0
    assert passed["passed"] is True
    gate = passed["gate"]
    assert (gate["split"], gate["frames"], gate["scored"]) == ("val", 2, "engine")
    assert gate["calibrated"] == 0
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


def test_a_gate_on_frames_that_calibrate_is_refused_first_and_warned_of_where_forced(
    run: Run, home: Path, tmp_path: Path
) -> None:
    """The very pictures, by a link: neither a split's name nor a path tells."""
    tree, output = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(home / "tree", tree)
    for kind in ("leftImg8bit", "gtFine"):
        shutil.rmtree(tree / kind / "val")
        (tree / kind / "val").symlink_to(tree / kind / "train")
    limits: dict[str, object] = {"dataset": tree, "max_drop": 99, "max_class_drop": 100}
    code, _out, err = run(output, frames=3, **limits)
    assert code == 2
    assert "3 of 4 frames of 'val', which the gate scores, calibrate as well" in err
    assert "--force-split" in err
    assert not list((output / ".store").glob("inject-*"))
    code, out, err = run(output, "--force-split", "--json", frames=3, **limits)
    assert code == 0, err
    assert "3 of 4 scored frames also calibrated it" in err
    gate = json.loads(out)["gate"]
    assert (gate["frames"], gate["calibrated"]) == (4, 3)
    assert open_artifact(output / f"{NAME}.xml.json").facts["gate"] == gate


def test_fewer_frames_than_asked_for_and_labels_far_from_fp32_are_told(made: Made) -> None:
    printed = json.loads(made.stdout.read_text())
    err = " ".join((made.output / "stderr.txt").read_text().split())
    assert printed["calibration"] == {"requested": FRAMES, "taken": 4}
    assert f"calibrated on 4 frames, not {FRAMES}: there are no more" in err
    told = "are the calibration frames like those it will see?" in err
    assert told == (printed["checks"]["int8_agreement"] < 0.95)


def test_labels_that_a_search_needs_are_asked_for_first(
    run: Run, home: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(home / "tree", tree)
    shutil.rmtree(tree / "gtFine" / "train")
    code, _out, err = run(tmp_path / "out", "--search", dataset=tree, max_drop=0)
    assert code == 2
    assert "cannot be scored" in err
    assert not list((tmp_path / "out" / ".store").glob("export-*"))
