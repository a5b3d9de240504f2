"""A whole result made of plain numbers, for the tests of tables and pages."""

from __future__ import annotations

from pipeline.benchmark.contenders import Entry, Facts
from pipeline.benchmark.roofline import Measured, summarise
from pipeline.benchmark.rows import GROUPS, compare, make_rows
from pipeline.benchmark.schema import Benchmark, Load, Machine, Network, Peak
from pipeline.benchmark.turns import Contender, Found

PEAK = Peak(
    int8_gmacs=200.0, int8_size=512, int8_kernel="gemm_I8", f32_gmacs=50.0, f32_size=512,
    bandwidth_gbs=10.0,
)  # fmt: skip
NAMES = [name for names in GROUPS.values() for name in names]


def entries(missing: dict[str, str] | None = None) -> dict[str, Entry]:
    made = {}
    for name in NAMES:
        reason = (missing or {}).get(name)
        contender = None if reason else Contender((name,), dict)
        made[name] = Entry(contender, Facts("int8", {"Convolution u8": 3}, 2), reason)
    return made


def found(missing: dict[str, str] | None = None, rounds: int = 3) -> Found:
    """Row number n takes 10 (n + 1) ms in round 0, and 10 % more in each that follows."""
    made = Found()
    for number, name in enumerate(NAMES):
        if name not in (missing or {}):
            base = 10.0 * (number + 1)
            made.rounds[name] = [
                [base * (1 + 0.1 * r) * (1 + 0.01 * s) for s in range(5)] for r in range(rounds)
            ]
    return made


def machine(loaded: str | None = None) -> Machine:
    quiet = Load(one_minute=0.1, busy=0.01)
    return Machine(
        cpu="A <CPU>", instructions=["avx2", "avx512_vnni"], int8_dot=True, bf16=False, cpus=2,
        system="Linux x86_64", python="3.11.7", versions={"openvino": "2026.4.1"},
        load_before=quiet, load_after=quiet, others=0.02, loaded=loaded,
    )  # fmt: skip


def benchmark(missing: dict[str, str] | None = None, *, loaded: str | None = None) -> Benchmark:
    taken = found(missing)
    layers = [
        Measured("stem", "Convolution", "conv_I8", 2.0, 100_000_000, 1_000_000),
        Measured("order", "Transpose", "ref", 1.0, 0, 5_000_000),
    ]
    return Benchmark(
        created_at="2026-01-02T03:04:05+00:00", command="scripts/benchmark.py --json",
        network=Network(
            preset="edge-s", checkpoint="edge-s.safetensors", checkpoint_sha256="0" * 64,
            shape=(512, 1024), injection="split", multiply_adds=2_700_000_000, int8_agreement=0.99,
        ),
        video="rendered streets", rounds=3, seconds=1.0, machine=machine(loaded),
        rows=make_rows(entries(missing), taken), comparisons=compare(taken, targets=True),
        roofline=summarise("edge-s.xml", "int8", PEAK, layers, 4.0),
    )  # fmt: skip
