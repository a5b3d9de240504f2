"""Fixtures of the video tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.pipeline.video.fakes import wait_until


@pytest.fixture
def no_thread_outlives_its_test() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    ours = ("read ", "feed ", "outlet ", "submit", "collect")
    assert wait_until(
        lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith(ours)],
        3.0,
    ), f"left over: {set(threading.enumerate()) - before}"
