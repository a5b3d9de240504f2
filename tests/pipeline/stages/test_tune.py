"""``--tune`` for real on a small engine: measured, kept in the manifest, used, and found again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifact import hash_of, open_artifact, read_manifest, write_whole
from pipeline.build import BuildOptions, BuildResult, TunePace, build
from pipeline.build_parser import build_options, build_parser
from pipeline.engines import setups
from pipeline.engines.cpu import cpu_count, cpu_model
from pipeline.engines.opening import manifest_of, open_engine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.engines.setups import GOALS, Goal, default_setup
from pipeline.errors import EngineError, UsageError
from pipeline.stages.tune import TuneConfig, TuneStage
from pipeline.store import Store
from pipeline.tuning import candidates
from scripts import build_engine, run_video

QUICK = TunePace(rounds=3, seconds=0.01, settle=0.0, look=0.02)


@pytest.fixture(scope="module")
def options(
    int8_build: BuildResult, int8_options: BuildOptions, tmp_path_factory: pytest.TempPathFactory
) -> BuildOptions:
    """The shared build, in a folder of our own."""
    output = tmp_path_factory.mktemp("tune") / "engines"
    shutil.copytree(int8_options.output, output)
    return replace(int8_options, output=output, tune=QUICK)


@pytest.fixture(scope="module")
def tuned(options: BuildOptions) -> BuildResult:
    return build(options)


def tuning_of(result: BuildResult) -> dict[str, Any]:
    found = result.engines[0].tuning
    assert found is not None
    return found


def rewrite(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tuning in an engine's manifest."""
    manifest = read_manifest(manifest_of(engine))
    facts = json.loads(json.dumps(manifest.facts))
    change(facts["tuning"])
    write_whole(manifest_of(engine), replace(manifest, facts=facts).to_json())


