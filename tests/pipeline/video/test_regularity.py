"""The steady clock: what is missing from it, and when it says nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.readers.regularity import HOLE, Regularity


@given(
    rate=st.sampled_from([10.0, 24000 / 1001, 25.0, 30.0]),
    lost=st.sets(st.integers(1, 118), max_size=40),
    hole=st.integers(1, 60),
)
def test_every_lost_frame_of_a_steady_clock_is_expected(
    rate: float, lost: set[int], hole: int
) -> None:
    kept = [i for i in range(120) if i not in lost and not 40 <= i < 40 + hole]
    clock = Regularity(rate)
    for i in kept:
        clock.see(round(i / rate, 3))  # Matroska's milliseconds
    steps = np.diff(kept)
    if (steps == 1).mean() >= 0.9:
        assert clock.expected() == kept[-1] - kept[0] + 1
    else:
        assert clock.expected() is None
    assert clock.longest == steps.max() - 1
    assert (clock.longest >= HOLE) == (steps.max() > HOLE)


def test_a_variable_clock_and_an_unstated_rate_say_nothing() -> None:
    clock = Regularity(25.0)
    for time in np.cumsum(np.random.default_rng(0).uniform(0.02, 0.3, 200)):
        clock.see(float(time))
    assert clock.expected() is None
    silent = Regularity(None)
    silent.see(0.0)
    silent.see(9.0)
    assert silent.expected() is None
