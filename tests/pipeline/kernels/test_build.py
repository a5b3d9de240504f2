from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import private
from pipeline.kernels import build as build_module
from pipeline.kernels.build import (
    BuildError,
    UnsafeCacheError,
    build,
    cache_folder,
    compiler,
)
from pipeline.private import CACHE_VARIABLE

pytestmark = pytest.mark.skipif(
    shutil.which(build_module.compiler()[0]) is None, reason="needs a C compiler"
)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of one function, quick to compile."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "one.c").write_text("int one(void) { return 1; }\n")
    monkeypatch.setattr(build_module, "SOURCES", folder)
    # The default visibility is hidden, which would hide this one too.
    monkeypatch.setattr(build_module, "FLAGS", ("-shared", "-fPIC"))
    return folder


def test_it_compiles_once_and_only_for_its_owner(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "kernels"
    library = build(folder)
    assert ctypes.CDLL(str(library)).one() == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(library.stat().st_mode) == 0o700
    written = library.stat().st_mtime_ns
    assert build(folder) == library
    assert library.stat().st_mtime_ns == written
    assert list(folder.iterdir()) == [library]


def test_its_name_follows_what_decides_its_content(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kernels"
    names = {build(folder).name}
    (sources / "one.c").write_text("int one(void) { return 2; }\n")
    names.add(build(folder).name)
    (sources / "unused.h").write_text("/* a header is a source */\n")
    names.add(build(folder).name)
    monkeypatch.setattr(build_module, "FLAGS", ("-shared", "-fPIC", "-O1"))
    names.add(build(folder).name)
    monkeypatch.setenv("CC", f"{build_module.compiler()[0]} -DOTHER")
    names.add(build(folder).name)
    assert len(names) == 5


def test_a_library_others_can_write_is_made_again(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    library = build(folder)
    library.write_bytes(b"not what was compiled")
    library.chmod(0o722)
    assert ctypes.CDLL(str(build(folder))).one() == 1
    library.unlink()
    library.symlink_to(sources / "one.c")
    assert ctypes.CDLL(str(build(folder))).one() == 1
    assert not library.is_symlink()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_others_can_write_is_refused(sources: Path, tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UnsafeCacheError, match="other users"):
        build(folder)
    assert not list(folder.iterdir())


def test_a_folder_within_reach_of_all_is_refused(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UnsafeCacheError, match="a folder above"):
        build(tmp_path / "open" / "kernels")
    (tmp_path / "open").chmod(0o1777)  # sticky, as /tmp is: others cannot rename what is ours
    build(tmp_path / "open" / "kernels")


def test_what_is_no_folder_is_refused(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsafeCacheError, match="cannot use"):
        build(tmp_path / "file")
    with pytest.raises(UnsafeCacheError, match="cannot use"):
        build(tmp_path / "file" / "kernels")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeCacheError, match="not a folder of this user"):
        build(tmp_path / "link")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_refused(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(UnsafeCacheError, match="not a folder of this user"):
        build(folder)


def test_a_failed_compilation_leaves_nothing(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    (sources / "one.c").write_text("int one(void) { return nothing; }\n")
    with pytest.raises(BuildError, match=r"failed: .*error: .*nothing"):
        build(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", ["/nowhere/cc", "no-such-compiler -O2"])
def test_no_compiler(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CC", command)
    with pytest.raises(BuildError, match=r"no C compiler: .* is not installed"):
        build(tmp_path / "kernels")


def test_processes_that_start_together_end_with_one_library(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    program = (
        "import sys, ctypes, pathlib; from pipeline.kernels import build as b;"
        "b.SOURCES = pathlib.Path(sys.argv[1]); b.FLAGS = ('-shared', '-fPIC');"
        "print(ctypes.CDLL(str(b.build(pathlib.Path(sys.argv[2])))).one())"
    )
    command = [sys.executable, "-c", program, str(sources), str(folder)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["1"] * 4
    assert len(list(folder.iterdir())) == 1


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here" / "kernels"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "repmlp-edge" / "kernels"


def test_a_variable_that_means_nothing_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, "~nosuchuser/x")
    assert cache_folder() == tmp_path / "~nosuchuser" / "x" / "kernels"

    def homeless(_name: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setattr(private, "user_cache_path", homeless)
    with pytest.raises(UnsafeCacheError, match="no home folder"):
        cache_folder()
    monkeypatch.setenv("CC", '"gcc')
    with pytest.raises(BuildError, match="no command: No closing quotation"):
        compiler()
