"""The command from end to end, with ONNX files whose labels are painted into the frames.

Blue is what one engine says of a pixel, green what the other says, red what a third says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest

from calibration.cityscapes import TRAIN_IDS_TO_LABEL_IDS
from pipeline.artifact import Manifest, sha256_of
from pipeline.console import run_command
from pipeline.report.evaluate import evaluate
from pipeline.report.records import StateFile
from pipeline.report.run import STATE_NAME
from pipeline.report.schema import Report
from pipeline.store import MANIFEST_NAME
from scripts.accuracy_report import main
from tests.scripts.painted import HEIGHT, WIDTH, another_file, write_classifier, write_engine

FRAMES = 5
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def labels() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(truth, what blue says, what green says) of each frame; green is worse on class 3."""
    found = []
    for seed in range(FRAMES):
        rng = np.random.default_rng(seed)
        truth = np.kron(rng.integers(0, 6, (6, 8)), np.ones((8, 8), int)).astype(np.uint8)
        blue = np.where(rng.random(truth.shape) < 0.1, 7, truth).astype(np.uint8)
        spoilt = (truth == 3) & (rng.random(truth.shape) < 0.3)
        green = np.where(spoilt, 1, blue).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = 255
        found.append((truth, blue, green))
    return found


@pytest.fixture
def tree(tmp_path: Path, labels: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Path:
    """The frames as a Cityscapes tree."""
    for index, (truth, blue, green) in enumerate(labels):
        name = f"ulm_{index:06d}_000019"
        for kind, ending, picture in (
            ("leftImg8bit", "leftImg8bit", np.stack([blue, green, blue], -1)),
            ("gtFine", "gtFine_labelIds", TRAIN_IDS_TO_LABEL_IDS[truth]),
        ):
            path = tmp_path / "data" / kind / "val" / "ulm" / f"{name}_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    return tmp_path / "data"


@pytest.fixture
def run(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs the command over the tree with engines blue and green; (exit code, stdout, stderr)."""
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    monkeypatch.chdir(tmp_path)
    blue = write_engine(tmp_path / "blue.onnx", 0)
    green = write_engine(tmp_path / "green.onnx", 1)

    def command(*more: str, **options: str) -> tuple[int, str, str]:
        chosen = {
            "reference": str(blue), "candidate": str(green), "dataset": str(tree),
            "output": str(tmp_path / "out"), "resamples": "50", "patch": "24x32", **options,
        }  # fmt: skip
        arguments = [part for name, value in chosen.items()
                     for part in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: main([*arguments, *more]))
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return command


def test_a_loss_beyond_the_limit_exits_1_and_says_where(
    run: Run, tmp_path: Path, labels: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    code, out, err = run("--json")
    assert code == 1
    assert "REGRESSION" in err
    printed = json.loads(out)
    assert Report.model_validate(printed) == Report.model_validate_json(
        (tmp_path / "out" / "report.json").read_text()
    )
    truth, blue, green = (np.concatenate([f[k].ravel() for f in labels]) for k in range(3))
    scored = truth != 255
    for name, said in (("reference", blue), ("candidate", green)):
        ious = []
        for c in range(6):
            t, p = (truth == c)[scored], (said == c)[scored]
            ious.append(100 * (t & p).sum() / (t | p).sum())
        assert printed[name]["miou"] == pytest.approx(np.mean(ious), abs=1e-9)
        assert printed[name]["name"] == {"reference": "blue", "candidate": "green"}[name]
    assert printed["worst_class"]["name"] == "wall"
    assert printed["frames"] == FRAMES
    assert printed["patch_edges"]["verdict"] in ("as good", "worse", "undecided")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "report.json", "report.md", "report.xml", "evaluation.state",
    }  # fmt: skip
    suite = ET.parse(tmp_path / "out" / "report.xml").getroot().find("testsuite")  # noqa: S314  our own
    assert suite is not None
    assert int(suite.get("failures", "0")) >= 1


def test_frames_that_calibrated_the_candidate_are_told_of_everywhere(
    run: Run, tree: Path, tmp_path: Path
) -> None:
    """The candidate is a graph in its build's store, whose manifest names two of the frames."""
    store = tmp_path / "store"
    store.mkdir()
    graph = write_engine(store / "model.int8.onnx", 1)
    seen = sorted((tree / "leftImg8bit").rglob("*.png"))[1:3]
    listed = [{"path": path.name, "sha256": sha256_of(path)} for path in seen]
    manifest = Manifest(
        kind="qdq-onnx", main=graph.name, files={graph.name: sha256_of(graph)}, key="k",
        provenance={"quantize": {"calibration": {"frames": listed}}},
    )  # fmt: skip
    (store / MANIFEST_NAME).write_bytes(manifest.to_json())
    _code, out, err = run("--json", candidate=str(graph))
    assert json.loads(out)["calibrated_frames"] == 2
    said = "2 of 5 scored frames also calibrated"
    assert f"warning: {said}" in " ".join(err.split())
    for name in ("report.html", "report.md"):
        assert said in (tmp_path / "out" / name).read_text()
    for path in seen:  # other frames by now
        picture = cv2.imread(str(path))
        assert picture is not None
        picture[0, 0] ^= 1
        cv2.imwrite(str(path), picture)
    _code, out, err = run("--json", candidate=str(graph))
    assert json.loads(out)["calibrated_frames"] == 0
    assert "also calibrated" not in err + (tmp_path / "out" / "report.md").read_text()


def test_limits_that_allow_it_exit_0_without_scoring_again(run: Run) -> None:
    assert run()[0] == 1
    code, out, err = run(max_drop="50", max_class_drop="90")
    assert code == 0
    assert out == ""
    assert "PASSED" in err
    assert f"{FRAMES} of {FRAMES} frames were scored before" in err


def test_stale_scores_are_never_used(run: Run, tree: Path, tmp_path: Path) -> None:
    first = json.loads(run("--json")[1])
    again = run("--json", "--fresh")
    assert "scored before" not in again[2]
    # A label changes.
    path = next(tree.glob("gtFine/val/ulm/*_000002_*.png"))
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert label is not None
    cv2.imwrite(str(path), np.where(label == 0, 7, label).astype(np.uint8))
    changed = run("--json")
    assert "scored before" not in changed[2]
    assert json.loads(changed[1])["scored_pixels"] > first["scored_pixels"]
    # An engine changes, under the same name.
    another_file(write_engine(tmp_path / "green.onnx", 0))
    same = run("--json")
    assert "scored before" not in same[2]
    assert same[0] == 0
    assert json.loads(same[1])["drop"] == 0


def test_an_interrupted_run_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(run("--json", output="whole")[1])

    def interrupted(*arguments: Any, **options: Any) -> Any:
        told = options["on_frame"]

        def stop(done: int) -> None:
            told(done)
            if done == 3:
                raise KeyboardInterrupt

        return evaluate(*arguments, **{**options, "on_frame": stop})

    monkeypatch.setattr("pipeline.report.run.evaluate", interrupted)
    code, out, err = run("--json")
    assert (code, out) == (130, "")
    assert "give the same command again" in err
    monkeypatch.undo()
    code, out, err = run("--json")
    assert f"3 of {FRAMES} frames were scored before" in err
    resumed = json.loads(out)
    for timed in ("created_at", "speedup", "provenance"):
        whole.pop(timed)
        resumed.pop(timed)
    for engine in ("reference", "candidate"):
        whole[engine].pop("latency_ms")
        resumed[engine].pop("latency_ms")
    assert resumed == whole


def test_a_limit_spreads_over_the_split(run: Run) -> None:
    report = json.loads(run("--json", limit="2")[1])
    assert report["frame_names"] == ["ulm_000000_000019", "ulm_000002_000019"]


def _truncate(tree: Path) -> None:
    path = next(tree.glob("leftImg8bit/val/ulm/*_000001_*.png"))
    path.write_bytes(path.read_bytes()[:-40])


def _unknown(tree: Path) -> None:
    path = next(tree.glob("gtFine/val/ulm/*_000001_*.png"))
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 99, np.uint8))


