"""OpenVINO engines: IR files (``.xml`` + ``.bin``) with a manifest beside them.

The precision is what the manifest says and nothing else: an fp32 engine asks for f32 kernels,
because on CPUs with BF16 OpenVINO's default "FP32" run is BF16. An int8 engine keeps what is not
quantized in f32 too, so that it stays comparable with its graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibration.telemetry import silence_telemetry
from pipeline import OpenVINOPrecision
from pipeline.engines.base import EngineBase, EngineInfo, FrameBatch, OutputBatch, TensorSpec
from pipeline.engines.compiled_cache import seal_cache
from pipeline.errors import EngineError, MissingDependencyError, last_line

# What each precision asks the device to compute unquantized layers in; fp16 means the fastest
# half precision that the device has (BF16 on most CPUs), and the manifest says which ran.
_HINTS: Mapping[OpenVINOPrecision, str | None] = {"fp32": "f32", "fp16": None, "int8": "f32"}


def import_openvino() -> Any:
    """The ``openvino`` module, imported now. Raises ``MissingDependencyError``."""
    silence_telemetry()
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "openvino", "openvino", why="running an OpenVINO engine"
        ) from error
    return openvino


class OpenVINOEngine(EngineBase):
    """A compiled IR on the CPU. Slots are infer requests with preallocated buffers.

    Args:
        path: the ``.xml`` file, or an ONNX file.
        precision: ``fp32``, ``fp16`` or ``int8``.
        slots: requests that may be in flight; 0 lets OpenVINO say how many this CPU wants.
        streams: requests that run at the same time; 0 is OpenVINO's choice for low latency.
        threads: CPU threads; 0 is all.
        cache: folder for compiled models, see ``open_cache``, or ``None``.
        notes: of who opens it, added to ``info.extra``.

    Raises:
        EngineError: OpenVINO cannot read or compile the file, or it is not such a network.
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(
        self, path: Path, *, precision: OpenVINOPrecision = "fp32", slots: int = 0,
        streams: int = 0, threads: int = 0, cache: Path | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        openvino = import_openvino()
        core = openvino.Core()
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY" if streams < 2 else "THROUGHPUT"}
        if _HINTS[precision] is not None:
            config["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
        if streams:
            config["NUM_STREAMS"] = streams
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        if cache is not None:
            config["CACHE_DIR"] = str(cache)
        try:
            compiled = core.compile_model(str(path), "CPU", config)
        except RuntimeError as error:
            first = last_line(str(error))
            raise EngineError(f"'{path}' cannot be compiled by OpenVINO: {first}") from error
        if cache is not None:
            seal_cache(cache)
        if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
            raise EngineError(
                f"'{path}' is not a segmentation engine: it needs one input, one output"
            )
        self._compiled = compiled
        self.inputs = (_spec(compiled.inputs[0], "NHWC", path),)
        output = compiled.outputs[0]
        self.outputs = (_spec(output, "NCHW" if len(output.shape) == 4 else "NHW", path),)
        if self.inputs[0].dtype != "uint8" or len(self.inputs[0].shape) != 4:
            raise EngineError(f"'{path}' does not take uint8 frames (N, H, W, 3)")
        self.slots = slots or max(2, int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))
        self._requests = [compiled.create_infer_request() for _ in range(self.slots)]
        self._inputs = [np.zeros(self.inputs[0].shape, np.uint8) for _ in range(self.slots)]
        dtype = np.dtype(self.outputs[0].dtype)
        self._outputs = [np.zeros(self.outputs[0].shape, dtype) for _ in range(self.slots)]
        for request, taken, given in zip(self._requests, self._inputs, self._outputs, strict=True):
            request.set_input_tensor(openvino.Tensor(taken, shared_memory=True))
            request.set_output_tensor(openvino.Tensor(given, shared_memory=True))
        self._state = ["idle"] * self.slots
        self.info = EngineInfo(
            backend="openvino",
            device=str(core.get_property("CPU", "FULL_DEVICE_NAME")),
            precision=precision,
            path=str(path),
            executed=executed_precisions(compiled),
            extra={
                "version": openvino.__version__,
                "streams": int(compiled.get_property("NUM_STREAMS")),
                "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
                "float_kernels": str(
                    compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
                ),
                **(notes or {}),
            },
        )

    def input(self, slot: int) -> FrameBatch:
        """See the protocol."""
        return self._inputs[slot]

    def submit(self, slot: int) -> None:
        """See the protocol."""
        if self._state[slot] == "running":
            raise EngineError(f"slot {slot} is still in flight")
        self._state[slot] = "running"
        self._requests[slot].start_async()

    def wait(self, slot: int, timeout: float | None = None) -> OutputBatch:
        """See the protocol."""
        if self._state[slot] == "idle":
            raise EngineError(f"slot {slot} was never submitted")
        if self._state[slot] == "running":
            request = self._requests[slot]
            try:
                if timeout is None:
                    request.wait()
                elif not request.wait_for(max(0, round(timeout * 1000))):
                    raise TimeoutError(f"slot {slot} did not finish within {timeout} s")
            except RuntimeError as error:
                self._state[slot] = "idle"
                raise EngineError(f"OpenVINO failed: {last_line(str(error))}") from error
            self._state[slot] = "done"
        return self._outputs[slot]

    def close(self) -> None:
        """See the protocol."""
        for slot, state in enumerate(self._state):
            if state == "running":
                self._requests[slot].cancel()
                self._requests[slot].wait()
        self._requests.clear()
        self._state.clear()
        self._compiled = None


def executed_precisions(compiled: Any) -> dict[str, int]:
    """How many layers of the compiled model run in what: ``{"Convolution u8": 21, ...}``.

    Counted from the runtime model, which is what OpenVINO made of the graph. Constants, inputs,
    outputs and pure reinterpretations of memory are left out.
    """
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else node.get_type_name()
        if kind in ("Const", "Input", "Output", "Parameter", "Result", "Reshape"):
            continue
        precision = str(info["runtimePrecision"].astype(str)) if "runtimePrecision" in info else "?"
        counts[f"{kind} {precision}"] += 1
    return dict(sorted(counts.items()))


def _spec(port: Any, layout: str, path: Path) -> TensorSpec:
    if port.partial_shape.is_dynamic:
        raise EngineError(f"'{path}': '{port.any_name}' has no fixed shape")
    dtype = np.dtype(port.element_type.to_dtype()).name
    return TensorSpec(port.any_name, dtype, tuple(int(n) for n in port.shape), layout)
