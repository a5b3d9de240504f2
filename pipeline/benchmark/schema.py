"""The object that ``scripts/benchmark.py --json`` prints and ``docs/benchmarks`` keeps.

Times are wall-clock milliseconds. A row that could not be measured says why in ``skipped`` and its
figures are null. Within a major version fields are added, never changed.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Final = "1.0"

Group = Literal["stages", "engines", "end to end", "start"]


class _Part(BaseModel):
    """Base of every part: closed, immutable, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Load(_Part):
    """How busy the machine was at one moment; null where the system does not tell."""

    one_minute: float | None = Field(description="load average of the last minute")
    busy: float | None = Field(
        description="share of the usable CPUs that other processes used, over one second, 0 to 1"
    )


class Machine(_Part):
    """What measured."""

    cpu: str
    instructions: list[str] = Field(description="those that int8 and bf16 kernels are chosen by")
    int8_dot: bool = Field(description="VNNI, AMX or Arm dot products: int8 is more than storage")
    bf16: bool = Field(description="BF16 arithmetic: what OpenVINO takes for 'FP32' by default")
    cpus: int = Field(description="logical CPUs this process may use")
    system: str
    python: str
    versions: dict[str, str] = Field(description="installed packages")
    load_before: Load
    load_after: Load
    others: float | None = Field(
        description="share of the usable CPUs that other processes took while it was measured"
    )
    loaded: str | None = Field(
        description="why the figures deserve less trust; null on a quiet machine"
    )


class Ratio(_Part):
    """How many times as fast as the baseline: its time over this row's, paired by round."""

    baseline: str = Field(description="name of the row it is compared with")
    value: float = Field(description="median over rounds; above 1 is faster than the baseline")
    low: float = Field(description="least of the rounds")
    high: float = Field(description="greatest of the rounds")


class Row(_Part):
    """One thing that was measured, or why it was not."""

    name: str
    group: Group
    what: str = Field(description="what exactly was timed")
    median_ms: float | None = Field(description="over all samples of all rounds, for one frame")
    p95_ms: float | None
    low_ms: float | None = Field(description="median of the fastest round")
    high_ms: float | None = Field(description="median of the slowest round")
    fps: float | None = Field(description="1000 / median_ms, where frames a second mean anything")
    rounds_ms: list[float] = Field(description="the median of each round, in order")
    samples: int
    ratio: Ratio | None = Field(description="null for the baseline itself, or without one")
    limit_ms: float | None = Field(description="the most the project allows itself, if it says")
    precision: str | None = Field(description="what was asked for")
    executed: dict[str, int] | None = Field(
        description="what ran: layers by kind and precision, as the runtime itself reports them"
    )
    threads: int | None
    skipped: str | None = Field(description="why there are no figures")

    @model_validator(mode="after")
    def _figures_or_a_reason(self) -> Row:
        if (self.median_ms is None) == (self.skipped is None):
            raise ValueError(f"row '{self.name}' needs either figures or a reason, not both")
        return self


class Comparison(_Part):
    """A pair the project sets itself a target for, or that readers ask about; wins and losses."""

    name: str
    against: str
    ratio: float = Field(description="how many times as fast, median over rounds")
    low: float
    high: float
    target: float | None = Field(
        description="what the project aims at on two cores at 512x1024; null elsewhere"
    )
    met: bool | None = Field(description="whether ratio is at least target")


class Peak(_Part):
    """What this CPU does at best: the most of a few plain problems, by OpenVINO."""

    int8_gmacs: float = Field(description="10^9 int8 multiply-adds a second, a large MatMul")
    int8_size: int = Field(description="M = N = K of that MatMul")
    int8_kernel: str = Field(description="the kernel that ran it")
    f32_gmacs: float
    f32_size: int
    bandwidth_gbs: float = Field(description="10^9 bytes a second, read and written, by copying")


class Layer(_Part):
    """One layer of the compiled engine."""

    name: str
    kind: str
    kernel: str = Field(description="the implementation, its instruction set and its type")
    ms: float = Field(description="median over runs, by the runtime's own profile")
    share: float = Field(description="of the time of all layers, 0 to 1")
    macs: int = Field(description="multiply-adds; 0 for what has none worth counting")
    bytes: int = Field(description="read and written: inputs, weights, outputs")
    intensity: float = Field(description="multiply-adds a byte")
    gmacs: float = Field(description="10^9 multiply-adds a second, achieved")
    roof_ms: float = Field(description="the least time by peak int8 rate and by bandwidth")
    bound: Literal["compute", "memory"] = Field(description="which of the two sets roof_ms")


class Roofline(_Part):
    """The engine's layers against what the CPU can do."""

    engine: str
    precision: str
    peak: Peak
    macs: int = Field(description="of one frame, counted in the compiled graph")
    bytes: int
    layers_ms: float = Field(description="sum of all layers")
    roof_ms: float = Field(description="sum of all roofs")
    engine_ms: float = Field(description="one inference, without profiling")
    gmacs: float = Field(description="macs / engine_ms")
    share_of_peak: float = Field(description="gmacs / int8_gmacs, 0 to 1")
    layers: list[Layer] = Field(description="slowest first")


class Network(_Part):
    """What was run."""

    preset: str
    checkpoint: str = Field(description="file name, or what stands in for one")
    checkpoint_sha256: str
    shape: tuple[int, int] = Field(description="height, width of the engine's input")
    injection: str
    multiply_adds: int = Field(description="of one frame, in the float graph")
    int8_agreement: float | None = Field(
        description="share of labels that the int8 engine and fp32 share; null without int8"
    )


class Benchmark(_Part):
    """One run."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    created_at: str = Field(description="UTC, ISO 8601")
    command: str
    network: Network
    video: str = Field(description="the clip of the stages and the end-to-end rows")
    rounds: int
    seconds: float = Field(description="that the measuring took, builds left out")
    machine: Machine
    rows: list[Row]
    comparisons: list[Comparison]
    roofline: Roofline | None = None
