"""What others used of the CPUs, from the kernel's own counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.benchmark.machine import (
    Clock,
    describe,
    look,
    others_share,
    read_clock,
    why_loaded,
)
from pipeline.benchmark.schema import Load
from pipeline.engines.cpu import cpu_model, usable_cpus

HZ = os.sysconf("SC_CLK_TCK")


def stat(folder: Path, busy: int, idle: int) -> Path:
    """A /proc/stat whose usable CPUs did that many ticks each, and whose other ones did more."""
    lines = ["cpu  1 2 3 4 5 6 7 8 9 10"]
    # user nice system idle iowait irq softirq steal guest guest_nice
    fields = f"{busy} 0 0 {idle} 7 0 0 0 {busy} 0"
    lines += [f"cpu{number} {fields}" for number in usable_cpus()]
    lines += [f"cpu{max(usable_cpus()) + 1} 99999 0 0 0 0 0 0 0 0 0", "intr 5"]
    path = folder / "stat"
    path.write_text("\n".join(lines))
    return path


def test_only_usable_cpus_count_and_waiting_does_not(tmp_path: Path) -> None:
    clock = read_clock(stat(tmp_path, busy=3 * HZ, idle=50 * HZ))
    assert clock.everybody == pytest.approx(3 * len(usable_cpus()))


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n"])
def test_a_system_that_does_not_tell(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stat"
    assert read_clock(path).everybody is None
    path.write_text(text)
    assert read_clock(path).everybody is None


def test_the_share_is_what_was_not_ours() -> None:
    # 2 CPUs for 10 s; 13 s were used, 9 of them by us.
    assert others_share(Clock(0, 1, 100), Clock(10, 10, 113), 2) == pytest.approx(4 / 20)
    assert others_share(Clock(0, 0, 0), Clock(10, 5, 4.9), 2) == 0
    assert others_share(Clock(0, 0, None), Clock(10, 5, 4), 2) is None


def test_loads_that_are_told() -> None:
    quiet = Load(one_minute=9.0, busy=0.0)
    assert why_loaded(quiet, 0.05, 2) is None
    assert "31% of the CPUs while" in (why_loaded(quiet, 0.31, 2) or "")
    assert "before it began" in (why_loaded(Load(one_minute=0, busy=0.5), 0.0, 2) or "")
    blind = Load(one_minute=1.5, busy=None)
    assert "load average was 1.5 on 2" in (why_loaded(blind, None, 2) or "")
    assert why_loaded(blind, None, 8) is None


def test_this_machine() -> None:
    load = look(0.01)
    machine = describe(load, load, None)
    assert machine.cpu == cpu_model()
    assert machine.cpus == len(usable_cpus()) >= 1
    assert machine.versions["numpy"]
