"""Injection chosen block by block: the rule by hand, and a build that follows it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from models import DEFAULT_INJECTION, INJECTION_FORMS
from models.checkpoints import load_segmenter, save_segmenter
from models.locality import inject_locality
from models.segmenter import PRESETS
from pipeline import INJECTIONS
from pipeline.artifact import read_manifest
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.divergence import cut_after, run_exact
from pipeline.errors import CheckFailedError
from pipeline.stages.choose import LEAST_SHARE, decide, milliseconds, without_convolution
from tests.models.helpers import TINY, tiny_segmenter


def test_the_rule_by_hand() -> None:
    """Squared errors 16, 4, 4, 1 of 25; splitting a removes 15/25 for 10 %, b 3/25 for 20 %..."""
    errors = {"a": (0.04, 0.01), "b": (0.02, 0.01), "c": (0.02, 0.03), "d": (0.01, 0.0)}
    extra = {"a": 1.0, "b": 2.0, "c": -1.0, "d": -0.5}
    found = {each.block: each for each in decide(errors, extra, 10.0)}
    assert {name: each.form for name, each in found.items()} == {
        "a": "split",  # 60 % of the error for 10 % of the time
        "b": "full",  # 12 % for 20 %
        "c": "full",  # splitting makes it worse, and nothing for nothing is no reason
        "d": "split",  # 4 %, and it costs no time at all
    }
    assert found["a"].error_share == pytest.approx(0.6)
    assert found["b"].time_share == pytest.approx(0.2)
    assert (found["c"].error_share, found["c"].time_share) == (0, 0)


def test_a_gain_too_small_to_count_is_not_taken_even_where_it_seems_free() -> None:
    errors = {"a": (1.0, 0.995), "b": (1.0, 0.97)}
    found = decide(errors, {"a": -0.3, "b": -0.3}, 10.0)
    assert [block.form for block in found] == ["full", "split"]
    assert found[0].error_share < LEAST_SHARE < found[1].error_share


def test_a_network_without_error_is_not_split() -> None:
    (only,) = decide({"a": (0.0, 0.0)}, {"a": 0.1}, 10.0)
    assert only.form == "full"


def test_of_a_noisy_machine_something_is_left_of_the_engine() -> None:
    whole = np.array([3e-3, 2e-3, 4e-3])
    extra, unsplit = milliseconds({"": whole, "a": whole - 1e-3, "b": whole + 1e-3})
    assert (extra["a"], extra["b"], unsplit) == pytest.approx((1, -1, 2))
    extra, unsplit = milliseconds({"": whole, "a": whole - 2e-3, "b": whole - 2e-3})
    assert unsplit > 0
    assert [block.form for block in decide({"a": (0.02, 0.01), "b": (0, 0)}, extra, unsplit)] == [
        "full", "full",
    ]  # fmt: skip


def test_without_its_convolution_a_block_is_its_fc3(
    int8_options: BuildOptions, tmp_path: Path
) -> None:
    split = build(replace(int8_options, injection="split", output=tmp_path / "split"))
    assert split.quantized is not None
    graph = onnx.load(split.quantized.path)
    block = "stages.1.0.repmlp_block"
    shorter = without_convolution(graph, block)
    gone = {n.name for n in graph.graph.node} - {n.name for n in shorter.graph.node}
    assert {f"{block}.local", f"{block}.sum"} < gone
    assert all(f"{block}.local" in name for name in gone - {f"{block}.sum"})
    x = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3), np.uint8)
    outs = []
    for model, tensors in (
        (graph, (f"{block}.sum", f"{block}.local.positions", f"{block}.gp", block)),
        (shorter, (f"{block}.gp", block)),
    ):
        for tensor in tensors:
            cut_after(model, tensor, tmp_path / "cut.onnx")
            outs.append(run_exact(tmp_path / "cut.onnx", x))
    total, local, gate, whole, same_gate, alone = outs
    np.testing.assert_array_equal(gate, same_gate)
    whole, alone = whole.reshape(total.shape), alone.reshape(total.shape)
    bound = 2e-4 * float(np.abs(whole).max() * np.abs(total).max())
    np.testing.assert_allclose((whole - alone) * total, local * whole, atol=bound)


@pytest.fixture(scope="module")
def chosen(int8_options: BuildOptions, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    output = tmp_path_factory.mktemp("chosen")
    return build(replace(int8_options, injection="auto", output=output))


def test_a_build_follows_its_plan_and_records_both_numbers(chosen: BuildResult) -> None:
    provenance = read_manifest(chosen.manifest).provenance
    plan = provenance["choose-injection"]
    blocks = [f"stages.{i}.0.repmlp_block" for i in range(4)]
    assert list(plan["forms"]) == blocks
    assert provenance["inject"]["forms"] == plan["forms"]
    errors = {b["block"]: (b["full_error"], b["split_error"]) for b in plan["blocks"]}
    extra = {b["block"]: b["extra_ms"] for b in plan["blocks"]}
    assert plan["blocks"] == [asdict(b) for b in decide(errors, extra, plan["unsplit_ms"])]
    assert all(0 < full < 1 and 0 < split < 1 for full, split in errors.values())
    assert plan["rounds"] >= 5
    names = {node.name for node in onnx.load(chosen.graph.path).graph.node}
    for block, form in plan["forms"].items():
        assert (f"{block}.local" in names) == (form == "split")


def test_the_decision_is_kept_with_the_build(chosen: BuildResult) -> None:
    again = build(chosen.options)
    assert {"choose-injection", "inject", "export", "quantize"} <= set(again.cached)
    floating = build(replace(chosen.options, precision="fp32"))
    assert read_manifest(floating.manifest).provenance["inject"]["form"] == "full"


def test_the_training_form_has_a_name_of_its_own(
    int8_options: BuildOptions, tmp_path: Path
) -> None:
    options = replace(int8_options, injection="train", output=tmp_path / "out", min_agreement=0.1)
    built = build(options)
    assert built.engine.name == "tiny-train-int8-64x128.xml"
    assert built.checks["export_error"] < 1e-4
    nodes = onnx.load(built.graph.path).graph.node
    assert any(node.name.endswith("repconv3") for node in nodes)
    PRESETS.setdefault("tiny", TINY)
    deploy = tmp_path / "deploy.safetensors"
    save_segmenter(inject_locality(tiny_segmenter(), "full").model, "tiny", deploy)
    assert load_segmenter(deploy)[2].form == "deploy"
    assert (*INJECTION_FORMS, "auto", "train") == INJECTIONS
    for form in INJECTIONS:
        if form != DEFAULT_INJECTION:
            with pytest.raises(CheckFailedError, match=r"deploy\.safetensors' is in deploy form"):
                build(replace(options, checkpoint=deploy, injection=form))
