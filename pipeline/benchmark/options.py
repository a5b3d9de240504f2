"""What may be asked of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from calibration.frames import DEFAULT_COUNT
from models import DEFAULT_INJECTION
from pipeline import DEFAULT_SHAPE, Injection
from pipeline.errors import UsageError
from pipeline.verify import MIN_AGREEMENT

PEERS: Final = ("torch", "onnxruntime", "benchmark_app")
"""Whom we can be compared with."""
ROUNDS: Final = 7


@dataclass(frozen=True)
class Pace:
    """Seconds of one turn, by what is timed; the defaults give steady figures on two cores.

    Attributes:
        engine: of one engine alone.
        path: of the stages.
        runner: of the runner, and of the engine with all streams.
        app: of benchmark_app, whole seconds.
        settle: of rest before every turn.
        look: spent watching the machine before and after.
        clip: frames of the rendered clip.
    """

    engine: float = 0.8
    path: float = 1.2
    runner: float = 2.0
    app: int = 2
    settle: float = 0.2
    look: float = 1.0
    clip: int = 50


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure.

    Attributes:
        preset: size of the network; ``None`` for the checkpoint's or the default one.
        checkpoint: trained network; ``None`` for the shipped one.
        random_weights: an untrained network, for speed alone.
        shape: (height, width) of the engine's input.
        against: of ``PEERS``, whom to compare with.
        rounds: how many turns everyone gets.
        dataset: Cityscapes tree to calibrate from; ``None`` for streets.
        frames: calibration frames.
        engines: where engines are built and kept, as ``build_engine.py --output``.
        injection: form of locality injection.
        min_agreement: see ``BuildOptions``; nothing is asked of random weights.
        video: the clip; ``None`` for rendered streets.
        roofline: whether to profile the int8 engine's layers too.
        pace: how long each turn takes.
        command: how it was called, for the record.

    Raises:
        UsageError: an option that is out of range or contradicts another.
    """

    preset: str | None = None
    checkpoint: Path | None = None
    random_weights: bool = False
    shape: tuple[int, int] = DEFAULT_SHAPE
    against: tuple[str, ...] = PEERS
    rounds: int = ROUNDS
    dataset: Path | None = None
    frames: int = DEFAULT_COUNT
    engines: Path = Path("engines")
    injection: Injection = DEFAULT_INJECTION
    min_agreement: float = MIN_AGREEMENT
    video: Path | None = None
    roofline: bool = True
    pace: Pace = field(default_factory=Pace)
    command: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.against if name not in PEERS]
        if unknown:
            raise UsageError(f"--against {unknown[0]}: choose from {', '.join(PEERS)}, or none")
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}: at least one round is needed")
        if self.random_weights and self.checkpoint is not None:
            raise UsageError("--random-weights and --checkpoint exclude each other")


def parse_against(text: str) -> tuple[str, ...]:
    """``torch,onnxruntime`` -> both; ``none`` -> nobody. Names are checked by the options."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if names == ["none"]:
        return ()
    if "none" in names:
        raise UsageError(f"--against {text}: none is nobody, so it stands alone")
    return tuple(dict.fromkeys(names))
