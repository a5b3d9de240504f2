"""Which TensorRT is installed. The only place that imports ``tensorrt`` and ``tensorrt_rtx``, and
only when asked to."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pipeline.engines.trt_preflight import NAMES, Flavour
from pipeline.errors import EngineError, MissingDependencyError

MODULES: Mapping[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_AGAIN = "on Jetson install JetPack's package 'tensorrt'; elsewhere reinstall the wheel"


def import_flavour(flavour: Flavour, *, why: str) -> Any:
    """The module of that flavour.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it is, but its libraries do not load, or most of it is gone.
    """
    module = MODULES[flavour]
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module:
            raise EngineError(f"{NAMES[flavour]} does not load: {error}") from error
        raise MissingDependencyError(flavour, flavour, why=why) from error
    except (ImportError, OSError) as error:
        # libnvinfer or a library under it is missing.
        raise EngineError(
            f"{NAMES[flavour]} is installed but its libraries do not load: {error}",
            hint=_AGAIN,
        ) from error
    if not hasattr(found, "__version__"):
        # A folder that a removed wheel left behind is a module without anything in it.
        raise EngineError(
            f"{NAMES[flavour]} is only half installed: its module '{module}' is empty", hint=_AGAIN
        )
    return found


def installed_flavours() -> list[Flavour]:
    """Those whose module is there, TensorRT first. Does not load them."""
    from importlib.util import find_spec

    return [flavour for flavour, module in MODULES.items() if find_spec(module) is not None]


def installed_title(flavour: Flavour) -> str:
    """``TensorRT 10.3.0`` of one that is installed; that it does not load where that is so."""
    try:
        return f"{NAMES[flavour]} {import_flavour(flavour, why='naming it').__version__}"
    except (EngineError, MissingDependencyError):
        return f"{NAMES[flavour]}, which does not load"
