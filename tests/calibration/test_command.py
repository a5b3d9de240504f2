"""The data commands where nobody reads what they print, and a name that FFmpeg reads otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibration.command import parse_shape, run
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


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Puts back what a command in this process does to SIGTERM and SIGHUP."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_cut_the_clearing_up_short(second: signal.Signals) -> None:
    cleared = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(second)
            cleared.append("all")

    assert run(work) == 130
    assert cleared == ["all"]


@pytest.mark.parametrize("text", ["512x1024", "512X1024"])
def test_a_size_is_height_by_width(text: str) -> None:
    assert parse_shape(text) == (512, 1024)


@pytest.mark.parametrize("text", ["0x0", "64x0", "64", "1x2x3", "-1x64", "100000x64"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not HxW"):
        parse_shape(text)
