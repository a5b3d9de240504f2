"""``scripts/run_video.py`` as a process of its own, with the tests' engine in place of a real one.

FAKE_ENGINE_DELAY: seconds a run takes; FAKE_ENGINE_FAIL_AT: the run that fails. Everything else is
the command as it is.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pipeline.engines import opening
from tests.pipeline.video.clips import HEIGHT, WIDTH
from tests.pipeline.video.fakes import ColourEngine


def open_fake(_path: Path, **_options: int) -> ColourEngine:
    return ColourEngine(
        HEIGHT, WIDTH, delay=float(os.environ.get("FAKE_ENGINE_DELAY", "0")),
        fail_at=int(os.environ.get("FAKE_ENGINE_FAIL_AT", "-1")),
    )  # fmt: skip


setattr(opening, "open_engine", open_fake)  # noqa: B010  # mypy forbids to assign a function
setattr(opening, "find_engine", lambda _folder: Path("engines/fake.xml"))  # noqa: B010  # as above
command = Path(__file__).resolve().parents[3] / "scripts" / "run_video.py"
runpy.run_path(str(command), run_name="__main__")
