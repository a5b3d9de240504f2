"""ONNX -> TensorRT plan, with what the builder said about it. Knows neither torch nor onnx.

One way for TensorRT 10.3 to 11 and TensorRT for RTX: strongly typed networks, precision written
into the graph, no calibrators and no precision flags (all removed in 11). What a flavour or version
does not have is refused by name. TensorRT for RTX builds without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.artifact import write_whole
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.trt_log import (
    Layer,
    LogLine,
    first_error,
    read_layers,
    shortage,
)
from pipeline.engines.trt_logger import listening
from pipeline.engines.trt_preflight import (
    NAMES,
    BuiltWith,
    Flavour,
    Hardware,
    known_capabilities,
    this_platform,
)
from pipeline.engines.trt_start import create
from pipeline.errors import EngineError, UsageError
from pipeline.private import CACHE_VARIABLE, cache_root, distrust

MAX_TIMING_CACHE = 256 << 20
MAX_WARNINGS = 20
MAX_WORKSPACE_MIB = 1 << 20
"""A terabyte: more than any GPU has."""
_ROOMY_MIB = 256
_MIB = 1 << 20


class BuilderOptions(BaseModel):
    """How to build. What is ``None`` or at its default is left to TensorRT.

    Attributes:
        workspace_mib: bound on the scratch memory kernels may ask for.
        optimization_level: 0 (quick build) to 5 (exhaustive); TensorRT's default is 3.
        timing_cache: keep and reuse kernel timings, per GPU and version.
        version_compatible: let newer TensorRT versions run it. It then holds host code, which
            opening refuses unless told otherwise.
        hardware: how far beyond this GPU the engine may run.
        compute_capabilities: ``8.6`` and so on, of the GPUs an RTX engine is compiled for; none is
            every GPU from Ampere on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace_mib: int | None = Field(default=None, ge=1, le=MAX_WORKSPACE_MIB)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    timing_cache: bool = False
    version_compatible: bool = False
    hardware: Hardware = "same"
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A plan and what is known of it."""

    plan: bytes
    built_with: BuiltWith
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]
    seconds: float = field(compare=False)


def check_options(trt: Any, flavour: Flavour, options: BuilderOptions) -> None:
    """Raise ``UsageError`` naming the first option that this flavour or version does not have."""
    wrong: dict[str, tuple[bool, str]]
    if flavour == "tensorrt-rtx":
        wrong = {
            "timing cache": (options.timing_cache, "it compiles kernels on first use"),
            "hardware compatibility": (
                options.hardware != "same", "give compute capabilities instead",
            ),
            "version compatibility": (
                options.version_compatible, "its packages hold no lean runtime",
            ),
            "optimization level": (
                options.optimization_level is not None, "every level gives the same engine",
            ),
        }  # fmt: skip
    else:
        wrong = {
            "compute capabilities": (
                bool(options.compute_capabilities), "it builds for the GPU it runs on",
            ),
            f"hardware '{options.hardware}'": (
                options.hardware != "same" and _hardware(trt, options.hardware) is None,
                "this version does not know it",
            ),
        }  # fmt: skip
    for option, (asked, why) in wrong.items():
        if asked:
            raise UsageError(f"{NAMES[flavour]} {trt.__version__} has no {option}: {why}")
    for capability in options.compute_capabilities:
        if _capability(trt, capability) is None:
            known = ", ".join(known_capabilities(trt))
            raise UsageError(
                f"{NAMES[flavour]} {trt.__version__} cannot build for compute capability "
                f"'{capability}': choose from {known}"
            )


def build_plan(
    trt: Any, flavour: Flavour, model: bytes, options: BuilderOptions, *,
    gpu: GpuFacts | None, cuda: int | None,
) -> Built:  # fmt: skip
    """Parse and build.

    Args:
        trt: the module of that flavour.
        flavour: which TensorRT.
        model: a serialised ONNX model of fixed shapes, typed as it is to be computed.
        options: see there.
        gpu: the GPU to build on; ``None`` is right for TensorRT for RTX only.
        cuda: see ``BuiltWith``.

    Raises:
        UsageError: the flavour lacks an option.
        EngineError: TensorRT does not start with this driver; the parser or builder refused, with
            its reason; or memory ran out.
    """
    check_options(trt, flavour, options)
    start = perf_counter()
    with closing(listening(trt)) as heard:
        title = f"{NAMES[flavour]} {trt.__version__}"
        builder = create(lambda: trt.Builder(heard.logger), lambda: heard.lines, title)
        network = builder.create_network(_typed(trt))
        parser = trt.OnnxParser(network, heard.logger)
        if not parser.parse(model):
            if shortage(heard.lines) is not None:
                raise _refusal(flavour, heard.lines, options, gpu)
            raise EngineError(
                f"{NAMES[flavour]} cannot parse the model: {first_error(heard.lines)}"
            )
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        cache = _configure(trt, config, options, gpu)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise _refusal(flavour, heard.lines, options, gpu)
        unkept = () if cache is None else _keep_timings(config, cache)
        return Built(
            plan=bytes(serialized),
            built_with=BuiltWith(
                flavour=flavour,
                version=trt.__version__,
                cuda=cuda,
                platform=this_platform(),
                capabilities=(gpu.sm,) if gpu and flavour == "tensorrt" else tuple(
                    options.compute_capabilities
                ),
                hardware=options.hardware,
                version_compatible=options.version_compatible,
                gpu=gpu.name if gpu else None,
                driver=gpu.driver if gpu else None,
                multiprocessors=gpu.multiprocessors if gpu else None,
                memory=gpu.memory if gpu else None,
            ),
            layers=tuple(read_layers(heard.lines)),
            warnings=_warnings(heard.lines) + unkept,
            seconds=perf_counter() - start,
        )  # fmt: skip


def _typed(trt: Any) -> int:
    """Creation flags of a strongly typed network; a version without the flag has no other kind."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(trt: Any, config: Any, options: BuilderOptions, gpu: GpuFacts | None) -> Path | None:
    """Apply the options; where the timing cache is to be written, if it is kept."""
    # fp32 is fp32: TensorRT would otherwise multiply it with ten bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware != "same":
        config.hardware_compatibility_level = _hardware(trt, options.hardware)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for i, capability in enumerate(options.compute_capabilities):
            config.set_compute_capability(_capability(trt, capability), i)
    if not options.timing_cache or gpu is None:
        return None
    path = timing_cache_path(trt.__version__, gpu)
    distrusted = distrust(path.parent)
    if distrusted is not None:
        raise EngineError(
            f"--timing-cache: {distrusted}",
            hint=f"set {CACHE_VARIABLE} to another folder, or leave the option out",
        )
    try:
        held = _held(path)
    except OSError:
        held = b""  # it will not be written either, which is a warning then
    # A cache of another GPU or version is refused by TensorRT; then an empty one takes its place.
    kept = config.create_timing_cache(held)
    if kept is None or not config.set_timing_cache(kept, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return path


def _held(path: Path) -> bytes:
    """The kept timings; nothing where there are none or where they cannot be ours."""
    fits = path.is_file() and path.stat().st_size < MAX_TIMING_CACHE
    return path.read_bytes() if fits else b""


def _keep_timings(config: Any, path: Path) -> tuple[str, ...]:
    """Write this build's timings, with those that other builds have written since it began.

    Returns what to warn of: an engine that took minutes is not lost for want of a cache.
    """
    mine = config.get_timing_cache()
    try:
        held = _held(path)
        theirs = config.create_timing_cache(held) if held else None
        if theirs is not None:
            # What does not fit, of another GPU, is refused and so overwritten.
            mine.combine(theirs, False)
        write_whole(path, bytes(mine.serialize()))
    except OSError as error:
        return (f"the timing cache '{path}' was not written: {error.strerror}",)
    return ()


def timing_cache_path(version: str, gpu: GpuFacts) -> Path:
    """Where timings of that GPU and TensorRT version are kept, for all builds of this user.

    Raises ``EngineError`` for a user without a home.
    """
    root = cache_root()
    if root is None:
        raise EngineError(
            "--timing-cache: this user has no home folder to keep it in",
            hint=f"set {CACHE_VARIABLE}, or leave the option out",
        )
    which = f"{gpu.name}-{gpu.sm}-{gpu.multiprocessors}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", which).strip("-").lower()
    return root / "tensorrt" / f"timing-{version}-{name}.cache"


