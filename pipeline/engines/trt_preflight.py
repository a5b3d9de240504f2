"""Whether an engine fits this machine: everything TensorRT would refuse, or crash on, asked first.

An engine is bound to what built it: the flavour and version of TensorRT, the operating system and
processor, the GPU's compute capability. Options widen the last two, where the flavour has them.
Each mismatch is one line with both sides.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.rebuild import for_other_flavour
from pipeline.errors import ArtifactError, EngineError

Flavour: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
Hardware: TypeAlias = Literal["same", "same-capability", "ampere+"]
NAMES: dict[str, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
# An RTX engine built for no capability in particular runs from here on.
_RTX_FROM = (8, 0)


class UnfitError(ArtifactError):
    """The engine may be as good as any, but it was built for something else than is here."""


class BuiltWith(BaseModel):
    """What made an engine, as its manifest records it.

    Attributes:
        flavour, version: of TensorRT.
        cuda: major version of the CUDA libraries it was built with, where that is known.
        platform: ``linux-x86_64``, ``linux-aarch64``.
        capabilities: compute capabilities (``8.6``) it was built for; empty for an RTX engine that
            is compiled on first use.
        hardware: how far beyond the building GPU it may go.
        version_compatible: whether newer versions may run it; it then holds host code.
        gpu, driver: the building machine's, ``None`` where there was none.
        multiprocessors, memory: the GPU's, the latter in bytes; ``None`` in older manifests too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flavour: Flavour
    version: str
    cuda: int | None
    platform: str
    capabilities: tuple[str, ...]
    hardware: Hardware = "same"
    version_compatible: bool = False
    gpu: str | None = None
    driver: tuple[int, int] | None = None
    multiprocessors: int | None = None
    memory: int | None = None

    @property
    def title(self) -> str:
        """``TensorRT 10.3.0``."""
        return f"{NAMES[self.flavour]} {self.version}"


@dataclass(frozen=True)
class Here:
    """This machine: the TensorRT that would open the engine, and the GPU.

    ``known``: compute capabilities that this TensorRT for RTX has kernels for; empty where it does
    not say.
    """

    version: str
    cuda: int | None
    platform: str
    gpu: GpuFacts
    known: tuple[str, ...] = ()


def this_platform() -> str:
    """Operating system and processor, as engines are bound to them."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def known_capabilities(trt: Any) -> tuple[str, ...]:
    """Compute capabilities that a module of TensorRT for RTX names, ``("7.5", "8.0", ...)``."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return tuple(f"{name[2:-1]}.{name[-1]}" for name in members if name.startswith("SM"))


def cuda_major(flavour: Flavour) -> int | None:
    """Major version of CUDA of the installed TensorRT packages; ``None`` where none says so.

    The wheels carry it in their names (``tensorrt_cu12``); JetPack's packages do not.
    """
    stem = flavour.replace("-", "_")
    for major in range(20, 10, -1):
        try:
            metadata.version(f"{stem}_cu{major}")
        except metadata.PackageNotFoundError:
            continue
        return major
    return None


def check_fits(built: BuiltWith, here: Here, *, name: str, rebuild: str) -> None:
    """Raise ``UnfitError`` with both sides unless the engine can run here.

    Args:
        built: from the engine's manifest.
        here: this machine.
        name: the engine's file name, for the message.
        rebuild: the command that makes it again, for the hint.
    """
    reason = (
        _platform(built, here)
        or _version(built, here)
        or _cuda(built, here)
        or _capability(built, here)
        or _model(built, here)
    )
    if reason:
        hint = f"build it here: {rebuild}"
        if built.flavour == "tensorrt-rtx" and here.known and here.gpu.sm not in here.known:
            # Built again in the same way it would be refused again.
            title = NAMES[built.flavour]
            if not _on_first_use(here.gpu, here.known)[0]:
                other = f"{for_other_flavour(rebuild)} --flavour tensorrt"
                hint = f"{title} does not know this GPU: build it with TensorRT: {other}"
            elif built.capabilities:
                # What was recorded names none, so this is no loop.
                newer = f"this GPU is newer than {title}: build it without --compute-capability"
                hint = f"{newer}: {rebuild}"
        raise UnfitError(f"engine '{name}' {reason}", hint=hint)
    old = _driver(built.flavour, here.version, here.cuda, here.gpu)
    if old:
        raise UnfitError(f"engine '{name}' {old[0]}", hint=old[1])


def check_driver(flavour: Flavour, version: str, cuda: int | None, gpu: GpuFacts) -> None:
    """Raise ``EngineError`` with both sides where the driver is too old for this TensorRT.

    For whoever builds, before the work that comes first: the builder itself would refuse at its
    end. What TensorRT opens is asked by ``check_fits``.

    Args:
        flavour: which TensorRT builds.
        version: of the installed one.
        cuda: see ``cuda_major``; nothing is claimed where it is ``None``.
        gpu: with the driver's CUDA version.
    """
    old = _driver(flavour, version, cuda, gpu)
    if old:
        raise EngineError(f"building {old[0]}", hint=old[1])


