"""The whole benchmark on a tiny network, one short round, and the command around it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pipeline.benchmark import run as whole
from pipeline.benchmark.app import APP_LATENCY, APP_THROUGHPUT
from pipeline.benchmark.clip import open_clip, read_frames, write_streets
from pipeline.benchmark.contenders import BF16, INT8, NOT_ASKED, ORT_INT8
from pipeline.benchmark.options import BenchmarkOptions, Pace, parse_against
from pipeline.benchmark.path import STAGES
from pipeline.benchmark.rows import TORCH_DEPLOY, TORCH_TRAIN
from pipeline.benchmark.runner import (
    IMPORT,
    LABELS,
    OVERLAY,
    measure_first_frame,
)
from pipeline.benchmark.schema import Benchmark, Load, Row
from pipeline.build import BuildOptions, BuildResult, Progress, build
from pipeline.console import run_command
from pipeline.engines.opening import find_engine
from pipeline.errors import (
    CheckFailedError,
    EngineError,
    MissingDependencyError,
    SourceError,
    UsageError,
)
from tests.pipeline.benchmark.samples import NAMES, benchmark

ROOT = Path(__file__).parents[3]
COMMAND = ROOT / "scripts" / "benchmark.py"
QUICK = Pace(engine=0.0, path=0.0, runner=0.0, app=1, settle=0.0, look=0.01, clip=12)


@pytest.fixture(scope="module")
def options(int8_options: BuildOptions, int8_build: BuildResult) -> BenchmarkOptions:
    """What finds the tests' one INT8 build again."""
    assert int8_build.engine.is_file()
    return BenchmarkOptions(
        checkpoint=int8_options.checkpoint, shape=int8_options.shape, rounds=1,
        against=("torch", "onnxruntime"), dataset=int8_options.dataset,
        frames=int8_options.frames, engines=int8_options.output,
        min_agreement=int8_options.min_agreement, roofline=False, pace=QUICK,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(options: BenchmarkOptions) -> Benchmark:
    return whole.run(options)


@pytest.fixture(scope="module")
def rows(found: Benchmark) -> dict[str, Row]:
    return {row.name: row for row in found.rows}


def test_every_row_is_measured_or_says_why(rows: dict[str, Row]) -> None:
    assert list(rows) == NAMES
    missing = {name: row.skipped for name, row in rows.items() if row.skipped}
    assert missing.pop(BF16, "no BF16").endswith(("no BF16", "float32 there"))
    assert missing == {APP_LATENCY: NOT_ASKED, APP_THROUGHPUT: NOT_ASKED}
    for row in rows.values():
        if row.skipped is None:
            assert row.median_ms is not None
            assert 0 < row.median_ms <= (row.p95_ms or 0) * 1.001
            assert len(row.rounds_ms) == 1


def test_rows_say_what_ran(rows: dict[str, Row], found: Benchmark) -> None:
    assert rows[INT8].precision == "int8"
    assert any("u8" in kind or "i8" in kind for kind in rows[INT8].executed or {})
    assert rows[TORCH_TRAIN].threads
    assert rows[STAGES[0]].samples >= 1
    assert rows[LABELS].fps
    assert rows[IMPORT].limit_ms == 500
    assert found.network.preset == "tiny"
    assert found.network.int8_agreement is not None
    assert found.machine.load_before.one_minute is not None
    assert {each.target for each in found.comparisons} == {None}, "targets are for 512x1024"


def test_the_int8_engine_stays_the_one_to_run(found: Benchmark, options: BenchmarkOptions) -> None:
    """``run_video.py`` takes what ``find_engine`` gives: after a benchmark not the slow one."""
    assert found.network.preset
    assert list(options.engines.glob("*-fp32-*.xml"))
    assert "-int8-" in find_engine(options.engines).name


def test_an_int8_that_is_refused_leaves_the_rest(
    options: BenchmarkOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(asked: BuildOptions, progress: Progress | None = None) -> BuildResult:
        if asked.precision == "int8":
            raise CheckFailedError("the engine is not its graph")
        return build(asked, progress)

    monkeypatch.setattr(whole, "build", refusing)
    monkeypatch.setattr(whole, "look", lambda seconds: Load(one_minute=9.0, busy=0.9))
    warned: list[str] = []
    found = whole.run(replace(options, against=()), whole.Listener(warn=warned.append))
    assert warned == ["other processes used 90% of the CPUs before it began"]
    assert found.machine.loaded is not None
    rows = {row.name: row for row in found.rows}
    for name in (INT8,):
        assert rows[name].skipped == "int8 was refused: the engine is not its graph"
    for name in (TORCH_TRAIN, TORCH_DEPLOY, ORT_INT8):
        assert rows[name].skipped == NOT_ASKED
    assert rows[OVERLAY].precision == "fp32"
    assert rows[OVERLAY].median_ms
    assert found.network.int8_agreement is None
    assert found.roofline is None
    with pytest.raises(CheckFailedError, match="not its graph"):
        whole.profile_only(options)


def test_the_clip_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    assert write_streets(path, 5, (36, 64)).startswith("rendered streets, 64x36")
    frames = read_frames(path, 99)
    assert [frame.shape for frame in frames] == [(36, 64, 3)] * 5
    assert not np.array_equal(frames[0], frames[-1])
    reader = open_clip(path)
    assert reader.grab() is not None
    reader.close()
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError):
        read_frames(tmp_path / "no.mp4", 1)


def test_a_runner_that_fails_gives_no_time(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no first frame.*build_engine|no first frame"):
        measure_first_frame(tmp_path / "none.xml", tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BenchmarkOptions(against=("tensorflow",)), "--against tensorflow"),
        (lambda: BenchmarkOptions(rounds=0), "--rounds 0"),
        (
            lambda: BenchmarkOptions(random_weights=True, checkpoint=Path("x")),
            "--random-weights and --checkpoint",
        ),
    ],
)
def test_options_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_peers_are_named_once() -> None:
    assert parse_against("torch, onnxruntime,torch") == ("torch", "onnxruntime")
    assert parse_against("none") == parse_against("") == ()


