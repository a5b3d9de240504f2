"""What people are told of a build: as it went, and where something is amiss."""

from __future__ import annotations

from dataclasses import replace

from pipeline.artifact import Artifact
from pipeline.build import BuildResult
from pipeline.build_wording import ALARMING, Line, lines


def test_a_build_that_went_well_says_where_it_is(int8_build: BuildResult) -> None:
    told = list(lines(int8_build))
    assert Line("say", str(int8_build.engine)) in told
    assert Line("say", f"{int8_build.seconds:.1f} s") == told[-1]
    assert any("agrees with its graph on" in line.text for line in told)


def test_what_is_amiss_is_warned_of(int8_build: BuildResult) -> None:
    first = int8_build.engines[0]
    checks = first.checks | {"int8_agreement": ALARMING - 0.01}
    other = replace(first, checks=checks, path=None, other="python build.py")
    options = replace(int8_build.options, random_weights=False)
    told = list(lines(replace(int8_build, engines=(other,), options=options)))
    warnings = [line.text for line in told if line.kind == "warn"]
    assert any(text.startswith("that is few") for text in warnings)
    assert "it replaces an engine that was built by: python build.py" in warnings
    assert Line("say", "not published") in told
    assert not any("to take it to another CPU" in line.text for line in told)


def test_a_kernel_that_rounding_spoils_is_warned_of(int8_build: BuildResult) -> None:
    assert int8_build.quantized is not None
    layers = [
        {"layer": "a.fc3", "nearest": 0.5, "compensated": 0.05},
        {"layer": "b.fc3", "nearest": 0.02, "compensated": 0.5},
    ]

    def warnings(last: dict[str, object]) -> list[str]:
        artifact = int8_build.quantized
        assert artifact is not None
        facts = artifact.manifest.facts | {"rounding": [*layers, last]}
        changed = Artifact(replace(artifact.manifest, facts=facts), artifact.manifest_path)
        options = replace(int8_build.options, random_weights=False)
        told = lines(replace(int8_build, quantized=changed, options=options))
        return [line.text for line in told if "rounding" in line.text]

    assert warnings(layers[0]) == []
    spoilt = {"layer": "c.fc3", "nearest": 0.9, "compensated": 0.34}
    (text,) = warnings(spoilt)
    assert "34% of the output of 'c.fc3'" in text
    assert "--injection auto" in text
