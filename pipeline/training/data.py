"""Batches for training: a pure function of (seed, step), so a resumed run repeats nothing.

Several data sets are mixed by weight; each sample of each step draws its own generator from
(seed, step, position), picks a data set, a frame and a crop. Frames are decoded once and kept in
memory up to a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import NUM_CLASSES, Cityscapes, FramePair
from pipeline.errors import UsageError
from pipeline.training.augment import AugmentConfig, augment

_SHARE_FRAMES = 200
"""Frames of a data set that tell how common its classes are."""

_AHEAD = 4
"""Batches that are made before they are wanted."""


@dataclass
class Mixture:
    """Data sets with their sampling weights and a bounded store of decoded frames.

    Args:
        datasets: Cityscapes trees; their ``split`` is used.
        weights: relative odds of drawing a sample from each.
        keep_bytes: decoded frames kept in memory, at most.
        relabel: optional table of 256 train ids applied to the labels of each data set.
    """

    datasets: Sequence[Cityscapes]
    weights: Sequence[float]
    split: str = "train"
    keep_bytes: int = 4 << 30
    relabel: Sequence[npt.NDArray[np.uint8] | None] = ()
    _frames: list[list[FramePair]] = field(init=False)
    _kept: dict[tuple[int, int], tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = field(
        init=False, default_factory=dict
    )
    _lock: Lock = field(init=False, default_factory=Lock)
    _held: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if len(self.datasets) != len(self.weights) or not self.datasets:
            raise UsageError("give one weight for each data set, and at least one data set")
        for dataset, weight in zip(self.datasets, self.weights, strict=True):
            if not 0 < weight < math.inf:  # refuses NaN too
                raise UsageError(f"--data {dataset.root}:{weight}: give a weight above 0")
        self._frames = [list(d.frames(self.split)) for d in self.datasets]
        total = float(sum(self.weights))
        self._odds = np.cumsum([w / total for w in self.weights])

    @property
    def frames(self) -> Sequence[Sequence[FramePair]]:
        """The frames of each data set."""
        return self._frames

    def __len__(self) -> int:
        return sum(len(frames) for frames in self._frames)

    def load(self, dataset: int, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """(HxWx3 uint8 BGR, HxW uint8 train ids) of one frame. Not to be written to."""
        with self._lock:
            held = self._kept.get((dataset, index))
        if held is not None:
            return held
        source, pair = self.datasets[dataset], self._frames[dataset][index]
        image, labels = source.read(pair)
        table = self.relabel[dataset] if self.relabel else None
        if table is not None:
            labels = table[labels]
        with self._lock:
            size = image.nbytes + labels.nbytes
            if (dataset, index) not in self._kept and self._held + size <= self.keep_bytes:
                self._kept[dataset, index] = (image, labels)
                self._held += size
        return image, labels

    def sample(
        self, rng: np.random.Generator, size: tuple[int, int], config: AugmentConfig
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """One augmented crop of ``size`` = (height, width)."""
        dataset = int(np.searchsorted(self._odds, rng.random(), side="right"))
        dataset = min(dataset, len(self.datasets) - 1)
        index = int(rng.integers(len(self._frames[dataset])))
        image, labels = self.load(dataset, index)

        def donor() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
            # Of the same data set: what is called a car in one is a bus in another.
            return self.load(dataset, int(rng.integers(len(self._frames[dataset]))))

        return augment(image, labels, size, config, rng, donor)

    def class_shares(self) -> npt.NDArray[np.float64]:
        """Share of labelled pixels per class, weighted like the sampling, over a few frames."""
        shares = np.zeros(NUM_CLASSES)
        for dataset, weight in enumerate(self.weights):
            count = len(self._frames[dataset])
            picks = np.unique(np.linspace(0, count - 1, min(_SHARE_FRAMES, count)).astype(int))
            counts = np.zeros(256)
            for index in picks:
                counts += np.bincount(self.load(dataset, int(index))[1].ravel(), minlength=256)
            labelled = counts[:NUM_CLASSES]
            shares += weight * labelled / max(labelled.sum(), 1.0)
        return np.asarray(shares / sum(self.weights), np.float64)


@dataclass(frozen=True)
class Batch:
    """One step's crops: ``images`` (B, H, W, 3) uint8 BGR, ``labels`` (B, H, W) uint8 train ids."""

    step: int
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def make_batch(
    mixture: Mixture, seed: int, step: int, positions: range, size: tuple[int, int],
    config: AugmentConfig,
) -> Batch:  # fmt: skip
    """The batch of that step. ``positions`` are this process's places in the global batch."""
    crops = [
        mixture.sample(np.random.default_rng((seed, step, place)), size, config)
        for place in positions
    ]
    return Batch(step, np.stack([c[0] for c in crops]), np.stack([c[1] for c in crops]))


def prefetch(
    make: Callable[[int], Batch], first: int, last: int, workers: int = 2
) -> Iterator[Batch]:
    """Batches of steps ``first`` to ``last - 1`` in order, made by ``workers`` threads ahead."""
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        pending: list[Future[Batch]] = []
        step = first
        try:
            while step < last or pending:
                while step < last and len(pending) < _AHEAD:
                    pending.append(pool.submit(make, step))
                    step += 1
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
