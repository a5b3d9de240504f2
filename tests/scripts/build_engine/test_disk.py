"""Output folders that refuse files and disks that fill up: exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest

from pipeline.artifact import open_artifact
from tests.helpers import full_disk
from tests.scripts.build_engine.command import NAME, Made, Run, left_in


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_another_owner_exits_2(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir(mode=0o500)
    code, _out, err = run(output)
    assert code == 2
    assert "--output" in err


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_an_output_that_refuses_files_exits_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("pipeline.publish.tempfile.TemporaryFile", refuse)
    code, _out, err = run(tmp_path / "out")
    assert code == 2
    assert f"folder '{tmp_path / 'out'}' cannot be written to: {os.strerror(reason)}" in err


def test_a_full_disk_exits_2_and_a_rerun_recovers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at once, or after a while: at the first fsync, or at a later one."""
    real, left = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            full_disk()
        real(handle)

    output = tmp_path / "out"
    for room in (0, 5):
        left = room
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            code, out, err = run(output, "--json", precision="fp32")
        assert (code, out) == (2, ""), err
        assert f"no room in '{output}': No space left on device" in err
        assert "Traceback" not in err
        assert left_in(output) == set()
    assert run(output, precision="fp32")[0] == 0
    assert "tiny-fp32-64x128.xml.json" in left_in(output)


def test_openvinos_own_writer_without_room_exits_2(made: Made, run: Run) -> None:
    """The system's limit on file sizes stands for a full disk that even C++ code must notice."""
    output = made.output
    for folder in (output / ".store").glob("build-openvino-*"):
        shutil.rmtree(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code, _out, err = run(output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2, err
    assert "OpenVINO cannot write" in err
    assert "Traceback" not in err
    left_in(output)
    assert not list((output / ".store").glob(".build-*"))
    assert run(output)[0] == 0


def test_a_full_disk_while_publishing_leaves_nothing_half(
    made: Made, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = made.output
    manifest = output / f"{NAME}.xml.json"
    manifest.unlink()
    (output / f"{NAME}.bin").unlink()

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.publish.shutil.copyfileobj", full_disk)
        code, _out, err = run(output)
    assert code == 2
    assert "no room in" in err
    assert not manifest.exists()
    assert not [path for path in output.iterdir() if path.name.startswith(f".{NAME}")]
    assert run(output)[0] == 0
    assert open_artifact(manifest).path.name == f"{NAME}.xml"
