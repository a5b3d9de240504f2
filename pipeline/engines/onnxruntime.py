"""ONNX Runtime as an engine: the reference that runs a graph exactly as it is written.

With ``session.disable_quant_qdq`` every Q and DQ is executed on its own, so an INT8 graph means
what ONNX says it means, to float32 rounding. It is slow, and it is the judge of the others.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engines.base import EngineBase, EngineInfo, FrameBatch, OutputBatch, TensorSpec
from pipeline.errors import EngineError, MissingDependencyError

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}


class OnnxRuntimeEngine(EngineBase):
    """One ONNX file of one input and one output, executed on the CPU, one request at a time.

    Args:
        path: the ONNX file.
        exact: execute Q/DQ as written; otherwise let ONNX Runtime fuse as it likes.
        threads: of this session; 0 leaves it to ONNX Runtime.
        precision: how the engine calls itself; ``None`` for ``int8`` where the graph holds Q/DQ
            nodes and ``fp32`` where it holds none.

    Raises:
        EngineError: the file is not an ONNX graph of one input, or cannot be run.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self, path: Path, *, exact: bool = True, threads: int = 0, precision: str | None = None
    ) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "onnxruntime", "build", why="running the exact graph"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; told twice they confuse
        options.intra_op_num_threads = threads
        if exact:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime raises plain pybind exceptions of its own for everything.
            first = str(error).splitlines()[0]
            raise EngineError(f"'{path}' cannot be opened by ONNX Runtime: {first}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineError(
                f"'{path}' has {len(inputs)} inputs and {len(outputs)} outputs, not 1"
            )
        self.inputs = (_spec(inputs[0], "NHWC", path),)
        self.outputs = (_spec(outputs[0], _layout(outputs[0]), path),)
        self.info = EngineInfo(
            "onnxruntime", "CPU", precision or _precision(path), str(path),
            extra={"version": onnxruntime.__version__, "exact": exact},
        )  # fmt: skip
        self.slots = 1
        self._buffer = np.zeros(self.inputs[0].shape, np.uint8)
        self._pending = False
        self._output: OutputBatch | None = None

    def input(self, slot: int) -> FrameBatch:
        """See the protocol."""
        return self._buffer

    def submit(self, slot: int) -> None:
        """See the protocol; the work itself is done by ``wait``."""
        if self._pending:
            raise EngineError("slot 0 is still in flight")
        self._pending = True

    def wait(self, slot: int, timeout: float | None = None) -> OutputBatch:
        """See the protocol; runs here, so ``timeout`` does not apply."""
        if self._pending:
            self._pending, self._output = False, None
            self._output = self._run(self._buffer)
        if self._output is None:
            raise EngineError("slot 0 was never submitted")
        return self._output

    def _run(self, frames: FrameBatch) -> OutputBatch:
        try:
            outputs = self._session.run(None, {self.inputs[0].name: frames})
        except Exception as error:
            # As above: its exceptions share no class but this one.
            first = str(error).splitlines()[0]
            raise EngineError(f"ONNX Runtime failed on '{self.info.path}': {first}") from error
        return np.asarray(outputs[0])

    def close(self) -> None:
        """See the protocol."""
        self._output = self._session = None


def _precision(path: Path) -> str:
    """Whether a file that ONNX Runtime has opened holds dequantizers, asked without onnx.

    A node's operator is field 4 of its protobuf message: tag 0x22, length, name.
    """
    name = b"DequantizeLinear"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return "fp32" if data.find(bytes([0x22, len(name)]) + name) < 0 else "int8"


def _layout(value: Any) -> str:
    return "NCHW" if len(value.shape) == 4 else "NHW"


def _spec(value: Any, layout: str, path: Path) -> TensorSpec:
    if not all(isinstance(size, int) for size in value.shape):
        raise EngineError(f"'{path}': '{value.name}' has no fixed shape: {value.shape}")
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), tuple(value.shape), layout)
