"""What holds for every test."""

from __future__ import annotations

import signal
import sys

import pytest
from hypothesis import settings

from pipeline import console

# How long an example takes says how busy the machine is: no test may fail for that.
settings.register_profile("repmlp-edge", deadline=None)
settings.load_profile("repmlp-edge")


# A suite in the background (nohup, &) would hand ignored signals down to the commands it tests.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


@pytest.fixture(autouse=True)
def _commands_end_themselves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that one test has left behind must not have the next one's command end pytest."""
    monkeypatch.setattr(console, "end_process", sys.exit)
