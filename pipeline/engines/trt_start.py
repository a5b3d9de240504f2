"""TensorRT's first objects, whose refusal it hides: the reason is in its log alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from pipeline.engines.cuda_driver import GpuFacts, find_gpu
from pipeline.engines.trt_log import LogLine, first_error, shortage
from pipeline.engines.trt_logger import listening
from pipeline.engines.trt_preflight import NAMES, Flavour, check_driver, cuda_major
from pipeline.errors import EngineError

_HINT = (
    "nvidia-smi shows which CUDA the driver runs: install the wheel for its major version "
    "(tensorrt-cu12, tensorrt-cu13, tensorrt-rtx-cu13), or a newer driver"
)
# pybind11's words for a factory that gave nothing; any other TypeError is a bug of ours.
_NOTHING = "nullptr"


def create(factory: Callable[[], Any], lines: Callable[[], Iterable[LogLine]], title: str) -> Any:
    """What ``factory`` makes: a ``Builder`` or a ``Runtime``, the first calls that reach the GPU.

    Where TensorRT refuses, such as a driver too old for it, its bindings only say that there is
    no object: ``TypeError``, which would pass for a bug of ours.

    Args:
        factory: makes the object.
        lines: what TensorRT has logged, asked for after the refusal.
        title: which TensorRT, for the message.

    Raises:
        EngineError: it refused, with the reason that it logged.
    """
    try:
        made = factory()
    except TypeError as error:
        if _NOTHING not in str(error):
            raise
        refusal: TypeError | None = error
    else:
        if made is not None:
            return made
        refusal = None
    said = list(lines())
    if shortage(said) is not None:
        raise EngineError(
            f"out of GPU memory: {title} cannot start: {first_error(said)}",
            hint="close other programs on the GPU",
        ) from refusal
    raise EngineError(f"{title} cannot start: {first_error(said)}", hint=_HINT) from refusal


def gpu_to_build_on(trt: Any, flavour: Flavour) -> GpuFacts | None:
    """The GPU on which TensorRT builds, asked before the work; ``None`` for RTX, which needs none.

    TensorRT itself is asked whether it starts there, by making a builder and dropping it: JetPack
    does not say which CUDA its TensorRT is made for, so the driver's version tells nothing there.

    Args:
        trt: the module of that flavour.
        flavour: which TensorRT.

    Raises:
        EngineError: there is no GPU, or its driver is too old.
    """
    if flavour != "tensorrt":
        return None
    gpu = find_gpu()
    check_driver(flavour, trt.__version__, cuda_major(flavour), gpu)
    title = f"{NAMES[flavour]} {trt.__version__}"
    with closing(listening(trt)) as heard:
        create(lambda: trt.Builder(heard.logger), lambda: heard.lines, title)
    return gpu
