"""The NVIDIA driver, asked by ctypes before anything that would crash without it.

TensorRT's own calls end the process when there is no driver; ``libcuda`` is part of the driver and
its ``cuInit`` simply says so. Nothing here creates a context or allocates.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import EngineError

LIBRARY = "libcuda.so.1"
# CUdevice_attribute, cuda.h.
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16
_NAME_BYTES = 256


@dataclass(frozen=True)
class GpuFacts:
    """A GPU and its driver.

    Attributes:
        name: as the driver calls it.
        capability: compute capability, ``(8, 7)`` for Jetson Orin.
        memory: bytes in all.
        driver: the newest CUDA version the driver can run, ``(12, 6)``.
        multiprocessors: how many; 0 where nobody asked. They tell apart what the driver calls by
            one name: every module of the Jetson Orin family is ``Orin``.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    driver: tuple[int, int]
    multiprocessors: int = 0

    @property
    def sm(self) -> str:
        """``8.7``."""
        return f"{self.capability[0]}.{self.capability[1]}"


def find_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> GpuFacts:
    """GPU 0 of those that ``CUDA_VISIBLE_DEVICES`` shows, on which everything runs.

    Args:
        load: opens a shared library by name.

    Raises:
        EngineError: no driver, a driver that does not start, or no such GPU; one line each.
    """
    try:
        driver = load(LIBRARY)
    except OSError as error:
        raise EngineError(
            f"no NVIDIA driver on this machine: {LIBRARY} cannot be loaded",
            hint="run on a machine with an NVIDIA GPU, or use an OpenVINO engine",
        ) from error
    _call(driver, "cuInit", 0, doing="start")
    version = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version), doing="say its version")
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count), doing="count GPUs")
    if count.value < 1:
        raise EngineError(
            f"the NVIDIA driver shows {count.value} GPUs, so there is no GPU 0",
            hint="look at CUDA_VISIBLE_DEVICES and nvidia-smi",
        )
    device = ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0, doing="open the GPU")
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device, doing="name the GPU")
    memory = ctypes.c_size_t()
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device, doing="size the GPU")
    return GpuFacts(
        name=name.value.decode(errors="replace"),
        capability=(_attribute(driver, _MAJOR, device), _attribute(driver, _MINOR, device)),
        memory=memory.value,
        # 12060 is 12.6.
        driver=(version.value // 1000, version.value % 1000 // 10),
        multiprocessors=_attribute(driver, _MULTIPROCESSORS, device),
    )


def _attribute(driver: Any, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), which, device, doing="say its kind")
    return value.value


def _call(driver: Any, name: str, *arguments: Any, doing: str) -> None:
    function = getattr(driver, name, None)
    if function is None:
        raise EngineError(
            f"{LIBRARY} on this machine is no NVIDIA driver: it has no {name}",
            hint="install the driver again, or use an OpenVINO engine",
        )
    status = int(function(*arguments))
    if status == 0:
        return
    text = ctypes.c_char_p()
    known = int(driver.cuGetErrorName(status, ctypes.byref(text))) == 0 and text.value
    reason = text.value.decode(errors="replace") if known and text.value else f"error {status}"
    raise EngineError(
        f"the NVIDIA driver could not {doing}: {reason} ({name})",
        hint="check the driver with nvidia-smi; in a container, start it with --gpus all",
    )


def has_gpu() -> bool:
    """Whether ``find_gpu`` finds one."""
    try:
        find_gpu()
    except EngineError:
        return False
    return True
