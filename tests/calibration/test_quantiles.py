"""Quantiles near the ends, against NumPy's own, to the bit."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.quantiles import quantiles

SHAPE = (2, 3, 160, 240)
AXES = [each for n in (1, 2, 3, 4) for each in combinations(range(4), n)]


def activations(kind: str, seed: int, shape: tuple[int, ...] = SHAPE) -> npt.NDArray[np.float32]:
    random = np.random.default_rng(seed)
    values = random.normal(size=shape).astype(np.float32)
    if kind == "relu":
        return np.maximum(values, 0)
    if kind == "sparse":
        return np.where(values > 3.5, values, np.float32(0))
    if kind == "steps":
        return (np.round(values * 4) / 4).astype(np.float32)
    if kind == "constant":
        return np.full_like(values, -2.5)
    if kind == "sorted":  # a strided sample of it is no random one
        return np.sort(values.ravel()).reshape(shape)
    if kind == "striped":  # its period is the sample's, which sees nothing of the peaks
        values.ravel()[1::8] += 100
    return values


KINDS = ("normal", "relu", "sparse", "steps", "constant", "sorted", "striped")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 99), axes=st.sampled_from([(0, 1, 2, 3), (0, 2, 3), (2, 3)]),
    tail=st.sampled_from([0.0, 1e-6, 1e-4, 3e-4, 0.01]), keepdims=st.booleans(),
)  # fmt: skip
def test_both_tails_are_numpys(
    kind: str, seed: int, axes: tuple[int, ...], tail: float, keepdims: bool
) -> None:
    values = activations(kind, seed, (2, 3, 160, 240))
    q = (tail, 1 - tail)
    want = np.quantile(values.astype(np.float64), q, axis=axes, keepdims=keepdims)
    got = quantiles(values, q, axes, keepdims)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("axes", [*AXES, None, -1, (-2, -1)])
@pytest.mark.parametrize("q", [0.25, (0.0001,), (0.5, 0.9999), ()])
def test_any_axes_and_any_quantile_have_numpys_shape(
    axes: int | tuple[int, ...] | None, q: float | tuple[float, ...]
) -> None:
    values = activations("normal", 0, (2, 3, 20, 30))
    for keepdims in (False, True):
        want = np.quantile(values.astype(np.float64), q, axis=axes, keepdims=keepdims)
        np.testing.assert_array_equal(quantiles(values, q, axes, keepdims), want)


@pytest.mark.parametrize("layout", ["strided", "transposed", "float64", "float16"])
def test_other_layouts_and_types_are_read_as_they_are(layout: str) -> None:
    values = activations("normal", 1)
    other = {
        "strided": values[:, :, ::2], "transposed": values.transpose(0, 3, 1, 2),
        "float64": values.astype(np.float64), "float16": values.astype(np.float16),
    }[layout]  # fmt: skip
    want = np.quantile(other.astype(np.float64), (1e-4, 1 - 1e-4), axis=(0, 2, 3))
    np.testing.assert_array_equal(quantiles(other, (1e-4, 1 - 1e-4), (0, 2, 3)), want)


def test_one_nan_is_the_answer_as_it_is_numpys() -> None:
    values = activations("normal", 2)
    values[0, 1, 5, 5] = np.nan
    got = quantiles(values, (1e-4, 1 - 1e-4), (0, 2, 3))
    np.testing.assert_array_equal(np.isnan(got), [[False, True, False]] * 2)