@pytest.fixture
def engine(tuned: BuildResult, tmp_path: Path) -> Path:
    """A copy of the tuned engine, to spoil."""
    for path in tuned.engine.parent.glob(f"{tuned.engine.stem}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / tuned.engine.name


def test_every_candidate_is_measured_and_the_machine_is_named(tuned: BuildResult) -> None:
    found = tuning_of(tuned)
    assert found["machine"] == {"cpu": cpu_model(), "cpus": cpu_count()}
    assert set(found["load"]) == {"before", "after", "others", "loaded"}
    assert (found["rounds"], found["tiles"]) == (QUICK.rounds, 1)
    for goal in GOALS:
        measured = found[goal]["candidates"]
        asked = [setup.as_json() for setup in candidates(goal, cpu_count())]
        got = [{key: each[key] for key in asked[0]} for each in measured]
        # The runtime may take fewer threads than offered; then two candidates are one.
        assert got[0] == asked[0]
        assert [each for each in asked if each in got] == got
        for each in measured:
            assert len(each["rounds_ms"]) == QUICK.rounds
            assert all(ms > 0 for ms in each["rounds_ms"])
            assert each["ms"] == pytest.approx(np.median(each["rounds_ms"]), abs=1e-3)
            assert each["tiles_per_second"] == pytest.approx(1e3 / each["ms"], rel=0.01)
            assert 1 <= each["threads_taken"] <= cpu_count()
        assert found[goal]["chosen"] in got


def test_the_manifest_has_it_and_the_store_is_as_it_was(
    tuned: BuildResult, int8_build: BuildResult, int8_options: BuildOptions
) -> None:
    manifest = read_manifest(tuned.manifest)
    assert manifest.facts["tuning"] == tuning_of(tuned)
    untuned = read_manifest(int8_build.manifest)
    own: dict[str, Any] = {"tuning": None, "rebuild": None}  # the command names the folder
    assert replace(manifest, facts=manifest.facts | own) == replace(
        untuned, facts=untuned.facts | own
    )
    (one,) = (tuned.options.output / ".store").glob(f"build-openvino-{manifest.key[:20]}")
    other = int8_options.output / ".store" / one.name
    assert "tuning" not in open_artifact(one / "artifact.json").facts
    assert (one / "artifact.json").read_bytes() == (other / "artifact.json").read_bytes()


def test_a_second_build_finds_the_choice_and_one_without_it_leaves_it(
    tuned: BuildResult, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_args: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(TuneStage, "build", measure)
    before = tuned.manifest.read_bytes()
    again = build(options)
    assert {"build-openvino", "tune"} <= set(again.cached)
    assert tuning_of(again) == tuning_of(tuned)
    plain = build(replace(options, tune=None))
    assert plain.engines[0].tuning is None
    assert tuned.manifest.read_bytes() == before


def test_another_number_of_cpus_is_measured_anew(
    tuned: BuildResult, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measure(stage: TuneStage, *_args: object) -> None:
        asked.append(hash_of(stage.device()))
        raise EngineError("measured")

    monkeypatch.setattr(TuneStage, "build", measure)
    monkeypatch.setattr("pipeline.stages.tune.cpu_count", lambda: cpu_count() + 1)
    with pytest.raises(EngineError, match="measured"):
        build(options)
    assert asked
    assert open_artifact(tuned.manifest).path == tuned.engine, "the engine itself must stay"


@pytest.mark.parametrize("goal", GOALS)
def test_an_engine_opens_as_it_was_tuned(engine: Path, goal: Goal) -> None:
    setup = {"streams": 1, "threads": 1, "slots": 5}
    rewrite(engine, lambda tuning: tuning[goal].update(chosen=setup))
    with open_engine(engine, goal=goal) as opened:
        assert opened.slots == 5
        assert (opened.info.extra["streams"], opened.info.extra["threads"]) == (1, 1)
        assert opened.info.extra["tuned_for"] == goal
        noise = np.random.default_rng(1).integers(0, 256, opened.inputs[0].shape, np.uint8)
        labels = opened.infer(noise)
    with OpenVINOEngine(engine, precision="int8") as plain:
        np.testing.assert_allclose(labels, plain.infer(noise), rtol=1e-3, atol=1e-3)
    with open_engine(engine, goal=goal, streams=1) as given:
        assert given.slots == 2
        assert given.info.extra["threads"] == plain.info.extra["threads"]
        assert "tuned_for" not in given.info.extra


def test_more_streams_are_opened_where_they_won(engine: Path) -> None:
    if cpu_count() < 2:
        pytest.skip("one CPU: OpenVINO opens one stream")
    setup = {"streams": 2, "threads": 2, "slots": 4}
    rewrite(engine, lambda tuning: tuning["latency"].update(chosen=setup))
    with open_engine(engine) as opened:
        assert (opened.info.extra["streams"], opened.info.extra["threads"]) == (2, 2)
        assert opened.slots == 4


def test_another_number_of_cpus_ignores_it_with_a_line(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setups, "cpu_count", lambda: cpu_count() + 1)
    with open_engine(engine) as opened:
        assert "tuned_for" not in opened.info.extra
        assert f"tuned with {cpu_count()} CPUs" in opened.info.extra["tuning_ignored"]


def test_what_the_runtime_does_not_take_is_measured_once(
    tuned: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered four times the CPUs there are, OpenVINO takes what it has: many setups are one."""
    offered = 4 * cpu_count()
    monkeypatch.setattr("pipeline.stages.tune.cpu_count", lambda: offered)
    config = TuneConfig(precision="int8", rounds=1, seconds=0.01, settle=0, look=0.01)
    turns: list[tuple[int, int]] = []
    stage = TuneStage(config, Store(tmp_path), turned=lambda *turn: turns.append(turn))
    found = stage.run(tuned.engines[0].artifact).facts["tuning"]
    measured = [each for goal in GOALS for each in found[goal]["candidates"]]
    for goal in GOALS:
        default = found[goal]["default"]
        assert default == default_setup(goal, offered).as_json()
        assert found[goal]["candidates"][0].items() >= default.items()
    assert len(measured) < sum(len(candidates(goal, offered)) for goal in GOALS)
    assert all(each["threads_taken"] <= cpu_count() for each in measured)
    assert turns == [(done, len(measured)) for done in range(len(measured) + 1)]


def test_tensorrt_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"--tune measures .*TensorRT"):
        BuildOptions(backend="tensorrt", tune=TunePace())
    assert BuildOptions(backend="all", tune=TunePace()).tune is not None
    words = build_parser("").parse_args(["--backend", "tensorrt", "--tune"])
    with pytest.raises(UsageError, match="--tune"):
        build_options(words)


def test_the_command_says_what_it_chose_and_that_it_was_found(
    options: BuildOptions, tuned: BuildResult, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipeline.build_options.TunePace", lambda: QUICK)
    words = [
        "--checkpoint", options.checkpoint, "--shape", "64x128", "--dataset", options.dataset,
        "--frames", "6", "--min-agreement", "50", "--output", options.output, "--tune", "--json",
    ]  # fmt: skip
    assert build_engine.main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed["tuning"] == tuning_of(tuned) == printed["engines"][0]["tuning"]
    assert "tune cached" in " ".join(err.split())
    assert "openvino: for latency 1 stream on" in err
    assert "tiles/s" in err


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], {"goal": "throughput", "streams": 0, "threads": 0, "slots": 0}),
        (["--allow-host-code"],
         {"goal": "throughput", "streams": 0, "threads": 0, "slots": 0, "allow_host_code": True}),
        (["--realtime"], {"goal": "latency", "streams": 0, "threads": 0, "slots": 0}),
        (["--streams", "3", "--threads", "2", "--tiles", "cover"],
         {"goal": "throughput", "streams": 3, "threads": 2, "slots": run_video.COVER_SLOTS}),
    ],
)  # fmt: skip
def test_the_runner_asks_for_what_counts(
    monkeypatch: pytest.MonkeyPatch, more: list[str], expected: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {}

    def opening(_path: Path, **words: Any) -> None:
        asked.update(words)
        raise EngineError("enough")

    monkeypatch.setattr(run_video, "open_engine", opening)
    words = ["run_video.py", "streets", "--engine", "none.xml", "--headless", *more]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(EngineError, match="enough"):
        run_video.main()
    assert asked == {"allow_host_code": False} | expected


@pytest.mark.parametrize("fits", [True, False])
def test_the_runner_says_whether_it_runs_as_tuned(
    engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, fits: bool,
) -> None:  # fmt: skip
    if not fits:
        rewrite(engine, lambda tuning: tuning["machine"].update(cpu="Another CPU", cpus=64))
    words = [
        "run_video.py", "streets", "--size", "64x128", "--engine", engine, "--headless",
        "--max-frames", "2", "--labels", tmp_path / "labels",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    assert run_video.main() == 0
    said = " ".join(capsys.readouterr().err.split())
    assert ("tuned for throughput" in said) is fits
    assert ("tuned with 64 CPUs (Another CPU)" in said) is not fits
