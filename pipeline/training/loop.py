"""The training loop: AdamW, warm-up and poly schedule, EMA, deep supervision, resumable.

Everything a run needs to go on is in ``last.pt``: network, EMA, optimiser, step. The data order is
a pure function of the seed and the step (see ``data``), so a killed run that resumes takes the same
steps as one that was never killed.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from calibration.cityscapes import CLASS_NAMES
from models.checkpoints import save_segmenter
from models.segmenter import MEAN_RGB, STD_RGB, Segmenter, normalise
from pipeline.artifact import write_whole
from pipeline.errors import CheckFailedError, DatasetError, UsageError
from pipeline.training.augment import AugmentConfig
from pipeline.training.curve import draw_curve
from pipeline.training.data import Batch, Mixture, make_batch, prefetch
from pipeline.training.distributed import World
from pipeline.training.loss import (
    LOSSES,
    LossConfig,
    class_weights,
    segmentation_loss,
    upsample_pixels,
)
from pipeline.training.parts import Part, trained_groups
from pipeline.training.state import Origin, plain, read_state, reading

MAX_RATE = 10.0
FEWEST_CROPS = 2

Scores = npt.NDArray[np.float64]
"""IoU of each class in points, NaN where the truth has none."""


@dataclass(frozen=True)
class TrainConfig:
    """Numbers of one run. ``crop`` is (height, width) in whole patches.

    ``loss_stride`` 4 takes the loss on every fourth pixel of every fourth row, of exact full
    resolution logits, at a phase that moves with the step: all pixels in turn, in 16 steps.
    ``only`` is the part that is trained, see ``trained_groups``; the rest, and the statistics of
    its BatchNorms, stay.
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
    loss: LossConfig = LOSSES["hard"]
    only: Part | None = None
    auxiliary: float = 0.4
    loss_stride: int = 4
    seed: int = 0
    every: int = 250
    bf16: bool = True
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if not 0 < self.rate <= MAX_RATE:  # refuses NaN too
            raise UsageError(
                f"--rate {self.rate}: give a learning rate above 0, at most {MAX_RATE}"
            )
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"--seed {self.seed}: give a whole number from 0 to {(1 << 32) - 1}")
        if self.batch < FEWEST_CROPS:
            raise UsageError(
                f"--batch {self.batch}: BatchNorm needs {FEWEST_CROPS} crops or more in a step"
            )


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
    """One run in one folder.

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
        origin: what the run learns from, is judged by and began as; see ``state``.

    Raises ``UsageError`` when the processes cannot share the batch.
    """

    def __init__(
        self, model: Segmenter, preset: str, mixture: Mixture, config: TrainConfig, folder: Path,
        *, device: torch.device, validate: Callable[[Segmenter], Scores] | None = None,
        world: World | None = None, origin: Origin | None = None,
    ) -> None:  # fmt: skip
        self.preset, self.mixture, self.config, self.folder = preset, mixture, config, folder
        self.device, self.validate, self.origin = device, validate, dict(origin or {})
        self.world = world or World()
        self._places = self.world.share(config.batch)
        if len(self._places) < FEWEST_CROPS:
            raise UsageError(
                f"--batch {config.batch} leaves each of {self.world.size} processes one crop, and "
                f"BatchNorm needs {FEWEST_CROPS}"
            )
        # Channels last: a sixth to a third less time a step, on CPU and GPU alike.
        model.to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        self.model = model
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            trained_groups(model, config.decay, config.only), lr=config.rate
        )
        self.weights = torch.from_numpy(
            class_weights(mixture.class_shares(), config.loss.balance)
        ).to(device)
        self.mean = torch.tensor(MEAN_RGB, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(STD_RGB, device=device).view(1, 3, 1, 1)
        self.step, self.best = 0, -1.0
        self._log: list[Progress] = []
        self._scores: list[tuple[int, list[float]]] = []

    def run(self, until: int | None = None) -> Iterable[Progress]:
        """Train up to step ``until`` (default: all), yielding one ``Progress`` a step.

        Raises ``CheckFailedError`` when the loss is no longer a number; what was saved stays.
        """
        last = min(until or self.config.steps, self.config.steps)
        config = self.config

        def make(step: int) -> Batch:
            return make_batch(
                self.mixture, config.seed, step, self._places, config.crop, config.augment
            )

        unjudged = (
            bool(self._log)
            and self.validate is not None
            and (self._log[-1].miou is None or not (self.folder / "best.safetensors").is_file())
        )
        if unjudged and self._stops(self.step, last):
            yield self._judge(self._log.pop())  # it ended while it was being judged
        for batch in prefetch(make, self.step, last):
            start = time.perf_counter()
            rate = learning_rate(config, self.step)
            loss = self._take(batch, rate)
            self.step += 1
            progress = Progress(self.step, loss, rate, time.perf_counter() - start)
            if self._stops(self.step, last):
                progress = self._judge(progress)
            else:
                self._log.append(progress)
            yield progress

    def _stops(self, step: int, last: int) -> bool:
        return step % self.config.every == 0 or step == last

    def _judge(self, progress: Progress) -> Progress:
        """Save, then validate: a frame that cannot be read must not cost the steps before it."""
        self._log.append(progress)
        if not self.world.leads:
            return progress
        self._save()
        miou = self._validate()
        if miou is not None:
            self._log[-1] = progress = replace(progress, miou=miou)
            self._save()
        return progress

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of one batch."""
        frames = torch.from_numpy(batch.images).to(self.device)
        images = normalise(frames, self.mean, self.std)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(batch.labels.astype(np.int64)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            if self.config.only is None:
                logits, auxiliary = self.model.forward_train(images)
            else:
                logits, auxiliary = self.model(images), None
        size, stride = labels.shape[1:], self.config.loss_stride
        row, column = batch.step % stride, batch.step // stride % stride
        loss = segmentation_loss(
            upsample_pixels(logits.float(), size, stride, row, column),
            labels[:, row::stride, column::stride],
            self.weights,
            self.config.loss,
        )
        if auxiliary is not None:
            # Deep supervision needs no fine edges: labels at the stride of the logits will do.
            step = size[0] // auxiliary.shape[2]
            coarse = labels[:, step // 2 :: step, step // 2 :: step]
            loss = loss + self.config.auxiliary * segmentation_loss(
                auxiliary, coarse, self.weights, replace(self.config.loss, dice=0.0)
            )
        return loss

    def _take(self, batch: Batch, rate: float) -> float:
        self.model.train(self.config.only is None)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        found = float(self.world.average(self.model, loss).detach())
        if not math.isfinite(found):
            raise CheckFailedError(
                f"step {self.step + 1}: the loss is {found}, so nothing more can be learned",
                hint=f"try a lower --rate than {self.config.rate:g}; --no-bf16 rules rounding out",
            )
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip))
        if not math.isfinite(norm):  # a step along it would leave no weight a number
            raise CheckFailedError(
                f"step {self.step + 1}: the gradient's norm is {norm}",
                hint=f"try a lower --rate than {self.config.rate:g}; --no-bf16 rules rounding out",
            )
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.ema[key].lerp_(value, 1 - decay)
                else:
                    self.ema[key].copy_(value)
        return found

    def _validate(self) -> float | None:
        """Score the EMA network, and keep it if it is the best so far."""
        if self.validate is None:
            return None
        held = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        self.model.eval()
        with torch.no_grad():
            scores = self.validate(self.model)
        if np.isnan(scores).all():
            raise DatasetError("the val split has no labelled pixel, so it can judge nothing")
        miou = float(np.nanmean(scores))
        self._scores = [row for row in self._scores if row[0] != self.step]
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
            "config": plain(self.config),
            "preset": self.preset,
            "origin": self.origin,
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

        Raises ``CheckpointError`` when the run there was another one, or is damaged.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        state = read_state(path, self.device, self.preset, self.config, self.origin)
        with reading(path):
            self.model.load_state_dict(state["model"])
            self.ema = state["ema"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.best = int(state["step"]), float(state["best"])
            self._log = [Progress(*row) for row in state["log"]]
            self._scores = [(int(step), list(scores)) for step, scores in state["scores"]]
            for key, value in self.model.state_dict().items():
                if self.ema[key].shape != value.shape:
                    raise ValueError(key)
            if self.step < 0:
                raise ValueError(self.step)
        if not (self.folder / "best.safetensors").is_file():
            self.best = -1.0  # it was lost: the next that is judged takes its place
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
