"""The store: artifacts by cache key, each in a folder of its own that appears whole or not at all.

    STORE/export-3f9a…/model.onnx, artifact.json
    STORE/.build-XXXX/            a build under way; left behind only by a killed process

A build happens in a temporary folder that is renamed when complete, and holds a lock on it: what
nobody holds after a day was left by a killed one, and is swept away. What does not verify is
removed and built again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.artifact import Artifact, Manifest, open_artifact, write_whole
from pipeline.errors import ArtifactError

MANIFEST_NAME = "artifact.json"
_STALE_SECONDS = 24 * 3600


class Store:
    """A folder of artifacts. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stage: str, key: str) -> Path:
        """Where the artifact of that stage and key lies or would lie."""
        return self.root / f"{stage}-{key[:20]}"

    def find(self, stage: str, key: str) -> Artifact | None:
        """The verified artifact of that key, or ``None``. Removes one that does not verify."""
        folder = self.folder(stage, key)
        if not folder.is_dir():
            return None
        try:
            artifact = open_artifact(folder / MANIFEST_NAME)
            if artifact.manifest.key != key:
                raise ArtifactError(f"'{folder}' was built under another key")
        except ArtifactError:
            return self._replaced_meanwhile(folder, key)
        return artifact

    def _replaced_meanwhile(self, folder: Path, key: str) -> Artifact | None:
        """Take away what did not verify; unless another process has put a whole one there since."""
        aside = Path(tempfile.mkdtemp(prefix=".build-", dir=self.root))
        try:
            folder.rename(aside / "found")
            if open_artifact(aside / "found" / MANIFEST_NAME).manifest.key == key:
                (aside / "found").rename(folder)
                return open_artifact(folder / MANIFEST_NAME)
        except (ArtifactError, OSError):
            pass  # it was bad, or is gone, or is there anew
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return None

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A temporary folder to build in; removed unless ``publish`` took it."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        folder = Path(tempfile.mkdtemp(prefix=".build-", dir=self.root))
        handle = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks: then nothing there is swept
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    def publish(self, folder: Path, stage: str, manifest: Manifest) -> Artifact:
        """Make a built folder the artifact of its manifest's key. The first of two equals wins."""
        write_whole(folder / MANIFEST_NAME, manifest.to_json())
        for path in folder.iterdir():
            _sync(path)
        _sync(folder)
        target = self.folder(stage, manifest.key)
        try:
            folder.rename(target)
        except OSError:
            existing = self.find(stage, manifest.key)
            if existing is None:
                raise
            return existing
        _sync(self.root)
        return Artifact(manifest, target / MANIFEST_NAME)

    def _sweep(self) -> None:
        now = time.time()  # compared with file times, which are wall-clock times
        for path in self.root.glob(".build-*"):
            # Gone: another process swept it. Locked: a build of more than a day is still at it.
            with suppress(OSError):
                if now - path.stat().st_mtime > _STALE_SECONDS:
                    _remove_unheld(path)


def _remove_unheld(folder: Path) -> None:
    """Remove a folder that no build holds. Raises ``OSError`` where one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
