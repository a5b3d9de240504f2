"""A short run of what ``sanitize.sh`` does at length."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.kernels.build import SOURCES, compiler

HERE = Path(__file__).parent
FLAGS = ["-std=c11", "-O1", "-g", "-pthread", "-ffp-contract=off", "-DEDGE_SMALL_IS_LARGE"]


def compiled(folder: Path, *sanitizers: str) -> Path:
    if shutil.which(compiler()[0]) is None:
        pytest.skip("needs a C compiler")
    program = folder / "fuzz"
    sources = [*sorted(map(str, SOURCES.glob("*.c"))), str(HERE / "fuzz.c")]
    command = [*compiler(), *FLAGS, *sanitizers, f"-I{SOURCES}", "-o", str(program)]
    probe = subprocess.run(
        [*compiler(), *sanitizers, "-x", "c", "-o", str(program), "-"],
        input="int main(void) { return 0; }",
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"this compiler has no {' '.join(sanitizers)}")
    subprocess.run([*command, *sources, "-lm"], check=True, timeout=250)
    return program


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_random_calls_are_clean(tmp_path: Path, sanitizer: str) -> None:
    program = compiled(tmp_path, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    done = subprocess.run(
        [str(program), "12345", "40"], capture_output=True, text=True, timeout=250, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "checksum" in done.stdout
