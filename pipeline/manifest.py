"""What an artifact says of itself: read, checked and written by hand.

The video runner opens an engine through its manifest, so this is on its way from command to first
frame. A model of pydantic would take longer to import than everything else here together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from pipeline.errors import ArtifactError

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: in the graph.
        dtype: NumPy's name of it.
        shape: fixed.
        layout: a letter for each axis: ``NHWC``, ``NCHW``, ``NHW``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str

    @classmethod
    def from_json(cls, value: object) -> TensorSpec:
        """Read what ``as_json`` gave. Raises ``ArtifactError`` naming the field at fault."""
        given = _closed(value, cls)
        shape = given["shape"]
        if not isinstance(shape, list | tuple) or not all(type(size) is int for size in shape):
            raise ArtifactError("shape: not a list of whole numbers")
        texts = {key: _text(given[key], key) for key in ("name", "dtype", "layout")}
        return cls(shape=tuple(shape), **texts)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name, "dtype": self.dtype, "shape": list(self.shape),
            "layout": self.layout,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact is.

    Attributes:
        kind: ``checkpoint``, or what a stage ``produces``: ``injection-plan``,
            ``deploy-checkpoint``, ``onnx``, ``qdq-onnx``, ``engine``, ``comparison``, ``tuning``.
        main: name of the file the artifact is about.
        files: SHA-256 of every file, by name relative to the manifest's folder.
        key: the cache key it was built under, see ``stage``.
        inputs: what it takes, where it is a network.
        outputs: what it gives.
        facts: what the stage measured or decided: checks, versions, precision. Plain JSON.
        provenance: for every stage it came through, that stage's own facts. Plain JSON.
        version: of this layout.
    """

    kind: str
    main: str
    files: dict[str, str]
    key: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    version: int = MANIFEST_VERSION

    @property
    def patch(self) -> int | None:
        """Side of the network's patches in pixels of its input, where the facts say it."""
        side = self.facts.get("patch")
        return side if isinstance(side, int) and side > 0 else None

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read what ``to_json`` gave.

        Raises:
            ArtifactError: it is not JSON, or not such an object; one line naming the field.
        """
        try:
            value = json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise ArtifactError(f"the whole: not JSON: {error}") from error
        given = _closed(value, cls)
        version = given.get("version", MANIFEST_VERSION)
        if type(version) is not int:
            raise ArtifactError("version: not a whole number")
        files = _mapping(given["files"], "files")
        return cls(
            kind=_text(given["kind"], "kind"), main=_text(given["main"], "main"),
            files={name: _text(digest, f"files.{name}") for name, digest in files.items()},
            key=_text(given["key"], "key"), inputs=_tensors(given, "inputs"),
            outputs=_tensors(given, "outputs"), facts=_mapping(given.get("facts", {}), "facts"),
            provenance=_mapping(given.get("provenance", {}), "provenance"), version=version,
        )  # fmt: skip

    def to_json(self) -> bytes:
        """As it lies on disk. What is not a number is written as null: JSON has no NaN.

        Raises:
            TypeError: facts that are not plain JSON.
        """
        value = {
            "version": self.version, "kind": self.kind, "main": self.main, "files": self.files,
            "key": self.key, "inputs": [tensor.as_json() for tensor in self.inputs],
            "outputs": [tensor.as_json() for tensor in self.outputs], "facts": self.facts,
            "provenance": self.provenance,
        }  # fmt: skip
        return json.dumps(plain_json(value), indent=1, allow_nan=False).encode()


def _closed(value: object, kind: type[Manifest | TensorSpec]) -> dict[str, Any]:
    """An object with all fields that ``kind`` needs and none that it does not know."""
    if not isinstance(value, dict):
        raise ArtifactError("the whole: not an object")
    known = [each.name for each in fields(kind)]
    needed = ("kind", "main", "files", "key") if kind is Manifest else known
    missing = [name for name in needed if name not in value]
    if missing:
        raise ArtifactError(f"{missing[0]}: missing")
    unknown = [name for name in value if name not in known]
    if unknown:
        raise ArtifactError(f"{unknown[0]}: not known")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ArtifactError(f"{name}: not text")
    return value


def _mapping(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"{name}: not an object")
    return value


def _tensors(given: Mapping[str, Any], name: str) -> tuple[TensorSpec, ...]:
    listed = given.get(name, [])
    if not isinstance(listed, list):
        raise ArtifactError(f"{name}: not a list")
    found = []
    for number, each in enumerate(listed):
        try:
            found.append(TensorSpec.from_json(each))
        except ArtifactError as error:
            raise ArtifactError(f"{name}.{number}: {error}") from error
    return tuple(found)


def plain_json(value: Any) -> Any:
    """Mappings and sequences as JSON has them; numbers that are none as ``None``."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
