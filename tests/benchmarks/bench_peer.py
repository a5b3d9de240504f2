"""Our INT8 engine against INT8 PIDNet-S, same size, same cores, turn by turn.

    python tests/benchmarks/bench_peer.py [--engine FILE.xml] [--rounds 15]

PIDNet-S has random weights: how fast it is does not depend on them, what it would see does. It is
quantized by nncf with its own defaults on procedural streets and run by OpenVINO as our engines
are, both to the end of their logits: ours at stride 4, PIDNet's at stride 8, a quarter of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import nncf
import numpy as np
import openvino as ov
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.streets import StreetScene
from pipeline.engines.opening import find_engine, open_engine
from tests.benchmarks.pidnet import PidNetS

FRAMES = 16


def main() -> None:
    """Build the peer, take turns, print both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    path = options.engine or find_engine(Path("engines"))
    with open_engine(path) as engine:
        _batch, height, width, _channels = engine.inputs[0].shape
        scene = StreetScene(seed=1, height=height, width=width)
        frames = [scene.render(i).bgr[None] for i in range(FRAMES)]
        peer, parameters = build_peer(frames)
        runs: tuple[Callable[[Any], object], ...] = (engine.infer, lambda x: peer.infer({0: x}))
        spent: list[list[float]] = [[], []]
        for number in range(options.rounds + 3):
            frame = frames[number % FRAMES]
            for kept, run in zip(spent, runs, strict=True):
                begin = perf_counter()
                run(frame)
                if number >= 3:  # warm by now
                    kept.append((perf_counter() - begin) * 1e3)
    ours, theirs = (statistics.median(each) for each in spent)
    ratios = sorted(b / a for a, b in zip(*spent, strict=True))
    print(f"{path.name}, {height}x{width}: {ours:.1f} ms")
    print(f"PIDNet-S int8, {parameters / 1e6:.2f} M parameters: {theirs:.1f} ms")
    print(f"PIDNet-S / ours: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def build_peer(frames: list[Any]) -> tuple[Any, int]:
    """(an infer request of INT8 PIDNet-S for frames of that shape, its number of parameters)."""
    torch.manual_seed(0)
    model = PidNetS().eval()
    shape = frames[0].shape
    graph = ov.convert_model(model, example_input=torch.from_numpy(frames[0]), input=[shape])
    quantized = nncf.quantize(graph, nncf.Dataset(frames), subset_size=len(frames))
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(quantized, "CPU", config).create_infer_request()
    request.infer({0: np.ascontiguousarray(frames[0])})
    return request, sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    main()
