"""Every kernel test runs over the reference and every instruction set this machine has."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.kernels import dispatch
from pipeline.kernels.build import BuildError
from pipeline.kernels.native import MODES

# A mode of another architecture is not compiled at all; one of a newer CPU is skipped by name.
FOREIGN = {"aarch64": ("avx2", "avx512"), "x86_64": ("neon",)}.get(platform.machine(), ())


@pytest.fixture(
    scope="module", params=[m for m in (dispatch.REFERENCE, *MODES) if m not in FOREIGN]
)
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """The mode in force while the test runs."""
    wanted: str = request.param
    if wanted != dispatch.REFERENCE:
        try:
            modes = dispatch.available()
        except BuildError as error:
            pytest.skip(str(error))
        if wanted not in modes:
            pytest.skip(f"{wanted} does not run on this CPU")
    with dispatch.forced(wanted):
        yield wanted


class Guarded:
    """An output array amid bytes that must stay as they are, at any alignment."""

    def __init__(self, shape: tuple[int, ...], offset: int = 0) -> None:
        size = int(np.prod(shape))
        self._room = np.full(size + offset + 128, 0xA5, np.uint8)
        self._start = 64 + offset
        self._end = self._start + size
        self.array = self._room[self._start : self._end].reshape(shape)

    def check(self) -> None:
        assert (self._room[: self._start] == 0xA5).all()
        assert (self._room[self._end :] == 0xA5).all()


@pytest.fixture(scope="session")
def guarded() -> type[Guarded]:
    return Guarded
