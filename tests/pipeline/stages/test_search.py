"""The fewest layers in float: the search alone over made-up losses, and in a build."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.ablation import Ablation
from pipeline.artifact import read_manifest
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.build_options import GateLimits
from pipeline.errors import UsageError
from pipeline.report.frames import check_frames
from pipeline.report.sensitivity import Bench
from pipeline.report.subjects import exact_graph_of, open_subject
from pipeline.report.verdict import gate
from pipeline.stages.search import Trial, fewest
from tests.pipeline.own_truth import own_truth

FRAMES = 2
LIMITS = GateLimits(max_drop=6.0, max_class_drop=100.0)


@given(
    losses=st.lists(st.integers(0, 20), min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
    bound=st.integers(0, 60),
)
def test_nothing_of_the_answer_can_be_spared(
    losses: list[int], order: object, bound: int
) -> None:  # fmt: skip
    """Losses that add up: whatever the ranking, the bound is kept, and by no smaller part."""
    names = [f"layer{i}" for i in range(len(losses))]
    ranking = list(names)
    order.shuffle(ranking)  # type: ignore[attr-defined]  # hypothesis's Random

    def judge(floating: Sequence[str]) -> Trial:
        left = sum(v for n, v in zip(names, losses, strict=True) if n not in floating)
        return Trial(tuple(floating), left, "road", left, left <= bound)

    kept, trials = fewest(ranking, judge)
    assert judge(kept).passed
    assert all(not judge([n for n in kept if n != spared]).passed for spared in kept)
    assert trials[0].floating == ()
    if sum(losses) <= bound:
        assert kept == ()
        assert len(trials) == 1


def test_a_good_ranking_gives_the_smallest_answer() -> None:
    losses = {"a": 9, "b": 5, "c": 3, "d": 1}

    def judge(floating: Sequence[str]) -> Trial:
        left = sum(v for n, v in losses.items() if n not in floating)
        return Trial(tuple(floating), left, "road", left, left <= 4)

    kept, trials = fewest("abcd", judge)
    assert kept == ("a", "b")
    assert [t.floating for t in trials] == [(), ("a",), ("a", "b"), ("b",)]


@pytest.fixture(scope="module")
def searched(
    int8_build: BuildResult, int8_options: BuildOptions, streets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> BuildResult:  # fmt: skip
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("pipeline.build.SEARCH_FRAMES", FRAMES)
    home = tmp_path_factory.mktemp("searched")
    tree = own_truth(int8_build.graph.path, streets, home / "tree", "train", "val")
    shutil.copytree(int8_build.options.output / ".store", home / "out" / ".store")
    options = replace(
        int8_options, dataset=tree, output=home / "out", gate=LIMITS, search=True,
        min_agreement=0.3,
    )  # fmt: skip
    try:
        return build(options)
    finally:
        monkeypatch.undo()


def test_a_build_that_fails_leaves_the_fewest_layers_in_float(searched: BuildResult) -> None:
    found = searched.search
    assert found is not None
    assert found["floating"]
    assert 0 < found["float_share"] < 1
    assert found["trials"][0]["floating"] == []
    assert found["trials"][0]["drop"] > LIMITS.max_drop
    assert searched.quantized is not None
    model, floating = (
        onnx.load(path) for path in (searched.quantized.path, searched.graph.path)
    )  # fmt: skip
    assert not set(Ablation(model, floating).layers) & set(found["floating"])
    # Scored again, apart from the search: the answer keeps the bound on the train frames.
    assert searched.options.dataset is not None
    frames = check_frames(searched.options.dataset, "train", limit=FRAMES)
    bench = Bench(frames, range(len(frames.names)))
    verdict = gate(
        bench.run(floating).confusion, bench.run(model).confusion, LIMITS.max_drop,
        LIMITS.max_class_drop,
    )  # fmt: skip
    assert verdict.passed
    best = [t for t in found["trials"] if set(t["floating"]) == set(found["floating"])]
    assert best[0]["drop"] == pytest.approx(verdict.drop)


def test_the_gate_has_the_last_word_and_the_manifest_the_history(searched: BuildResult) -> None:
    outcome = searched.engines[0].gate
    assert outcome is not None
    assert searched.passed == outcome.verdict.passed
    assert searched.as_json()["search"] == searched.search
    assert searched.quantized is not None
    provenance = searched.quantized.manifest.provenance
    assert {"quantize", "search"} <= set(provenance)
    if searched.passed:
        manifest = read_manifest(searched.manifest)
        assert manifest.facts["gate"]["passed"] is True
        subject = open_subject("int8", searched.engine)
        try:
            assert exact_graph_of(subject) == searched.quantized.path
        finally:
            subject.engine.close()


def test_a_search_needs_a_gate_and_int8() -> None:
    with pytest.raises(UsageError, match="--search keeps the gate's limits"):
        BuildOptions(search=True)
    with pytest.raises(UsageError, match="--search"):
        BuildOptions(search=True, gate=LIMITS, precision="fp16")
