"""Two processes share one run: the same crops, averaged gradients, equal weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.training.distributed import World

ROOT = Path(__file__).resolve().parents[3]

PROCESS = """
import json, sys
import torch
from torch import nn
from pipeline.training.distributed import join_world

torch.set_num_threads(1)
with join_world(cuda=False) as world:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    rows = torch.arange(24.0).reshape(8, 3).sin()[list(world.share(8))]
    loss = model(rows).square().sum() + world.rank
    loss.backward()
    mean = world.average(model, loss)
    result = {
        "loss": float(mean),
        "grads": [p.grad.tolist() for p in model.parameters()],
        "mean": model[1].running_mean.tolist(),
        "count": int(model[1].num_batches_tracked),
    }
    open(f"{sys.argv[1]}/{world.rank}.json", "w").write(json.dumps(result))
"""


def expected() -> dict[str, Any]:
    """The same by hand: each half on its own network, then the mean."""
    losses: list[float] = []
    grads: list[list[Any]] = []
    means: list[Any] = []
    for rank in range(2):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        rows = torch.arange(24.0).reshape(8, 3).sin()[rank * 4 : rank * 4 + 4]
        loss = model(rows).square().sum() + rank
        loss.backward()
        losses.append(float(loss.detach()))
        grads.append([p.grad for p in model.parameters()])
        means.append(model[1].running_mean)
    return {
        "loss": float(np.mean(losses)),
        "grads": [((a + b) / 2).tolist() for a, b in zip(*grads, strict=True)],
        "mean": ((means[0] + means[1]) / 2).tolist(),
    }


def test_two_processes_average_gradients_statistics_and_loss(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(2):
        env = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        running.append(subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path)], env=env))
    assert [process.wait(120) for process in running] == [0, 0]
    oracle = expected()
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["loss"] == pytest.approx(oracle["loss"], rel=1e-5)
        assert found["count"] == 1, "counts are not averaged"
        np.testing.assert_allclose(found["mean"], oracle["mean"], rtol=1e-5)
        for one, other in zip(found["grads"], oracle["grads"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_shares_tile_the_batch_and_an_uneven_one_is_refused() -> None:
    places = [i for rank in range(4) for i in World(rank, 4).share(16)]
    assert places == list(range(16))
    with pytest.raises(UsageError, match=r"--batch 18 cannot be shared by 4 .* 16"):
        World(0, 4).share(18)
    loss = torch.tensor(3.0)
    assert World().average(torch.nn.Linear(1, 1), loss) is loss