def _platform(built: BuiltWith, here: Here) -> str | None:
    if built.platform != here.platform:
        return f"was built on {built.platform}, this is {here.platform}"
    return None


def _version(built: BuiltWith, here: Here) -> str | None:
    theirs, ours = _numbers(built.version), _numbers(here.version)
    depth = min(len(theirs), len(ours))
    if depth and theirs[:depth] == ours[:depth]:
        return None
    what = f"was built by {built.title}, here is {NAMES[built.flavour]} {here.version}"
    if not built.version_compatible or not depth:  # one that is no number fits nothing
        return what
    # Engines of 10 run under 11; no other step between major versions is supported.
    steps = {theirs[0], 11} if theirs[0] == 10 else {theirs[0]}
    if ours[0] in steps and ours > theirs:
        return None
    return f"{what}, which cannot run it even though it is version compatible"


def _cuda(built: BuiltWith, here: Here) -> str | None:
    """Packages of one version for two major versions of CUDA: what they compiled differs.

    Nothing is claimed where either side does not say. TensorRT for RTX tells itself whether a plan
    is valid; and a version compatible plan brings its own runtime.
    """
    if built.flavour == "tensorrt-rtx" or built.version_compatible:
        return None
    if built.cuda is None or here.cuda is None or built.cuda == here.cuda:
        return None
    return (
        f"was built by {built.title} for CUDA {built.cuda}, here is {NAMES[built.flavour]} "
        f"{here.version} for CUDA {here.cuda}"
    )


def _capability(built: BuiltWith, here: Here) -> str | None:
    this = here.gpu
    if built.flavour == "tensorrt-rtx":
        if not built.capabilities:
            fits, wanted = _on_first_use(this, here.known)
        else:
            fits, wanted = this.sm in built.capabilities, ", ".join(built.capabilities)
    elif built.hardware == "ampere+":
        fits, wanted = this.capability >= (8, 0), "8.0 or newer"
    elif built.hardware == "same-capability":
        fits, wanted = this.sm in built.capabilities, ", ".join(built.capabilities)
    else:
        fits = this.sm in built.capabilities and built.gpu == this.name
        wanted = f"{', '.join(built.capabilities)} ({built.gpu})"
    if fits:
        return None
    return f"was built for compute capability {wanted}, this is {this.sm} ({this.name})"


def _on_first_use(gpu: GpuFacts, known: Sequence[str]) -> tuple[bool, str]:
    """(whether an RTX engine built for no capability in particular runs there, where it does).

    On every GPU from Ampere on that it has kernels for, and on those newer than all of them, by
    code that the driver compiles. It has none for the GPUs of servers and Jetsons, such as 9.0 and
    8.7.
    """
    if not known:
        return gpu.capability >= _RTX_FROM, "8.0 or newer"
    numbers = {name: tuple(map(int, name.split("."))) for name in known}
    newest = max(numbers, key=numbers.__getitem__)
    fits = gpu.capability >= _RTX_FROM and (gpu.sm in numbers or gpu.capability > numbers[newest])
    named = ", ".join(name for name, number in numbers.items() if number >= _RTX_FROM)
    return fits, f"{named} or newer than {newest}"


def _model(built: BuiltWith, here: Here) -> str | None:
    """GPUs of one name and capability that differ in size: kernels were chosen for the other."""
    theirs, ours = built.multiprocessors, here.gpu.multiprocessors
    if built.flavour == "tensorrt-rtx" or built.hardware != "same":
        return None
    if not theirs or not ours or theirs == ours:
        return None
    there = f"{built.gpu}, {theirs} multiprocessors, {_gib(built.memory or 0)}"
    return (
        f"was built on a larger or smaller GPU ({there}), this one has {ours} multiprocessors "
        f"and {_gib(here.gpu.memory)}"
    )


def _gib(number: int) -> str:
    return f"{number / 2**30:.0f} GiB"


def _driver(
    flavour: Flavour, version: str, cuda: int | None, gpu: GpuFacts
) -> tuple[str, str] | None:
    """(what is wrong, what to do about it)."""
    if cuda is None or gpu.driver[0] >= cuda:
        return None
    return (
        f"needs a driver for CUDA {cuda}, which the installed {NAMES[flavour]} {version} is made "
        f"for; this driver runs up to CUDA {'.'.join(map(str, gpu.driver))}",
        f"install a newer driver, or packages of {NAMES[flavour]} for its CUDA",
    )


def _numbers(version: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)
