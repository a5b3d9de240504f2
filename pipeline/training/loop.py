"""The training loop: AdamW, warm-up and poly schedule, EMA, deep supervision, resumable.

Everything a run needs to go on is in ``last.pt``: network, EMA, optimiser, step. The data order is
a pure function of the seed and the step (see ``data``), so a killed run that resumes takes the same
steps as one that was never killed.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.cityscapes import CLASS_NAMES
from models.checkpoints import save_segmenter, write_whole
from models.segmenter import MEAN_RGB, STD_RGB, Segmenter
from pipeline.errors import CheckpointError
from pipeline.training.augment import AugmentConfig
from pipeline.training.curve import draw_curve
from pipeline.training.data import Batch, Mixture, make_batch, prefetch
from pipeline.training.distributed import World
from pipeline.training.loss import class_weights, segmentation_loss, upsample_pixels

Scores = npt.NDArray[np.float64]
"""IoU of each class in points, NaN where the truth has none."""


@dataclass(frozen=True)
class TrainConfig:
    """Numbers of one run. ``crop`` is (height, width) in whole patches.

    ``loss_stride`` 4 takes the loss on every fourth pixel of every fourth row, of exact full
    resolution logits, at a phase that moves with the step: all pixels in turn, in 16 steps.
    ``balance`` is the exponent of the class weights: 1 finds every person and calls four times as
    many pixels one, 0 finds none; IoU wants the middle.
    """

    steps: int = 4000
    batch: int = 16
    crop: tuple[int, int] = (256, 256)
    rate: float = 2e-3
    decay: float = 0.05
    warmup: float = 0.05
    power: float = 0.9
    clip: float = 1.0
    ema: float = 0.999
    dice: float = 1.0
    balance: float = 0.5
    auxiliary: float = 0.4
    loss_stride: int = 4
    seed: int = 0
    every: int = 250
    bf16: bool = True
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class Progress:
    """One event of a run: a step taken, or a validation."""

    step: int
    loss: float
    rate: float
    seconds: float
    miou: float | None = None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then poly: rate * (1 - t)^power with t from 0 to 1 over the rest."""
    warm = max(1, int(config.warmup * config.steps))
    if step < warm:
        return config.rate * (step + 1) / warm
    t = (step - warm) / max(1, config.steps - warm)
    return float(config.rate * max(0.0, 1.0 - t) ** config.power)


