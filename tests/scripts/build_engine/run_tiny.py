"""The command with the tiny preset; what it asks of the network is written to ``$CALLS``."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from models.segmenter import PRESETS
from tests.models.helpers import TINY


def note_calls(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: sees what any code of this process, or of one forked from it, asks for."""
    if event in ("socket.getaddrinfo", "socket.connect", "socket.sendto"):
        with Path(os.environ["CALLS"]).open("a", encoding="utf-8") as calls:
            calls.write(f"{event} {arguments}\n")


sys.addaudithook(note_calls)
PRESETS["tiny"] = TINY
sys.argv[0] = "scripts/build_engine.py"
runpy.run_path(sys.argv[0], run_name="__main__")
