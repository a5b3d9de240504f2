"""What of this CPU decides how a network runs on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

# The instruction sets that OpenVINO's int8, bf16 and fp16 kernels are chosen by.
_TELLING = (
    "sse4_1", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip

# Those that add products of bytes in 32 bits, and what forbids oneDNN to use them.
_WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8")
_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")

# oneDNN's own switches, under its present and its former name.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS")


@cache
def cpu_model() -> str:
    """The processor's own name, or the architecture where the system does not tell."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_features() -> tuple[str, ...]:
    """Those of ``_TELLING`` that this CPU has, in that order, and what the environment forbids
    oneDNN to use of them, as ``NAME=VALUE``; empty where nothing tells."""
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    return (*_flags(), *limits)


@cache
def _flags() -> tuple[str, ...]:
    for line in _cpuinfo():
        key, _colon, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return tuple(name for name in _TELLING if name in flags)
    return ()


def device_facts() -> dict[str, Any]:
    """This CPU as manifests name the ``device`` an engine was verified on; plain JSON."""
    return {"cpu": cpu_model(), "features": list(cpu_features())}


def products_saturate(features: Sequence[str]) -> bool:
    """Whether int8 products overflow on a CPU of these ``cpu_features``.

    Without VNNI or AMX, x86 multiplies bytes by ``pmaddubsw``, of any width: two products of an
    unsigned and a signed byte are added in 16 bits, which hold 32767, and 2 * 255 * 127 is 64770.
    Weights of seven bits fit: 2 * 255 * 64 is 32640.
    """
    x86 = "sse4_1" in features or "avx2" in features
    for limit in (f.partition("=")[2].upper() for f in features if "MAX_CPU_ISA=" in f):
        if limit in _WITHOUT_VNNI:
            return x86
    return x86 and not any(name in features for name in _WIDE_SUMS)


def overflow_warning(weight_bits: object) -> str | None:
    """What to tell of an INT8 engine whose weights have that many bits, on this CPU."""
    if weight_bits != 8 or not products_saturate(cpu_features()):
        return None
    return (
        "this CPU has no VNNI: sums of 8-bit products overflow on it, and INT8 loses more than it "
        "needs to; build with --weight-bits 7"
    )


def usable_cpus() -> list[int]:
    """Numbers of the logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_count() -> int:
    """How many those are."""
    return len(usable_cpus())


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