class Trainer:
    """One run in one folder. ``validate`` scores a network: mIoU in points, 0 to 100.

    Args:
        model: in train form; trained in place.
        preset: its preset's name, for the saved files.
        mixture: where crops come from.
        config: the numbers.
        folder: receives ``last.pt``, ``best.safetensors``, ``log.csv``, ``val.csv``, ``curve.svg``.
        device: where to train.
        validate: called with the EMA network, gives the IoU of each class in points, NaN where
            the truth has none; may be ``None``.
        world: this process among those that share the run.
    """

    def __init__(
        self, model: Segmenter, preset: str, mixture: Mixture, config: TrainConfig, folder: Path,
        *, device: torch.device, validate: Callable[[Segmenter], Scores] | None = None,
        world: World | None = None,
    ) -> None:  # fmt: skip
        self.preset, self.mixture, self.config, self.folder = preset, mixture, config, folder
        self.device, self.validate = device, validate
        self.world = world or World()
        self._places = self.world.share(config.batch)
        # Channels last: a sixth to a third less time a step, on CPU and GPU alike.
        model.to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        self.model = model
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(_groups(model, config.decay), lr=config.rate)
        self.weights = torch.from_numpy(class_weights(mixture.class_shares(), config.balance)).to(
            device
        )
        self.mean = torch.tensor(MEAN_RGB, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(STD_RGB, device=device).view(1, 3, 1, 1)
        self.step, self.best = 0, -1.0
        self._log: list[Progress] = []
        self._scores: list[tuple[int, list[float]]] = []

    def run(self, until: int | None = None) -> Iterable[Progress]:
        """Train up to step ``until`` (default: all), yielding one ``Progress`` a step."""
        last = min(until or self.config.steps, self.config.steps)
        config = self.config

        def make(step: int) -> Batch:
            return make_batch(
                self.mixture, config.seed, step, self._places, config.crop, config.augment
            )

        for batch in prefetch(make, self.step, last):
            start = time.perf_counter()
            rate = learning_rate(config, self.step)
            loss = self._take(batch, rate)
            self.step += 1
            stop = self.step % config.every == 0 or self.step == last
            miou = self._validate() if stop else None
            progress = Progress(self.step, loss, rate, time.perf_counter() - start, miou)
            self._log.append(progress)
            if stop and self.world.leads:
                self._save()
            yield progress

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of one batch."""
        images = self.normalise(batch.images)
        labels = torch.from_numpy(batch.labels.astype(np.int64)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            logits, auxiliary = self.model.forward_train(images)
        size, stride = labels.shape[1:], self.config.loss_stride
        row, column = batch.step % stride, batch.step // stride % stride
        loss = segmentation_loss(
            upsample_pixels(logits.float(), size, stride, row, column),
            labels[:, row::stride, column::stride],
            self.weights,
            dice=self.config.dice,
        )
        if auxiliary is not None:
            # Deep supervision needs no fine edges: labels at the stride of the logits will do.
            step = size[0] // auxiliary.shape[2]
            coarse = labels[:, step // 2 :: step, step // 2 :: step]
            loss = loss + self.config.auxiliary * segmentation_loss(
                auxiliary, coarse, self.weights, dice=0.0
            )
        return loss

    def normalise(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 BGR (N, H, W, 3) -> normalised RGB float (N, 3, H, W) on the device."""
        bgr = torch.from_numpy(frames).to(self.device)
        rgb = bgr.permute(0, 3, 1, 2).flip(1).float()
        return ((rgb - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _take(self, batch: Batch, rate: float) -> float:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        loss = self.world.average(self.model, loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.ema[key].lerp_(value, 1 - decay)
                else:
                    self.ema[key].copy_(value)
        return float(loss.detach())

    def _validate(self) -> float | None:
        """Score the EMA network, and keep it if it is the best so far."""
        if self.validate is None or not self.world.leads:
            return None
        held = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        self.model.eval()
        with torch.no_grad():
            scores = self.validate(self.model)
        miou = float(np.nanmean(scores))
        self._scores.append((self.step, [float(s) for s in scores]))
        if miou > self.best:
            self.best = miou
            facts = {"step": str(self.step), "val_miou": f"{miou:.3f}"}
            save_segmenter(self.model, self.preset, self.folder / "best.safetensors", facts)
        self.model.load_state_dict(held)
        return miou

    def _save(self) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "config": _plain(self.config),
            "preset": self.preset,
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "log": [list(asdict(p).values()) for p in self._log],
            "scores": self._scores,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(self.folder / "last.pt", buffer.getvalue())
        self._write_log()

    def resume(self) -> bool:
        """Take up the run in ``folder`` where its last checkpoint left it; ``False`` if none.

        Raises ``CheckpointError`` when the run there was of another preset or other numbers.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, now in (("preset", self.preset), ("config", _plain(self.config))):
            if state[name] != now:
                raise CheckpointError(
                    f"'{path}' was trained with another {name}: {_difference(state[name], now)}",
                    hint="use the same options, or another --output",
                )
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = int(state["step"]), float(state["best"])
        self._log = [Progress(*row) for row in state["log"]]
        self._scores = [(int(step), list(scores)) for step, scores in state["scores"]]
        return True

    def _write_log(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", "loss", "rate", "seconds", "val_miou"])
        for p in self._log:
            miou = "" if p.miou is None else f"{p.miou:.3f}"
            writer.writerow([p.step, f"{p.loss:.5f}", f"{p.rate:.3e}", f"{p.seconds:.3f}", miou])
        write_whole(self.folder / "log.csv", text.getvalue().encode())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *CLASS_NAMES])
        for step, scores in self._scores:
            writer.writerow([step, *("" if np.isnan(s) else f"{s:.2f}" for s in scores)])
        write_whole(self.folder / "val.csv", text.getvalue().encode())
        scored = [(p.step, p.miou) for p in self._log if p.miou is not None]
        title = f"{self.preset}, best val mIoU {self.best:.2f}"
        draw_curve([p.loss for p in self._log], scored, title, self.folder / "curve.svg")


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay on kernels only: a decayed BatchNorm scale or bias is a worse network."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The numbers that decide the steps taken, as plain lists and numbers."""
    values = asdict(config)
    del values["every"]  # how often to look changes nothing
    return {k: list(v) if isinstance(v, tuple) else _listed(v) for k, v in values.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
    return value


def _difference(before: Any, now: Any) -> str:
    if not isinstance(before, dict):
        return f"'{before}', not '{now}'"
    changed = [k for k in now if before.get(k) != now[k]]
    return ", ".join(f"{k} {before.get(k)} -> {now[k]}" for k in changed) or "other options"
