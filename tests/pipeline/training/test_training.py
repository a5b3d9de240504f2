"""Training: a resumed run is the run, samples are pure functions, losses are their formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.cityscapes import Cityscapes
from models.checkpoints import read_tensors
from models.segmenter import Segmenter, build_segmenter
from pipeline.errors import CheckpointError, UsageError
from pipeline.report.metrics import class_iou
from pipeline.training.augment import AugmentConfig, augment
from pipeline.training.data import Mixture, make_batch, prefetch
from pipeline.training.loop import TrainConfig, Trainer, learning_rate
from pipeline.training.loss import (
    LOSSES,
    LossConfig,
    class_weights,
    segmentation_loss,
    upsample_pixels,
)
from pipeline.training.score import confusion_matrix
from tests.models.helpers import TINY, tiny_segmenter

CONFIG = TrainConfig(steps=6, batch=2, crop=(32, 64), every=3, bf16=False, rate=1e-3)


def make_trainer(streets: Path, folder: Path, config: TrainConfig = CONFIG) -> Trainer:
    mixture = Mixture([Cityscapes(streets)], [1.0])
    model = build_segmenter(TINY, seed=0, auxiliary=True)
    return Trainer(model, "tiny", mixture, config, folder, device=torch.device("cpu"))


def test_a_resumed_run_takes_the_steps_of_an_uninterrupted_one(
    streets: Path, tmp_path: Path
) -> None:
    whole = make_trainer(streets, tmp_path / "whole")
    losses = [p.loss for p in whole.run()]
    broken = make_trainer(streets, tmp_path / "broken")
    first = [p.loss for p in broken.run(until=3)]
    resumed = make_trainer(streets, tmp_path / "broken")
    assert resumed.resume()
    assert resumed.step == 3
    second = [p.loss for p in resumed.run()]
    assert first + second == losses
    for key, value in whole.ema.items():
        assert torch.equal(value, resumed.ema[key]), key
    log = (tmp_path / "broken" / "log.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in log] == ["step", "1", "2", "3", "4", "5", "6"]


def test_training_lowers_the_loss(streets: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=40, every=40, rate=2e-2)
    trainer = make_trainer(streets, tmp_path, config)
    batch = make_batch(trainer.mixture, 9, 0, range(4), (32, 64), AugmentConfig())
    trainer.model.train()
    before = float(trainer.loss(batch).detach())
    list(trainer.run())
    assert float(trainer.loss(batch).detach()) < 0.9 * before


def test_a_run_of_the_classifier_alone_leaves_all_else_as_it_was(
    streets: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(streets, tmp_path, replace(CONFIG, only="classifier"))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    list(trainer.run())
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}


def test_a_run_with_other_numbers_is_not_taken_up(streets: Path, tmp_path: Path) -> None:
    list(make_trainer(streets, tmp_path).run(until=3))
    with pytest.raises(CheckpointError, match=r"rate 0\.001 -> 0\.002"):
        make_trainer(streets, tmp_path, replace(CONFIG, rate=2e-3)).resume()


def test_the_best_is_saved_with_its_score_and_without_the_auxiliary_head(
    streets: Path, tmp_path: Path
) -> None:
    scores = iter([30.0, 20.0])
    trainer = make_trainer(streets, tmp_path)
    unseen = [np.nan] * 17
    trainer.validate = lambda _network: np.array([(s := next(scores)) - 5, s + 5, *unseen])
    list(trainer.run())
    tensors, metadata = read_tensors(tmp_path / "best.safetensors")
    assert metadata["val_miou"] == "30.000"
    assert metadata["step"] == "3"
    table = (tmp_path / "val.csv").read_text().splitlines()
    assert table[0].startswith("step,road,sidewalk,")
    assert table[1].startswith("3,25.00,35.00,,")
    assert not any(key.startswith("auxiliary") for key in tensors)


def test_samples_depend_on_seed_step_and_place_alone(streets: Path) -> None:
    mixture, again = (Mixture([Cityscapes(streets)], [1.0]) for _ in range(2))
    config = AugmentConfig()
    batch = make_batch(mixture, 0, 5, range(4), (32, 64), config)
    part = make_batch(again, 0, 5, range(2, 4), (32, 64), config)  # another process's share
    np.testing.assert_array_equal(batch.images[2:], part.images)
    np.testing.assert_array_equal(batch.labels[2:], part.labels)
    other = make_batch(mixture, 0, 6, range(4), (32, 64), config)
    assert not np.array_equal(batch.images, other.images)


def test_batches_come_in_order_whatever_the_threads_do(streets: Path) -> None:
    mixture = Mixture([Cityscapes(streets)], [1.0])

    def make(step: int) -> object:
        return make_batch(mixture, 0, step, range(1), (16, 16), AugmentConfig())

    steps = [b.step for b in prefetch(make, 3, 12, workers=3)]  # type: ignore[arg-type]  # a Batch
    assert steps == list(range(3, 12))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(32, 32), (48, 96), (128, 64)]))
def test_crops_keep_their_size_and_know_only_labels_of_the_frame(
    seed: int, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 3, 255], np.uint8), (50, 70))
    image = np.repeat((labels * 20)[..., None], 3, axis=2).astype(np.uint8)
    before = image.copy(), labels.copy()
    crop, truth = augment(image, labels, size, AugmentConfig(poles=0), rng)
    assert crop.shape == (*size, 3)
    assert truth.shape == size
    assert crop.dtype == truth.dtype == np.uint8
    assert set(np.unique(truth)) <= {0, 3, 255}
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_images_and_labels_move_together() -> None:
    """With colour left alone, every pixel still carries the colour of its label."""
    labels = np.zeros((64, 64), np.uint8)
    labels[16:48, 16:48] = 1
    image = np.repeat((labels * 200)[..., None], 3, axis=2)
    quiet = AugmentConfig(
        colour=0, shadow=0, blur=0, weather=0, compress=0, rare=0, poles=0, scale=(1.9, 2.1)
    )
    for seed in range(20):
        crop, truth = augment(image, labels, (64, 64), quiet, np.random.default_rng(seed))
        inside = truth != 255
        agree = (crop[..., 0] > 100) == (truth == 1)
        assert agree[inside].mean() > 0.97


def test_a_shadow_darkens_one_side_and_moves_nothing() -> None:
    image, labels = np.full((96, 128, 3), 200, np.uint8), np.zeros((96, 128), np.uint8)
    plain = AugmentConfig(colour=0, shadow=1, blur=0, weather=0, compress=0, rare=0, poles=0)
    reached = 0
    for seed in range(20):
        crop, truth = augment(image, labels, (96, 128), plain, np.random.default_rng(seed))
        assert crop.max() <= 200
        # 0.25 of the light at least, times 0.8 for the warmest channel.
        assert crop.min() >= int(200 * 0.25 * 0.8)
        reached += crop.min() < 0.72 * 200 and crop.max() > 0.95 * 200
        assert set(np.unique(truth)) <= {0, 255}
    assert reached >= 8  # the others' lines cross a corner, or lie outside


def test_a_mixture_keeps_its_weights(streets: Path) -> None:
    data = Cityscapes(streets)
    mixture = Mixture([data, data], [3.0, 1.0])
    picked = np.zeros(2, int)
    real = mixture.load

    def counting(dataset: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        picked[dataset] += 1
        return real(dataset, index)

    mixture.load = counting  # type: ignore[method-assign]  # a spy
    for place in range(300):
        mixture.sample(np.random.default_rng((0, place)), (16, 16), AugmentConfig())
    assert 0.68 < picked[0] / picked.sum() < 0.82
    with pytest.raises(UsageError, match="weight"):
        Mixture([data], [1.0, 2.0])


def numpy_loss(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, threshold: float, keep: float
) -> float:
    """Weighted cross entropy with OHEM, pixel by pixel in float64."""
    rows = []
    for n, y, x in np.ndindex(*labels.shape):
        if labels[n, y, x] == 255:
            continue
        z = logits[n, :, y, x].astype(np.float64)
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        c = labels[n, y, x]
        rows.append((-log_p[c], weights[c]))
    rows.sort(key=lambda r: -r[0])
    least = max(1, int(keep * len(rows)))
    kept = [r for i, r in enumerate(rows) if i < least or r[0] >= -np.log(threshold)]
    return float(sum(loss * w for loss, w in kept) / sum(w for _loss, w in kept))


@pytest.mark.parametrize(("threshold", "keep"), [(0.7, 0.25), (0.05, 0.5), (1.0, 1.0)])
def test_the_loss_is_its_formula(threshold: float, keep: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 19, 6, 5)).astype(np.float32) * 3
    labels = rng.integers(0, 19, (2, 6, 5))
    labels[0, :2] = 255
    weights = rng.uniform(0.5, 2, 19).astype(np.float32)
    got = segmentation_loss(
        torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(weights),
        LossConfig(threshold=threshold, keep=keep, dice=0.0),
    )  # fmt: skip
    assert float(got) == pytest.approx(
        numpy_loss(logits, labels, weights, threshold, keep), rel=1e-5
    )


def test_the_plain_loss_is_the_cross_entropy_of_every_labelled_pixel() -> None:
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(2, 19, 6, 5)).astype(np.float32) * 9)
    labels = torch.from_numpy(rng.integers(0, 19, (2, 6, 5)))
    labels[0, :2] = 255
    weights = torch.from_numpy(class_weights(np.arange(19.0), LOSSES["plain"].balance))
    got = segmentation_loss(logits, labels, weights, LOSSES["plain"])
    wanted = torch.nn.functional.cross_entropy(logits.double(), labels, ignore_index=255)
    assert float(got) == pytest.approx(float(wanted), rel=1e-5)


def test_dice_is_zero_for_the_truth_and_one_for_its_opposite() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, :, 4:] = 1
    sure = torch.nn.functional.one_hot(labels, 19).permute(0, 3, 1, 2).float() * 50
    weights = torch.ones(19)

    def dice(logits: torch.Tensor) -> float:
        with_it = segmentation_loss(logits, labels, weights, LossConfig(dice=1.0))
        return float(with_it - segmentation_loss(logits, labels, weights, LossConfig(dice=0.0)))

    assert dice(sure) == pytest.approx(0.0, abs=1e-3)
    assert dice(sure.flip(3)) == pytest.approx(1.0, abs=0.05)


def test_a_crop_without_labels_costs_nothing_and_keeps_the_gradient() -> None:
    logits = torch.randn(1, 19, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), 255), torch.ones(19))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert float(loss.detach()) == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_sampled_upsampling_is_the_upsampling(stride: int, row: int, column: int) -> None:
    x = torch.randn(2, 3, 8, 6)
    whole = torch.nn.functional.interpolate(x, (32, 24), mode="bilinear", align_corners=False)
    got = upsample_pixels(x, (32, 24), stride, row % stride, column % stride)
    torch.testing.assert_close(got, whole[..., row % stride :: stride, column % stride :: stride])


def test_class_weights_are_enets() -> None:
    shares = np.zeros(19)
    shares[0], shares[5] = 0.9, 0.1
    weights = class_weights(shares)
    raw = 1 / np.log(1.02 + np.array([0.9, 0.1]))
    assert weights[5] / weights[0] == pytest.approx(raw[1] / raw[0], rel=1e-5)
    assert weights[[0, 5]].mean() == pytest.approx(1.0)
    assert weights[3] == 1.0  # never seen: neither favoured nor silenced


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    config = replace(CONFIG, steps=100, rate=1.0, warmup=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5**0.9)
    assert 0 < rates[99] < 0.03


def test_iou_is_counted_at_the_labels_own_resolution(streets: Path) -> None:
    class Perfect(Segmenter):
        """Answers with the truth, at the stride of a real network's logits."""

        def __init__(self, truth: np.ndarray) -> None:
            torch.nn.Module.__init__(self)
            safe = torch.from_numpy(np.where(truth == 255, 0, truth).astype(np.int64))
            self.logits = torch.nn.functional.one_hot(safe, 19).permute(2, 0, 1)[None].float()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.logits

    data = Cityscapes(streets)
    pair = data.frames("val")[0]
    truth = data.read_labels(pair.label)
    matrix = confusion_matrix(Perfect(truth), data, [pair], (64, 128), torch.device("cpu"))
    assert matrix.sum() == (truth != 255).sum()
    scores = class_iou(matrix)
    assert np.nanmin(scores) == 100.0
    assert np.isnan(scores[np.bincount(truth[truth < 19], minlength=19) == 0]).all()


def test_a_real_network_is_scored(streets: Path) -> None:
    data = Cityscapes(streets)
    pairs, device = data.frames("val"), torch.device("cpu")
    truth = np.stack([data.read_labels(pair.label) for pair in pairs])
    counts = np.bincount(truth.ravel(), minlength=256)
    table = np.arange(256, dtype=np.uint8)
    table[0] = 255  # road is not judged
    for relabel, labelled in ((None, counts[:19]), (table, counts[:19] * (np.arange(19) > 0))):
        matrix = confusion_matrix(tiny_segmenter(), data, pairs, (64, 128), device, relabel)
        np.testing.assert_array_equal(matrix.sum(1), labelled)
    assert counts[0] > 0
