"""The data commands where nobody reads what they print, and a name that FFmpeg reads otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.streets import write_video

PROJECT = Path(__file__).parents[2]
COMMAND = '"$PYTHON" -m calibration.streets "$ROOT" --train 1 --val 1 --shape 64x96'


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (">/dev/full", 2, "error: stdout: No space left on device\n"),
        ("| true", 2, ""),
        (">&-", 0, ""),
        ("", 0, ""),
    ],
)
def test_stdout_may_be_full_or_closed(tmp_path: Path, end: str, code: int, told: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; (sleep 0.2; {COMMAND}) {end}"], cwd=PROJECT, text=True,
        env={**os.environ, "PYTHON": sys.executable, "ROOT": str(tmp_path / "made")},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr.endswith(f"2/2 frames\n{told}")
    assert (tmp_path / "made" / "streets.json").is_file()


def test_video_with_a_colon_in_its_name_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_video("10:00.mp4", frames=2, height=80, width=144)
    assert path == Path("10:00.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["10:00.mp4"]
