"""Rounding whose errors cancel: against the definition, least squares one weight at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.rounding import DAMPING, output_error, round_compensated

Matrix = npt.NDArray[np.float64]


def by_least_squares(weights: Matrix, step: float, limit: int, moments: Matrix) -> list[float]:
    """One row, by the definition: what is not rounded yet is solved for anew each time."""
    count = len(weights)
    damped = moments + DAMPING * np.trace(moments) / count * np.eye(count)
    steps: list[float] = []
    for i in range(count):
        now = weights[i]
        if steps:
            done = weights[:i] - step * np.array(steps)
            now = now + np.linalg.solve(damped[i:, i:], damped[i:, :i] @ done)[0]
        steps.append(float(np.clip(np.rint(now / step), -limit, limit)))
    return steps


def round_nearest(weights: Matrix, scale: Matrix, limit: int) -> Matrix:
    return np.asarray(np.clip(np.rint(weights / scale), -limit, limit))


def moments_of(rng: np.random.Generator, sets: int, inputs: int) -> Matrix:
    """Of a smooth signal, as the rows of a map are."""
    rows = rng.normal(size=(sets, 4 * inputs, inputs)).cumsum(-1)
    return np.asarray(rows.swapaxes(1, 2) @ rows)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sets=st.integers(1, 3), inputs=st.integers(1, 90))
def test_it_is_least_squares_one_weight_at_a_time(seed: int, sets: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(sets, 2, inputs))
    scale = rng.uniform(0.05, 0.6, (1, 2, 1))
    moments = moments_of(rng, sets, inputs)
    steps = round_compensated(weights, scale, 7, moments)
    for s in range(sets):
        for row in range(2):
            wanted = by_least_squares(weights[s, row], float(scale[0, row, 0]), 7, moments[s])
            np.testing.assert_array_equal(steps[s, row], wanted)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 100))
def test_inputs_that_have_nothing_in_common_leave_the_nearest_step(seed: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(1, 3, inputs))
    scale = np.full((1, 3, 1), 0.1)
    apart = np.diag(rng.uniform(0.1, 3, inputs))[None]
    nearest = round_nearest(weights, scale, 127)
    np.testing.assert_array_equal(round_compensated(weights, scale, 127, apart), nearest)
    never = np.zeros_like(apart)
    np.testing.assert_array_equal(round_compensated(weights, scale, 127, never), nearest)


def test_weights_too_small_for_a_step_are_not_lost() -> None:
    weights = np.full((1, 1, 100), 0.03)
    scale = np.ones((1, 1, 1))
    alike = np.ones((1, 100, 100))
    assert not round_nearest(weights, scale, 127).any()
    steps = round_compensated(weights, scale, 127, alike)
    assert steps.sum() == 3
    assert set(steps.ravel()) == {0.0, 1.0}


def test_no_step_is_beyond_the_limit_and_what_is_cut_off_is_made_good() -> None:
    weights = np.array([[[1.0, 0.0, 0.0]]])
    steps = round_compensated(weights, np.full((1, 1, 1), 0.1), 6, np.ones((1, 3, 3)))
    np.testing.assert_array_equal(steps, [[[6, 2, 2]]])


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_smaller_on_smooth_inputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, 16, 64)) * 0.02
    weights[:, range(16), range(16)] = 1
    scale = np.full((1, 16, 1), 1 / 127)
    moments = moments_of(rng, 4, 64)
    unseen = moments_of(rng, 4, 64)
    nearest, steps = (
        round_nearest(weights, scale, 127), round_compensated(weights, scale, 127, moments)
    )  # fmt: skip
    assert output_error(weights, steps * scale, unseen) < 0.5 * output_error(
        weights, nearest * scale, unseen
    )


def test_the_error_is_that_of_the_outputs() -> None:
    rng = np.random.default_rng(0)
    weights, rounded = rng.normal(size=(2, 3, 5, 7))
    rows = rng.normal(size=(3, 50, 7))
    outputs, ours = (np.einsum("soi,sni->sno", each, rows) for each in (weights, rounded))
    wanted = np.linalg.norm(ours - outputs) / np.linalg.norm(outputs)
    moments = rows.swapaxes(1, 2) @ rows
    assert output_error(weights, rounded, moments) == pytest.approx(wanted, rel=1e-12)
    assert output_error(weights, rounded, np.zeros_like(moments)) == 0
