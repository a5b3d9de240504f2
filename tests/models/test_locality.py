"""Locality injection against what it claims to be: the same function."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.errors import InjectionError, ModelError
from models.locality import (
    convolution_matrix,
    convolutional_part,
    inject_block,
    inject_locality,
    window_contrast,
)
from models.repmlp import RepMLPBlock
from tests.models.helpers import randomise, tiny_segmenter

odd = st.sampled_from([1, 3, 5, 7])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), odd, st.integers(1, 7), st.integers(1, 7))
def test_the_matrix_of_a_convolution_is_the_convolution_of_the_identity(
    sets: int, k: int, h: int, w: int
) -> None:
    """The paper's own construction: convolve each unit patch."""
    kernel = torch.randn(sets, k, k, dtype=torch.float64)
    unit = torch.eye(h * w, dtype=torch.float64).reshape(h * w, 1, h, w).expand(-1, sets, -1, -1)
    columns = F.conv2d(unit, kernel[:, None], padding=k // 2, groups=sets)
    expected = columns.reshape(h * w, sets, h * w).permute(1, 2, 0)
    torch.testing.assert_close(convolution_matrix(kernel, h, w), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(3, 6), st.integers(3, 6))
def test_the_convolutional_part_of_a_convolution_is_its_kernel(
    sets: int, k: int, h: int, w: int
) -> None:
    kernel = torch.randn(sets, k, k, dtype=torch.float64)
    found = convolutional_part(convolution_matrix(kernel, h, w), k, h, w)
    torch.testing.assert_close(found, kernel)


def test_the_convolutional_part_is_the_mean_over_positions() -> None:
    matrix = np.random.default_rng(0).normal(size=(1, 12, 12))
    found = convolutional_part(torch.from_numpy(matrix), 3, 3, 4).numpy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            values = [
                matrix[0, y * 4 + x, (y + dy) * 4 + x + dx]
                for y in range(3)
                for x in range(4)
                if 0 <= y + dy < 3 and 0 <= x + dx < 4
            ]
            assert found[0, dy + 1, dx + 1] == pytest.approx(np.mean(values))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(odd, min_size=1, max_size=3, unique=True), st.sampled_from([1, 2, 4]),
    st.sampled_from(["full", "split"]), st.integers(2, 6),
)  # fmt: skip
def test_any_set_of_odd_kernels_merges_exactly(
    kernels: list[int], sets: int, form: str, side: int
) -> None:
    block = randomise(RepMLPBlock(8, side, side, sets=sets, kernels=kernels)).eval()
    injected, proof = inject_block(block, form)
    assert proof.error < 1e-12
    assert proof.stored_error < 1e-5
    assert injected.form == form
    assert not any("repconv" in name for name, _module in injected.named_modules())
    x = torch.randn(2, 8, side, 2 * side)
    with torch.no_grad():
        torch.testing.assert_close(injected(x), block(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["full", "split"])
def test_a_whole_network_keeps_its_function_and_the_original_its_weights(form: str) -> None:
    model = tiny_segmenter()
    before = copy.deepcopy(model.state_dict())
    result = inject_locality(model, form)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()
    assert [p.block for p in result.proofs] == [n for n, _b in model.backbone.repmlp_blocks()]
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        want, got = model.double()(x.double()), result.model.double()(x.double())
    assert float((got - want).abs().max() / want.abs().max()) < 1e-6


def test_forms_can_be_chosen_block_by_block() -> None:
    model = tiny_segmenter()
    result = inject_locality(model, {"stages.0.0.repmlp_block": "split"})
    assert [p.form for p in result.proofs] == ["split", "full", "full", "full"]
    with pytest.raises(ModelError, match=r"stages\.9"):
        inject_locality(model, {"stages.9.0.repmlp_block": "split"})
    with pytest.raises(ModelError, match="sideways"):
        inject_locality(model, "sideways")


def test_a_block_that_cannot_be_merged_stops_everything_and_is_named() -> None:
    model = tiny_segmenter()
    block = dict(model.backbone.repmlp_blocks())["stages.1.0.repmlp_block"]
    with torch.no_grad():
        block.fc3.weight[0, 0] = float("nan")
    with pytest.raises(InjectionError, match=r"stages\.1\.0\.repmlp_block"):
        inject_locality(model)


def test_a_block_cannot_be_injected_twice() -> None:
    once = inject_locality(tiny_segmenter()).model
    with pytest.raises(ModelError, match="deploy form already"):
        inject_locality(once)


def test_contrast_is_large_where_the_window_is() -> None:
    matrix = torch.full((1, 16, 16), 0.01, dtype=torch.float64)
    matrix += convolution_matrix(torch.full((1, 3, 3), 1.0, dtype=torch.float64), 4, 4)
    assert window_contrast(matrix, 3, 4, 4) == pytest.approx(101.0)
    assert window_contrast(matrix, 7, 4, 4) == 0.0  # nothing lies outside