def test_the_command_prints_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[BenchmarkOptions] = []

    def measured(options: BenchmarkOptions, listener: object) -> Benchmark:
        asked.append(options)
        return benchmark(loaded="it was busy")

    monkeypatch.setattr(whole, "run", measured)
    main = runpy.run_path(str(COMMAND))["main"]
    page, kept = tmp_path / "p.html", tmp_path / "k.json"
    words = ["--preset", "edge-m", "--rounds", "2", "--against", "torch", "--json"]
    assert main([*words, "--html", str(page), "--save", str(kept)]) == 0
    printed, told = capsys.readouterr()
    assert Benchmark.model_validate(json.loads(printed)) == benchmark(loaded="it was busy")
    assert Benchmark.model_validate_json(kept.read_bytes()).rounds == 3
    assert page.read_text().startswith("<!doctype html>")
    assert "it was busy" in told
    (options,) = asked
    assert (options.preset, options.rounds, options.against) == ("edge-m", 2, ("torch",))
    assert options.command.startswith("scripts/benchmark.py --preset edge-m")


def test_the_roofline_alone(
    options: BenchmarkOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(whole, "profile_only", lambda options, listener: benchmark().roofline)
    main = runpy.run_path(str(COMMAND))["main"]
    assert main(["--roofline"]) == 0
    assert "| `stem` | Convolution |" in capsys.readouterr().out
    assert main(["--roofline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["share_of_peak"] == 0.125


def test_bad_options_are_one_line_and_exit_2() -> None:
    done = subprocess.run(
        [sys.executable, str(COMMAND), "--against", "caffe"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--against caffe: choose from torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_minutes_of_measuring_would_end_in_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(COMMAND))["main"]
    (tmp_path / "file").write_text("in the way")
    same = str(tmp_path / "both")
    for words, said in (
        (("--roofline", "--html"), "--html is of a whole benchmark"),
        (("--roofline", "--rounds", "3"), "--rounds is of a whole benchmark"),
        (("--roofline", "--against", "torch"), "--against is of a whole benchmark"),
        (("--roofline", "--video", "a.mp4"), "--video is of a whole benchmark"),
        (("--save", same, "--html", same), "name two files"),
        (("--save", str(tmp_path)), "is a directory"),
        (("--save", str(tmp_path / "file" / "a.json")), "cannot be written to"),
        (("--against", "none,torch"), "none is nobody"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_command(partial(main, list(words)))
        assert ended.value.code == 2
        told = " ".join(capsys.readouterr().err.split())
        assert told.startswith("error: ")
        assert said in told


def test_a_page_that_nothing_can_make_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = runpy.run_path(str(COMMAND))["main"]
    monkeypatch.setattr(
        "pipeline.console.find_spec", lambda name: None if name == "jinja2" else find_spec(name)
    )
    with pytest.raises(MissingDependencyError, match="page needs the package 'jinja2'"):
        main(["--html", str(tmp_path / "page.html"), "--engines", str(tmp_path / "engines")])
    assert not any(tmp_path.iterdir())
