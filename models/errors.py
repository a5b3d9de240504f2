"""Errors of the models: typed, so that the command line can tell them from a bug."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be built, fed, loaded or injected as asked. The message is one line."""


class InputShapeError(ModelError):
    """An input is not a whole number of patches. The message names the nearest sizes that fit."""


class UnsafeCheckpointError(ModelError):
    """A checkpoint file is not plain tensors: it holds code, or objects we refuse to unpickle."""


class InjectionError(ModelError):
    """Locality injection of a block is not the function it replaces. Names the block."""
