"""What a comparison of an engine with its graph counts, and what it does not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.build_parser import build_parser
from pipeline.verify import AgreementMeter, batches, check_count, departing_hint, labels_of


def frames(count: int) -> list[np.ndarray]:
    return [np.full((1, 1, 3), k, np.uint8) for k in range(count)]


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 6))
def test_no_frame_is_in_two_stacks_nor_twice_in_one(count: int, size: int, limit: int) -> None:
    stacks = list(batches(frames(count), size, limit))
    assert 1 <= len(stacks) <= limit
    assert all(stack.shape == (size, 1, 1, 3) for stack in stacks)
    seen = [int(stack[k, 0, 0, 0]) for stack in stacks for k in range(size)]
    if count >= size:
        assert seen == list(range(min(count // size, limit) * size))
    else:  # nothing else would fill the engine's input
        assert seen == [*range(count), *[count - 1] * (size - count)]


def test_agreement_is_the_share_of_equal_labels() -> None:
    rng = np.random.default_rng(0)
    mine, reference = rng.normal(size=(2, 3, 5, 4, 6)).astype(np.float32)
    mine[1, 0, 0, 0] = np.nan  # names nothing
    meter = AgreementMeter()
    meter.add(mine, reference)
    same = mine.argmax(1) == reference.argmax(1)
    same[1, 0, 0] = False
    found = meter.result()
    assert found.labels == pytest.approx(same.mean())
    assert found.worst == pytest.approx(same.reshape(3, -1).mean(1).min())
    assert found.frames == 3
    assert labels_of(mine)[1, 0, 0] == 255
    with pytest.raises(ValueError, match="nothing was compared"):
        AgreementMeter().result()


def test_dear_networks_are_compared_on_fewer_frames() -> None:
    assert check_count(1, 8) == 8
    assert check_count(10**10, 8) == 4
    assert check_count(10**12, 8) == 1


@pytest.mark.parametrize(
    ("precision", "named"),
    [("int8", {"--frames", "--estimator", "--injection"}),
     ("int8+fp16", {"--frames", "--estimator", "--injection"}),
     ("fp16", {"--precision"}), ("fp32", set())],
)  # fmt: skip
def test_what_to_try_are_options_that_there_are(precision: str, named: set[str]) -> None:
    """And that mean something to that precision: an option of calibration is refused of others."""
    hint = departing_hint(precision)
    found = set(re.findall(r"--[a-z-]+", hint))
    assert found == named | {"--min-agreement"}
    assert found <= set(build_parser("")._option_string_actions)
    assert "departs from its graph" in hint
