"""What each rewrite of the lowering buys: the INT8 engine with it undone, against the engine.

    python tests/benchmarks/bench_rewrites.py [--preset edge-m] [--shape 512x1024] [--rounds 25]

Weights are the shipped ones, ranges come from 8 rendered streets: speed does not depend on them.
All engines take turns, one tile at a time. ``all`` is the graph as it was first lowered: FC3 as a
MatMul, nncf's pairs where nncf puts them, with every block split, as INT8 was first made accurate,
or none (``all, full``), which was fewer layers and inaccurate. ``split`` is today's graph with
every block split; ``positions`` concerns split blocks alone, so it is undone there. ``gelu`` is no
rewrite but another network: the paper's activation in the feed-forward units, with the same
weights; its labels mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.quantize import QuantizeSettings, quantize
from calibration.streets import StreetScene
from models import DEFAULT_INJECTION, DEFAULT_PRESET
from models.checkpoints import load_into, shipped_checkpoint
from models.locality import inject_locality
from models.segmenter import Segmenter, build_segmenter, find_preset
from pipeline.console import parse_shape
from pipeline.engines.openvino import import_openvino
from pipeline.lowering.network import lower
from tests.benchmarks.first_lowering import REWRITES, undone

FRAMES, WARM = 8, 4


def main() -> None:
    """Build each engine, take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--shape", type=parse_shape, default=(512, 1024))
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    height, width = options.shape
    scene = StreetScene(seed=1, height=height, width=width)
    frames = [scene.render(i).bgr[None] for i in range(FRAMES)]
    ways: dict[str, tuple[tuple[str, ...], str]] = {"as it is": ((), DEFAULT_INJECTION)}
    ways |= {name: ((name,), DEFAULT_INJECTION) for name in REWRITES}
    ways |= {"split": ((), "split"), "positions": (("positions",), "split")}
    ways |= {"all": (REWRITES, "split"), "all, full": (REWRITES, "full")}
    ways["gelu"] = ((), DEFAULT_INJECTION)
    requests = {}
    for name, (names, form) in ways.items():
        model = network(options.preset, form, gelu=name == "gelu")
        with undone(*names):
            graph = lower(model, batch=1, height=height, width=width, opset=17, metadata={})
            graph = quantize(graph, frames, FRAMES, QuantizeSettings(estimator="minmax"))
        requests[name] = compiled(graph)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM + options.rounds):
        for name, request in requests.items():
            begin = perf_counter()
            request.infer({0: frames[number % FRAMES]})
            if number >= WARM:
                spent[name].append((perf_counter() - begin) * 1e3)
    print("| undone | ms | times the engine's |")
    print("|---|---|---|")
    for name, took in spent.items():
        ratio = statistics.median(a / b for a, b in zip(took, spent["as it is"], strict=True))
        print(f"| {name} | {statistics.median(took):.1f} | {ratio:.2f} |")


def network(preset: str, form: str, *, gelu: bool) -> Segmenter:
    """The shipped weights, injected; with the paper's activation where asked for."""
    chosen = find_preset(preset)
    if gelu:
        chosen = replace(chosen, backbone=replace(chosen.backbone, activation="gelu"))
    model = build_segmenter(chosen, seed=0).eval()
    load_into(model, shipped_checkpoint(preset))
    return inject_locality(model, form).model


def compiled(graph: onnx.ModelProto) -> Any:
    """An infer request of the graph."""
    core = import_openvino().Core()
    model = core.read_model(graph.SerializeToString())
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(model, "CPU", config).create_infer_request()


if __name__ == "__main__":
    main()
