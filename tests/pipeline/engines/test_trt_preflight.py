"""Engines and machines that do not belong together: one line, both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.trt_modules import import_flavour
from pipeline.engines.trt_preflight import (
    BuiltWith,
    Here,
    check_driver,
    check_fits,
    cuda_major,
    known_capabilities,
    this_platform,
)
from pipeline.errors import ArtifactError, EngineError

ORIN = GpuFacts("Orin", (8, 7), 32 << 30, (12, 6))
HERE = Here("10.3.0", None, "linux-aarch64", ORIN)
ENGINE = BuiltWith(
    flavour="tensorrt", version="10.3.0", cuda=None, platform="linux-aarch64",
    capabilities=("8.7",), gpu="Orin", driver=(12, 6),
)  # fmt: skip
RTX = BuiltWith(
    flavour="tensorrt-rtx", version="1.7.1.116", cuda=13, platform="linux-x86_64", capabilities=()
)
ADA = GpuFacts("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30, (13, 0))
DESK = Here("1.7.1.116", 13, "linux-x86_64", ADA)


# The modules of the Orin family go by one name: AGX Orin has 16 multiprocessors, Orin Nano 8.
HERE_NX = replace(HERE, gpu=replace(ORIN, multiprocessors=16))
KNOWN = ("7.5", "8.0", "8.6", "8.9", "12.0")


def _check(built: BuiltWith, here: Here) -> None:
    check_fits(built, here, name="m.engine", rebuild="python build.py --flavour tensorrt-rtx")


def _with(built: BuiltWith, **changes: Any) -> BuiltWith:
    return built.model_copy(update=changes)


@pytest.mark.parametrize(
    ("built", "here"),
    [
        (ENGINE, HERE),
        # JetPack says 10.3.0 where a wheel says 10.3.0.26.
        (_with(ENGINE, version="10.3.0.26"), HERE),
        (_with(ENGINE, version_compatible=True), replace(HERE, version="10.16.1")),
        (_with(ENGINE, version_compatible=True), replace(HERE, version="11.4.1")),
        (
            _with(ENGINE, hardware="ampere+", capabilities=("8.6",), gpu="RTX 3060"),
            HERE,
        ),
        (_with(ENGINE, hardware="same-capability", gpu="Orin NX"), HERE),
        (RTX, DESK),
        (_with(RTX, capabilities=("8.6", "8.9")), DESK),
        (RTX, replace(DESK, known=KNOWN)),
        # Newer than all that it has kernels for: compiled from what the driver understands.
        (RTX, replace(DESK, gpu=replace(ADA, capability=(12, 1)), known=KNOWN)),
        (RTX, replace(DESK, gpu=replace(ADA, capability=(13, 0)), known=(*KNOWN, "12.1"))),
        (_with(ENGINE, multiprocessors=16, memory=64 << 30), HERE_NX),
        # Widened, or not known of one side.
        (_with(ENGINE, multiprocessors=8, hardware="same-capability"), HERE_NX),
        (_with(ENGINE, multiprocessors=8, hardware="ampere+"), HERE_NX),
        (ENGINE, HERE_NX),
        (_with(ENGINE, multiprocessors=8), HERE),
        # JetPack does not say for which CUDA its TensorRT is; and these find out by themselves.
        (_with(ENGINE, cuda=13), HERE),
        (ENGINE, replace(HERE, cuda=12)),
        (_with(ENGINE, cuda=13, version_compatible=True), replace(HERE, cuda=12)),
        (RTX, replace(DESK, cuda=12)),
    ],
)
def test_what_fits_passes(built: BuiltWith, here: Here) -> None:
    _check(built, here)


@pytest.mark.parametrize(
    ("built", "here", "mine", "theirs"),
    [
        (ENGINE, replace(HERE, platform="linux-x86_64"), "linux-aarch64", "linux-x86_64"),
        (ENGINE, replace(HERE, version="10.16.1"), "TensorRT 10.3.0", "TensorRT 10.16.1"),
        (ENGINE, replace(HERE, version="10.3.1"), "10.3.0", "10.3.1"),
        # Version compatible looks forward only, and over the one supported major step.
        (
            _with(ENGINE, version="10.16.1", version_compatible=True), HERE, "10.16.1",
            "cannot run it",
        ),
        (
            _with(ENGINE, version_compatible=True), replace(HERE, version="12.0.0"), "10.3.0",
            "cannot run it",
        ),
        (
            _with(ENGINE, version="11.0.0", version_compatible=True),
            replace(HERE, version="12.0.0"), "11.0.0", "cannot run it",
        ),
        (
            _with(ENGINE, cuda=13), replace(HERE, cuda=12), "10.3.0 for CUDA 13, here",
            "10.3.0 for CUDA 12",
        ),
        (_with(ENGINE, capabilities=("8.6",), gpu="A10"), HERE, "8.6 (A10)", "8.7 (Orin)"),
        (_with(ENGINE, gpu="Orin NX"), HERE, "Orin NX", "8.7 (Orin)"),
        (
            _with(ENGINE, hardware="ampere+"),
            replace(HERE, gpu=GpuFacts("Xavier", (7, 2), 1, (12, 6))), "8.0 or newer",
            "7.2 (Xavier)",
        ),
        (
            _with(ENGINE, hardware="same-capability"),
            replace(HERE, gpu=GpuFacts("Thor", (11, 0), 1, (13, 0))), "8.7", "11.0 (Thor)",
        ),
        (RTX, replace(DESK, version="1.8.0.1"), "1.7.1.116", "1.8.0.1"),
        (_with(RTX, capabilities=("8.6",)), DESK, "8.6", "8.9 (NVIDIA GeForce RTX 4090)"),
        (RTX, replace(DESK, gpu=GpuFacts("T4", (7, 5), 1, (13, 0))), "8.0 or newer", "7.5 (T4)"),
        (RTX, replace(DESK, gpu=replace(ADA, driver=(12, 4))), "CUDA 13", "CUDA 12.4"),
        (
            _with(ENGINE, multiprocessors=8, memory=8 << 30), HERE_NX,
            "Orin, 8 multiprocessors, 8 GiB", "16 multiprocessors and 32 GiB",
        ),
        (
            RTX, replace(DESK, gpu=GpuFacts("H200", (9, 0), 1, (13, 0)), known=KNOWN),
            "8.0, 8.6, 8.9, 12.0 or newer than 12.0,", "9.0 (H200)",
        ),
        (
            # Between those it knows, and by number: "8.0" would come after "12.0" as text.
            RTX, replace(DESK, gpu=replace(ADA, capability=(10, 0)), known=KNOWN),
            "or newer than 12.0", "10.0 (NVIDIA GeForce",
        ),
        (
            # Of engines for certain capabilities nothing newer is claimed.
            _with(RTX, capabilities=("8.6",)),
            replace(DESK, gpu=replace(ADA, capability=(13, 0)), known=KNOWN), "8.6,", "13.0",
        ),
        (
            RTX, replace(DESK, gpu=ORIN, known=KNOWN),
            "8.0, 8.6, 8.9, 12.0 or newer than 12.0,", "8.7 (Orin)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_with_both_sides(
    built: BuiltWith, here: Here, mine: str, theirs: str
) -> None:
    with pytest.raises(ArtifactError) as caught:
        _check(built, here)
    message = str(caught.value)
    assert message.startswith("engine 'm.engine' ")
    assert mine in message
    assert theirs in message
    assert "\n" not in message
    # What the same command would not mend is not answered with it.
    if "driver" in message:
        assert caught.value.hint == (
            "install a newer driver, or packages of TensorRT for RTX for its CUDA"
        )
    elif here.known and here.gpu.capability > (12, 0):
        assert caught.value.hint == (
            "this GPU is newer than TensorRT for RTX: build it without --compute-capability: "
            "python build.py --flavour tensorrt-rtx"
        )
    elif here.known and here.gpu.sm not in here.known:
        assert caught.value.hint == (
            "TensorRT for RTX does not know this GPU: build it with TensorRT: "
            "python build.py --flavour tensorrt"
        )
    else:
        assert caught.value.hint == "build it here: python build.py --flavour tensorrt-rtx"


def test_a_driver_too_old_to_build_with_is_refused_before_the_work() -> None:
    check_driver("tensorrt", "10.9.0", 12, ORIN)  # minor versions are compatible
    check_driver("tensorrt", "10.9.0", None, ORIN)
    with pytest.raises(EngineError) as caught:
        check_driver("tensorrt", "10.9.0", 13, ORIN)
    assert str(caught.value) == (
        "building needs a driver for CUDA 13, which the installed TensorRT 10.9.0 is made for; "
        "this driver runs up to CUDA 12.6"
    )
    assert caught.value.hint == "install a newer driver, or packages of TensorRT for its CUDA"


def test_this_machine_can_be_said() -> None:
    assert "-" in this_platform()
    assert known_capabilities(object()) == ()
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    assert cuda_major("tensorrt-rtx") in (12, 13)
    known = known_capabilities(import_flavour("tensorrt-rtx", why="this test"))
    assert {"8.6", "8.9"} <= set(known)
    # If this fails, it has come to build for servers or Jetsons: so much the better, and say so in
    # docs/tensorrt.md.
    assert not {"8.7", "9.0"} & set(known)


@pytest.mark.parametrize("compatible", [False, True])
@pytest.mark.parametrize(("built", "here"), [("abc", "10.3.0"), ("10.3.0", "abc"), ("", "")])
def test_a_version_that_is_no_number_fits_nothing(built: str, here: str, compatible: bool) -> None:
    engine = _with(ENGINE, version=built, version_compatible=compatible)
    with pytest.raises(ArtifactError, match="was built by TensorRT"):
        _check(engine, replace(HERE, version=here))
