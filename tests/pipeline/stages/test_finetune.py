"""``--finetune`` in a build: the engine has the weights that were learned, the manifest says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.streets import write_dataset
from pipeline.artifact import open_artifact
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.errors import CheckFailedError, UsageError
from pipeline.report.opening import graphs_to_rank
from pipeline.report.run import Subjects
from pipeline.report.subjects import Graphs, exact_graph_of, graphs_of, open_subject


@pytest.fixture(scope="module")
def tuned(
    int8_build: BuildResult, int8_options: BuildOptions, tmp_path_factory: pytest.TempPathFactory
) -> BuildResult:
    """From the calibration of the build it is compared with."""
    output = tmp_path_factory.mktemp("tuned")
    shutil.copytree(int8_build.options.output / ".store", output / ".store")
    return build(replace(int8_options, finetune=10, output=output))


def initializers(result: BuildResult) -> dict[str, np.ndarray]:
    assert result.quantized is not None
    graph = onnx.load(result.quantized.path).graph
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}


def test_what_it_found_is_in_the_manifest_and_the_graph(
    tuned: BuildResult, int8_build: BuildResult
) -> None:
    found = tuned.finetune
    assert found is not None
    assert found == open_artifact(tuned.manifest).manifest.provenance["finetune"]["finetune"]
    assert (found["steps"], found["frames"], found["held_out"]) == (10, 5, 1)
    assert found["kept"] == (found["after"] < found["before"])
    ours, first = initializers(tuned), initializers(int8_build)
    assert list(ours) == list(first)
    learned = {n for n in ours if not np.array_equal(ours[n], first[n])}
    assert bool(learned) == found["kept"]
    # Ranges of activations are the calibration's, learned or not.
    assert tuned.quantized is not None
    activations = {
        node.input[1]
        for node in onnx.load(tuned.quantized.path).graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert activations
    assert not activations & learned
    assert tuned.as_json()["finetune"] == found
    assert int8_build.as_json()["finetune"] is None
    # Verified against the graph that was learned, like any engine.
    assert tuned.checks["engine_agreement"] >= 0.5


def test_the_report_takes_the_graph_that_learned_for_the_exact_one(tuned: BuildResult) -> None:
    subject = open_subject("int8", tuned.engine)
    with subject.engine:
        assert tuned.quantized is not None
        assert exact_graph_of(subject) == tuned.quantized.path
        graphs = graphs_of(subject, subject)
    assert graphs == Graphs(tuned.quantized.path, tuned.graph.path)


def test_layers_that_were_taught_together_are_not_ranked_one_by_one(tuned: BuildResult) -> None:
    subject = open_subject("int8", tuned.engine)
    with subject.engine:
        assert subject.manifest is not None
        # Ten steps need not have helped; a student that was not kept leaves nothing to refuse.
        subject.manifest.provenance["finetune"]["finetune"]["kept"] = True
        with pytest.raises(UsageError, match="is fine-tuned"):
            graphs_to_rank(Subjects(subject, subject, None))


def test_a_second_build_learns_nothing_anew(tuned: BuildResult) -> None:
    again = build(tuned.options)
    assert "finetune" in again.cached
    assert again.finetune == tuned.finetune


def test_one_frame_cannot_teach_and_judge(int8_options: BuildOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--frames 2 or more"):
        replace(int8_options, finetune=5, frames=1)
    # A split that holds no more is seen only when its frames are selected.
    few = write_dataset(tmp_path / "few", train=1, val=1, height=64, width=128)
    with pytest.raises(CheckFailedError, match="two batches"):
        build(replace(int8_options, finetune=5, dataset=few, output=tmp_path / "out"))


def test_what_contradicts_it_is_refused(int8_options: BuildOptions) -> None:
    with pytest.raises(UsageError, match="--finetune teaches INT8"):
        replace(int8_options, finetune=5, precision="fp32")
    with pytest.raises(UsageError, match="--finetune -1"):
        replace(int8_options, finetune=-1)
