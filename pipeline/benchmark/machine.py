"""What measured: the CPU, the versions, and how much of it others used meanwhile.

On a shared machine the load average says little: it lags by a minute and counts what waits. Where
the system keeps count of CPU time (Linux), what others used is measured instead, on the CPUs that
this process may use.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.benchmark.schema import Load, Machine
from pipeline.engines.cpu import cpu_count, cpu_features, cpu_model, usable_cpus
from pipeline.stage import PICTURES, tool_versions

PACKAGES: Final = (
    "repmlp-edge", "torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy", *PICTURES, "av",
)  # fmt: skip
MOST_OTHERS: Final = 0.1
"""Share of the CPUs that others may take before figures are marked."""

_INT8: Final = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_BF16: Final = ("avx512_bf16", "amx_bf16", "bf16")
_STAT: Final = Path("/proc/stat")
_IDLE: Final = (3, 4)  # idle, iowait: proc_stat(5)
_COUNTED: Final = 8  # user, nice, system, idle, iowait, irq, softirq, steal; guest is in user


@dataclass(frozen=True)
class Clock:
    """CPU time so far in seconds: ours (with children that ended), and everybody's.

    ``everybody`` counts the usable CPUs and what a hypervisor stole from them; ``None`` where the
    system does not tell.
    """

    wall: float
    own: float
    everybody: float | None


def read_clock(stat: Path = _STAT) -> Clock:
    """Now."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return Clock(time.perf_counter(), own, _busy_seconds(stat))


def others_share(before: Clock, after: Clock, cpus: int) -> float | None:
    """Share of the usable CPUs that other processes took between two moments, 0 to 1."""
    if before.everybody is None or after.everybody is None or after.wall <= before.wall:
        return None
    foreign = (after.everybody - before.everybody) - (after.own - before.own)
    # The kernel counts in ticks, so a quiet second may come out a hair below nothing.
    return round(min(1.0, max(0.0, foreign / ((after.wall - before.wall) * cpus))), 4)


def _busy_seconds(stat: Path) -> float | None:
    """Seconds that the usable CPUs were not idle since the system started."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = {f"cpu{number}" for number in usable_cpus()}
    ticks = 0
    seen = 0
    for line in lines:
        name, *fields = line.split()
        if name in wanted:
            counted = [int(field) for field in fields[:_COUNTED]]
            ticks += sum(t for place, t in enumerate(counted) if place not in _IDLE)
            seen += 1
    return ticks / os.sysconf("SC_CLK_TCK") if seen == len(wanted) else None


def look(seconds: float) -> Load:
    """How busy the machine is, doing nothing for so long to see."""
    before = read_clock()
    time.sleep(seconds)
    busy = others_share(before, read_clock(), cpu_count())
    try:
        one_minute: float | None = round(os.getloadavg()[0], 2)
    except OSError:
        one_minute = None
    return Load(one_minute=one_minute, busy=busy)


def why_loaded(before: Load, others: float | None, cpus: int) -> str | None:
    """Why figures deserve less trust, or ``None``."""
    if others is not None and others > MOST_OTHERS:
        return f"other processes took {others:.0%} of the CPUs while it was measured"
    if before.busy is not None and before.busy > MOST_OTHERS:
        return f"other processes used {before.busy:.0%} of the CPUs before it began"
    if before.busy is None and before.one_minute is not None and before.one_minute > cpus / 2:
        return f"the load average was {before.one_minute:g} on {cpus} CPUs before it began"
    return None


def describe(before: Load, after: Load, others: float | None) -> Machine:
    """This machine, as the schema has it."""
    features = cpu_features()
    cpus = cpu_count()
    versions = tool_versions(PACKAGES)
    return Machine(
        cpu=cpu_model(),
        instructions=list(features),
        int8_dot=any(name in features for name in _INT8),
        bf16=any(name in features for name in _BF16),
        cpus=cpus,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name, found in versions.items() if found},
        load_before=before,
        load_after=after,
        others=others,
        loaded=why_loaded(before, others, cpus),
    )
