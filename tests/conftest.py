"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says how busy the machine is: no test may fail for that.
settings.register_profile("repmlp-edge", deadline=None)
settings.load_profile("repmlp-edge")