def _hardware(trt: Any, level: Hardware) -> Any:
    names = {"ampere+": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}
    levels = getattr(trt, "HardwareCompatibilityLevel", None)
    return getattr(levels, names.get(level, ""), None)


def _capability(trt: Any, spelled: str) -> Any:
    if not re.fullmatch(r"\d{1,2}\.\d", spelled):
        return None
    return getattr(getattr(trt, "ComputeCapability", None), f"SM{spelled.replace('.', '')}", None)


def _refusal(
    flavour: Flavour, lines: Collection[LogLine], options: BuilderOptions, gpu: GpuFacts | None
) -> EngineError:
    short, said = shortage(lines), first_error(lines)
    if short is None:
        return EngineError(f"{NAMES[flavour]} cannot build the engine: {said}")
    # A warning that there was too little memory for a kernel may mean the workspace.
    full = shortage([line for line in lines if line.severity != "WARNING"]) == "memory"
    if options.workspace_mib is not None and not full:
        return EngineError(
            f"{NAMES[flavour]} ran out of memory: no kernel fits a workspace of "
            f"{options.workspace_mib} MiB",
            hint=f"try --workspace {max(options.workspace_mib * 2, _ROOMY_MIB)}, or leave it out",
        )
    if short == "workspace":
        # Nobody limited it here, and how much TensorRT takes by itself differs by version.
        much = 4096 if gpu is None else max(64, gpu.memory // _MIB // 2)
        return EngineError(
            f"{NAMES[flavour]} cannot build the engine: {said}",
            hint=f"give it room with --workspace {much}, or take a smaller shape",
        )
    most = "" if gpu is None else f" of {gpu.memory // _MIB} MiB"
    half = 1024 if gpu is None else max(64, gpu.memory // _MIB // 4)
    if options.workspace_mib is not None:
        half = max(1, min(half, options.workspace_mib // 2))
    return EngineError(
        f"{NAMES[flavour]} ran out of GPU memory{most} while building: {said}",
        hint=f"try --workspace {half}, a smaller shape, or close other programs on the GPU",
    )


def _warnings(lines: Iterable[LogLine]) -> tuple[str, ...]:
    said = dict.fromkeys(
        " ".join(line.text.split())[:300] for line in lines if line.severity == "WARNING"
    )
    return tuple(said)[:MAX_WARNINGS]