def _smaller(tree: Path) -> None:
    path = next(tree.glob("gtFine/val/ulm/*_000001_*.png"))
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH // 2), 7, np.uint8))


def _unlabelled(tree: Path) -> None:
    next(tree.glob("gtFine/val/ulm/*_000001_*.png")).unlink()


@pytest.mark.parametrize("damage", [_truncate, _unknown, _smaller, _unlabelled])
def test_bad_frames_exit_2_and_can_be_left_out(
    run: Run, tree: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(tree)
    code, out, err = run("--json")
    assert (code, out) == (2, "")
    flat = " ".join(err.split())
    assert f"error: 1 of {FRAMES} frames of split 'val' cannot be scored" in flat
    assert "ulm_000001_000019" in flat
    assert "Traceback" not in err
    assert not list((tmp_path / "out").glob("report.*"))
    code, out, err = run("--json", "--skip-bad")
    assert code == 1
    report = json.loads(out)
    assert report["frames"] == FRAMES - 1
    assert len(report["left_out"]) == 1


def test_allowing_host_code_without_an_engine_that_could_carry_it_exits_2(run: Run) -> None:
    code, out, err = run("--json", "--allow-host-code")
    assert (code, out) == (2, "")
    assert "neither --reference nor --candidate names a TensorRT engine" in " ".join(err.split())


def test_bad_options_and_engines_exit_2(run: Run, tmp_path: Path, tree: Path) -> None:
    (tmp_path / "empty" / "leftImg8bit" / "val").mkdir(parents=True)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    cases: list[tuple[dict[str, str], str]] = [
        ({"candidate": "int9"}, "--candidate int9: no such engine file"),
        ({"reference": str(tmp_path / "none.xml")}, "no such engine file"),
        ({"candidate": str(tmp_path / "file")}, "is not an engine"),
        ({"candidate": str(tmp_path / "bad.onnx")}, "cannot be opened"),
        ({"candidate": str(write_classifier(tmp_path / "eleven.onnx", 11))}, "11 classes"),
        ({"candidate": str(write_engine(tmp_path / "wide.onnx", 1, (48, 128)))}, "48x128"),
        ({"dataset": str(tmp_path / "nowhere")}, "no such data set"),
        ({"dataset": str(tmp_path / "empty")}, "holds no"),
        ({"split": "train"}, "no such split"),
        ({"split": "holdout"}, "invalid choice"),
        ({"max_drop": "-1"}, "--max-drop"),
        ({"max_class_drop": "nan"}, "--max-class-drop"),
        ({"exact": "some"}, "--exact some"),
        ({"form": "train"}, "--form train is of a candidate that is built"),
        ({"limit": "0"}, "positive"),
        ({"patch": "24"}, "HxW"),
        ({"output": str(tmp_path / "file" / "below")}, "cannot be written"),
        ({"output": str(tmp_path / "file")}, "cannot be written"),
        ({"candidate": str(tmp_path / "blue.onnx")}, "are the same engine"),
        ({"seed": "-1"}, "--seed -1: give a whole number"),
        ({"resamples": "99999999"}, "--resamples 99999999: give 1000000 at most"),
        ({"patch": "1x1"}, "--patch 1x1: patches of a network"),
        ({"sensitivity_frames": "3"}, "--sensitivity-frames means nothing without --sensitivity"),
        ({"backend": "all"}, "--backend"),
        (
            {"reference": "fp32", "shape": "100x256", "candidate": "int8"},
            "--shape 100x256 is not a whole number",
        ),
    ]
    for options, said in cases:
        code, out, err = run("--json", **options)
        assert (code, out) == (2, ""), options
        assert said in " ".join(err.split()), (options, err)
        assert err.count("error:") == 1
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists(), options
    for more, said in (
        (("--bisect",), "--bisect needs an OpenVINO candidate"),
        (("--sensitivity",), "--sensitivity needs a candidate whose"),
    ):
        code, _out, err = run(*more, output=str(tmp_path / "new" / "out"))
        assert code == 2
        assert said in " ".join(err.split())
        assert not (tmp_path / "new").exists()
    (tmp_path / "out").mkdir()  # one that was there stays
    assert run("--bisect")[0] == 2
    assert not list((tmp_path / "out").iterdir())


def test_foreign_labels_exit_2_naming_the_frame(run: Run, tree: Path) -> None:
    path = next(tree.glob("leftImg8bit/val/ulm/*_000003_*.png"))
    picture = cv2.imread(str(path))
    assert picture is not None
    picture[0, 0, 1] = 40
    cv2.imwrite(str(path), picture)
    code, _out, err = run()
    assert code == 2
    assert "green labels 1 pixels of frame ulm_000003_000019 as class 40" in " ".join(err.split())


def test_two_reports_at_once_are_refused(run: Run, tmp_path: Path) -> None:
    with StateFile(tmp_path / "out" / STATE_NAME, "other"):
        code, _out, err = run()
    assert code == 2
    assert "another process" in " ".join(err.split())
