"""The driver probe, with a stand-in for libcuda's C interface and with what this machine has."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from pipeline.engines.cuda_driver import LIBRARY, find_gpu
from pipeline.engines.cuda_memory import open_memory
from pipeline.errors import EngineError, MissingDependencyError


def _set(pointer: Any, value: Any) -> None:
    pointer._obj.value = value


class Libcuda:
    """The eight calls the probe makes, answered as the header documents them."""

    def __init__(self, devices: int = 1, fail: str = "", status: int = 100) -> None:
        self.devices, self.fail, self.status = devices, fail, status

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name == object.__getattribute__(self, "fail"):
            return lambda *_: self.status
        return object.__getattribute__(self, name)

    def cuInit(self, flags: int) -> int:  # noqa: N802  # libcuda's name
        return 0 if flags == 0 else 1

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802  # libcuda's name
        _set(version, 12060)
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802  # libcuda's name
        _set(count, self.devices)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802  # libcuda's name
        _set(device, index + 40)
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802  # libcuda's
        name.value = f"Orin {device.value}".encode()[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:  # noqa: N802  # libcuda's name
        _set(size, 8 << 30)
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:  # noqa: N802
        _set(value, {75: 8, 76: 7, 16: 14}[which])
        return 0

    def cuGetErrorName(self, status: int, text: Any) -> int:  # noqa: N802  # libcuda's name
        if status != 100:
            return 1
        _set(text, b"CUDA_ERROR_NO_DEVICE")
        return 0


def test_a_gpu_is_described() -> None:
    gpu = find_gpu(load=lambda name: Libcuda(devices=2) if name == LIBRARY else None)
    assert (gpu.name, gpu.sm, gpu.memory, gpu.driver) == ("Orin 40", "8.7", 8 << 30, (12, 6))
    assert gpu.multiprocessors == 14


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (Libcuda(fail="cuInit"), r"could not start: CUDA_ERROR_NO_DEVICE \(cuInit\)"),
        (Libcuda(fail="cuInit", status=999), r"could not start: error 999 \(cuInit\)"),
        (Libcuda(fail="cuDeviceGetName"), "could not name the GPU"),
        (Libcuda(devices=0), "shows 0 GPUs, so there is no GPU 0"),
    ],
)
def test_what_the_driver_cannot_do_is_one_line(library: Libcuda, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        find_gpu(load=lambda _: library)
    assert caught.value.hint


def test_no_driver_is_one_line_and_no_crash() -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(EngineError, match="no NVIDIA driver on this machine") as caught:
        find_gpu(load=missing)
    assert caught.value.hint


def _has_driver() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


@pytest.mark.skipif(_has_driver(), reason="this machine has a driver")
def test_here_there_is_no_driver_and_everybody_says_so() -> None:
    with pytest.raises(EngineError, match=LIBRARY):
        find_gpu()
    pytest.importorskip("cuda.bindings", reason="needs cuda-python", exc_type=ImportError)
    with pytest.raises(EngineError, match=r"CUDA failed: .* \(cuInit\)"):
        open_memory("cuda-python")


def test_adapters_are_chosen_by_name() -> None:
    with pytest.raises(
        EngineError, match="no CUDA adapter 'cupy': choose from pycuda, cuda-python"
    ):
        open_memory("cupy")
    try:
        import pycuda  # noqa: F401  # only whether it is there
    except ImportError:
        with pytest.raises(MissingDependencyError, match="needs the package 'pycuda'") as caught:
            open_memory("pycuda")
        assert caught.value.hint == "pip install -e '.[pycuda]' in this project's folder"
