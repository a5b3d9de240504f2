"""Stages: artifact in, artifact out, cached under a key that names everything that matters.

    key = SHA-256 of canonical JSON of
          {stage, version, config, hashes of the inputs, versions of the tools, device}

The base class computes the key, looks in the store, builds in a temporary folder, hashes what was
written and publishes it. A stage writes one method, ``build``, and raises ``CheckFailedError``
there when its output is not what its input says it must be.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict

from pipeline.artifact import Artifact, Manifest, TensorSpec, hash_of, sha256_of
from pipeline.errors import ArtifactError
from pipeline.store import Store

PICTURES = ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
"""Distributions of which one decodes and resizes frames: tools of a stage that looks at any."""


class StageConfig(BaseModel):
    """Base of every stage's configuration: frozen, closed, plain JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Product:
    """What a stage's ``build`` made: file names relative to its folder, and what it knows of them.

    Attributes:
        main: the file the artifact is about; ``others`` go with it.
        facts: plain JSON for the manifest: checks, choices, measurements.
    """

    main: str
    others: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageEvent:
    """A stage began (``seconds`` is ``None``), ended, or was found in the store."""

    stage: str
    cached: bool = False
    seconds: float | None = None


Notify: TypeAlias = Callable[[StageEvent], None]


class Stage(ABC):
    """One step of the pipeline.

    Class attributes:
        name: of the stage, part of the key and of the folder.
        version: raised whenever the same config would give another output.
        produces: kind of the artifact it makes.
        tools: distributions whose versions are part of the key.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    produces: ClassVar[str]
    tools: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: StageConfig, store: Store, notify: Notify | None = None) -> None:
        self.config = config
        self.store = store
        self._notify = notify or (lambda event: None)

    @abstractmethod
    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """Make the files in ``folder`` and say what they are. Raises ``CheckFailedError``."""

    def parameters(self) -> dict[str, Any]:
        """What was asked for, in key and facts: the config. Plain JSON."""
        return self.config.model_dump(mode="json")

    def distributions(self) -> tuple[str, ...]:
        """Those whose versions are part of the key."""
        return self.tools

    def device(self) -> dict[str, Any]:
        """What of this machine the output depends on. Plain JSON; empty for most stages."""
        return {}

    def key(self, inputs: Sequence[Artifact]) -> str:
        """See the module docstring."""
        return hash_of(
            {
                "stage": self.name,
                "version": self.version,
                "config": self.parameters(),
                "inputs": [a.manifest.files for a in inputs],
                "tools": tool_versions(self.distributions()),
                "device": self.device(),
            }
        )

    def _check_unchanged(self, artifact: Artifact) -> None:
        """What was read must be what the key says: a file may be replaced between the two."""
        try:
            artifact.verify()
        except ArtifactError as error:
            raise ArtifactError(
                f"an input changed while stage {self.name} read it: {error}", hint="run it again"
            ) from error

    def run(self, *inputs: Artifact) -> Artifact:
        """The artifact of these inputs: from the store if it is there and whole, else built."""
        start = time.perf_counter()
        key = self.key(inputs)
        found = self.store.find(self.name, key)
        if found is not None:
            self._notify(StageEvent(self.name, True, time.perf_counter() - start))
            return found
        self._notify(StageEvent(self.name))
        with self.store.building() as folder:
            product = self.build(inputs, folder)
            for artifact in inputs:
                self._check_unchanged(artifact)
            names = (product.main, *product.others)
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise ArtifactError(f"stage {self.name} did not write '{missing[0]}'")
            facts = {
                "stage": self.name, "version": self.version,
                "tools": tool_versions(self.distributions()),
                "config": self.parameters(), **product.facts,
            }  # fmt: skip
            provenance: dict[str, Any] = {}
            for artifact in inputs:
                provenance |= artifact.manifest.provenance
            provenance[self.name] = facts
            manifest = Manifest(
                kind=self.produces, main=product.main, key=key,
                files={name: sha256_of(folder / name) for name in names},
                inputs=product.inputs, outputs=product.outputs, facts=facts, provenance=provenance,
            )  # fmt: skip
            artifact = self.store.publish(folder, self.name, manifest)
        self._notify(StageEvent(self.name, False, time.perf_counter() - start))
        return artifact


def tool_versions(names: Sequence[str]) -> dict[str, str | None]:
    """Installed version of each distribution, ``None`` where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
