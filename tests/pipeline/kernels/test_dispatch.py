from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.kernels import cut_tiles, dispatch
from pipeline.kernels.build import BuildError

CALL = """
import numpy as np
from pipeline.kernels import Colours, dispatch, overlay
for _ in range(3):
    overlay(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), Colours([[1, 2, 3]]))
print(dispatch.active().mode)
"""


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, for the choice is made once per process. Every warning is shown."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPMLP_EDGE_KERNEL")}
    return subprocess.run(
        [sys.executable, "-W", "always", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def modes() -> tuple[str, ...]:
    try:
        return dispatch.available()
    except BuildError:
        return (dispatch.REFERENCE,)


@pytest.mark.parametrize("mode", modes())
def test_a_mode_that_runs_here_can_be_forced(mode: str) -> None:
    done = python("-m", "pipeline.kernels", REPMLP_EDGE_KERNELS=mode)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["mode", mode]
    assert done.stderr == ""


def test_the_widest_is_the_default() -> None:
    done = python("-c", CALL)
    assert (done.stdout.strip(), done.stderr) == (modes()[-1], "")


def test_an_unknown_mode_is_an_error() -> None:
    done = python("-m", "pipeline.kernels", REPMLP_EDGE_KERNELS="sse9")
    assert done.returncode == 2
    assert done.stderr == (
        "error: REPMLP_EDGE_KERNELS=sse9 is no mode; "
        "choose one of reference, scalar, avx2, avx512, neon\n"
    )


def test_a_mode_of_another_cpu_is_an_error() -> None:
    if len(modes()) == 1:
        pytest.skip("needs a C compiler")
    foreign = next(mode for mode in ("neon", "avx2") if mode not in modes())
    done = python("-m", "pipeline.kernels", REPMLP_EDGE_KERNELS=foreign)
    assert done.returncode == 2
    assert f"REPMLP_EDGE_KERNELS={foreign} does not run on this CPU, which runs" in done.stderr


def test_without_a_compiler_numpy_serves_with_one_warning() -> None:
    done = python("-c", CALL, CC="no-such-compiler")
    assert done.returncode == 0
    assert done.stdout.strip() == "reference"
    assert done.stderr.count("Warning") == 1
    assert "no C compiler: 'no-such-compiler' is not installed" in done.stderr


def test_a_compiler_that_fails_is_named_in_the_warning() -> None:
    done = python("-c", CALL, CC="false")
    assert done.stdout.strip() == "reference"
    assert done.stderr.count("Warning") == 1
    assert "the C compiler 'false' failed" in done.stderr


def test_asking_for_the_reference_is_silent() -> None:
    done = python("-c", CALL, CC="no-such-compiler", REPMLP_EDGE_KERNELS="reference")
    assert (done.stdout.strip(), done.stderr) == ("reference", "")


def test_a_forced_mode_without_a_compiler_is_an_error() -> None:
    done = python("-m", "pipeline.kernels", CC="no-such-compiler", REPMLP_EDGE_KERNELS="scalar")
    assert done.returncode == 2
    assert "REPMLP_EDGE_KERNELS=scalar cannot be had: no C compiler" in done.stderr


def test_a_cache_that_cannot_be_used_costs_a_warning_only(tmp_path: Path) -> None:
    if len(modes()) == 1:
        pytest.skip("needs a C compiler")
    (tmp_path / "file").write_text("")
    done = python(
        "-c", CALL, REPMLP_EDGE_CACHE=str(tmp_path / "file"), TMPDIR=str(tmp_path), CC="cc -O0"
    )
    assert done.stdout.strip() == modes()[-1]
    assert done.stderr.count("Warning") == 1
    assert "compiling the kernels for this process alone" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("threads", ["0", "65", "-1", "two", "1.5", "9" * 5000])
def test_a_number_of_threads_that_is_none(threads: str) -> None:
    done = python("-m", "pipeline.kernels", REPMLP_EDGE_KERNEL_THREADS=threads)
    assert done.returncode == 2
    assert f"REPMLP_EDGE_KERNEL_THREADS={threads} is not a number within 1 .. 64" in done.stderr


def test_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.THREADS_VARIABLE, "7")
    assert dispatch.thread_count(None) == 7
    assert dispatch.thread_count(3) == 3
    monkeypatch.delenv(dispatch.THREADS_VARIABLE)
    assert 1 <= dispatch.thread_count(None) <= dispatch.DEFAULT_THREADS
    for wrong in (0, -1, 65):
        with pytest.raises(ValueError, match="threads"):
            dispatch.thread_count(wrong)


def test_forcing_ends_with_its_block() -> None:
    before = dispatch.active().mode
    with dispatch.forced(dispatch.REFERENCE):
        assert dispatch.active().mode == dispatch.REFERENCE
    assert dispatch.active().mode == before
    with pytest.raises(UsageError, match="no mode"), dispatch.forced("fastest"):
        pass
    assert dispatch.active().mode == before


def test_the_gil_is_released() -> None:
    """While one thread cuts tiles for long, this one goes on running Python."""
    if len(modes()) == 1:
        pytest.skip("NumPy's own loops decide")
    frame = np.zeros((2000, 2000, 3), np.uint8)
    out = np.empty((40, 1500, 1500, 3), np.uint8)
    origins = np.full((40, 2), 1 << 20, np.int32)  # all reflected, pixel by pixel
    worker = threading.Thread(target=cut_tiles, args=(frame, origins, out), kwargs={"threads": 1})
    worker.start()
    steps = 0
    while worker.is_alive():
        steps += 1
    assert steps > 10_000  # holding the GIL the kernel would let none pass


def test_a_system_that_does_not_tell_which_cpus_are_ours_has_threads_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv(dispatch.THREADS_VARIABLE, raising=False)
    dispatch._default_threads.cache_clear()
    try:
        assert dispatch.thread_count(None) == 3
    finally:
        dispatch._default_threads.cache_clear()
