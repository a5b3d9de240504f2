"""What of this CPU decides how a network runs on it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

# The instruction sets that OpenVINO's int8, bf16 and fp16 kernels are chosen by.
_TELLING = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip

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


def cpu_count() -> int:
    """Logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
