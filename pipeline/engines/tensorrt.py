"""TensorRT engines: ``.engine`` files of TensorRT or TensorRT for RTX, with a manifest beside them.

The driver is asked first and the manifest compared with this machine second: what TensorRT would
answer with a crash or a screen of log is one line here.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipeline.artifact import Manifest
from pipeline.engines.abandoned import abandon
from pipeline.engines.base import EngineBase, EngineInfo, FrameBatch, OutputBatch, TensorSpec
from pipeline.engines.cuda_driver import GpuFacts, find_gpu
from pipeline.engines.cuda_memory import CudaMemory, open_memory
from pipeline.engines.rebuild import for_other_flavour, recorded_command
from pipeline.engines.trt_executor import OWN_RUNS, Request, open_context
from pipeline.engines.trt_kernels import Kernels, open_kernels
from pipeline.engines.trt_log import LogLine, capture_failure, first_error, shortage
from pipeline.engines.trt_logger import listening
from pipeline.engines.trt_modules import import_flavour, installed_flavours, installed_title
from pipeline.engines.trt_preflight import (
    NAMES,
    BuiltWith,
    Here,
    check_fits,
    cuda_major,
    known_capabilities,
    this_platform,
)
from pipeline.engines.trt_start import create
from pipeline.engines.trt_validity import check_validity
from pipeline.errors import ArtifactError, EngineError, MissingDependencyError

DEFAULT_SLOTS = 2
# An engine may run for months; what it said last is what tells.
_LOG_LINES = 500


def open_tensorrt(
    path: Path, manifest: Manifest, *, slots: int = 0, cuda_graphs: bool = True,
    allow_host_code: bool = False,
) -> TensorRTEngine:  # fmt: skip
    """The engine of that file, on this machine's GPU 0.

    Args:
        path: the plan; its hash is taken to have been checked.
        manifest: what it is, see ``BuildTensorRTStage``.
        slots: requests that may be in flight, each with its own activations; 0 is two.
        cuda_graphs: record the inference once and replay it.
        allow_host_code: let a version-compatible engine run the code it carries. Only for engines
            of your own making.

    Raises:
        EngineError: no driver or GPU, or TensorRT cannot load or run it; out of memory is so named.
        ArtifactError: it was built for another flavour, version, GPU, driver or network.
        MissingDependencyError: TensorRT, or a CUDA package, is not installed.
    """
    trt, gpu = check_here(manifest, path)
    if built_with(manifest, path.name).version_compatible and not allow_host_code:
        raise EngineError(
            f"engine '{path.name}' is version compatible and so carries host code, which is not run"
            " by default",
            hint="--allow-host-code runs it, for engines you built yourself; or build it without "
            "--version-compatible",
        )
    return TensorRTEngine(
        path, manifest, trt, gpu, open_memory(), slots=slots or DEFAULT_SLOTS,
        cuda_graphs=cuda_graphs, allow_host_code=allow_host_code,
    )  # fmt: skip


def check_here(manifest: Manifest, path: Path) -> tuple[Any, GpuFacts]:
    """(the TensorRT module, the GPU) for an engine that fits this machine.

    Raises what ``open_tensorrt`` raises before it opens anything. Cheap: reads no plan.
    """
    name = path.name
    built = built_with(manifest, name)
    gpu = find_gpu()
    rebuild = recorded_command(manifest, path)
    try:
        trt = import_flavour(built.flavour, why=f"opening '{name}'")
    except MissingDependencyError as error:
        others = [installed_title(each) for each in installed_flavours() if each != built.flavour]
        if not others:
            raise
        raise ArtifactError(
            f"engine '{name}' was built by {built.title}, here is {others[0]}",
            hint=f"{error.hint}, or build it here: {for_other_flavour(rebuild)}",
        ) from error
    here = Here(
        trt.__version__, cuda_major(built.flavour), this_platform(), gpu, known_capabilities(trt)
    )
    check_fits(built, here, name=name, rebuild=rebuild)
    return trt, gpu


class TensorRTEngine(EngineBase):
    """A deserialised plan with ``slots`` requests. Made by ``open_tensorrt``.

    It closes ``memory``, also when it cannot be opened, and after all of TensorRT's objects.
    """

    def __init__(
        self, path: Path, manifest: Manifest, trt: Any, gpu: GpuFacts, memory: CudaMemory, *,
        slots: int, cuda_graphs: bool, allow_host_code: bool,
    ) -> None:  # fmt: skip
        self._memory = memory
        self._heard = listening(trt, most=_LOG_LINES)
        self._name = path.name
        self._flavour = built_with(manifest, path.name).flavour
        self._gpu = gpu
        self.slots = slots
        self._runtime: Any = None
        self._engine: Any = None
        self._kernels: Kernels | None = None
        self._requests: list[Request] = []
        self._open = True
        try:
            rebuild = recorded_command(manifest, path)
            graph = self._start(
                trt, path.read_bytes(), manifest, rebuild, cuda_graphs, allow_host_code
            )
        except BaseException as error:
            # The traceback's frames hold contexts, which must not outlive the memory they use.
            with suppress(EngineError), memory.active():
                traceback.clear_frames(error.__traceback__)
            with suppress(EngineError):
                self.close()
            raise
        self.info = EngineInfo(
            backend=self._flavour,
            device=gpu.name,
            precision=str(manifest.facts.get("precision")),
            path=str(path),
            executed=dict(manifest.facts.get("executed", {})),
            extra={
                "version": trt.__version__,
                "compute_capability": gpu.sm,
                "driver": ".".join(map(str, gpu.driver)),
                "memory": memory.name,
                "cuda_graph": graph,
                "activations_bytes": _activations(self._engine),
            },
        )

    def _start(
        self, trt: Any, plan: bytes, manifest: Manifest, rebuild: str, cuda_graphs: bool,
        allow_host_code: bool,
    ) -> str:  # fmt: skip
        """Load the plan and run every slot once; what became of CUDA graphs."""
        with self._memory.active():
            self._deserialize(trt, plan, allow_host_code, rebuild)
            if self._flavour == "tensorrt-rtx":
                self._kernels = open_kernels(self._engine, plan, trt.__version__, self._gpu)
            given, gives = self._io(trt, manifest)
            self.inputs, self.outputs = (given,), (gives,)
            contexts = [self._context(trt, cuda_graphs) for _ in range(self.slots)]
        for context, _own in contexts:
            self._requests.append(Request(self._memory, context, given, gives, self._failure))
        own = contexts[0][1]
        runs = OWN_RUNS if own else 1
        reasons = [
            each.warm_up(capture=cuda_graphs and not own, runs=runs) for each in self._requests
        ]
        if own:
            said = capture_failure(self._lines())
            reasons = [said or each.own_graph_refused() for each in self._requests]
        if self._kernels is not None:
            with self._memory.active():
                self._kernels.keep()
        return _graph_state(cuda_graphs, own, reasons)

    def _deserialize(self, trt: Any, plan: bytes, allow_host_code: bool, rebuild: str) -> None:
        title = f"{NAMES[self._flavour]} {trt.__version__}"
        runtime = create(lambda: trt.Runtime(self._heard.logger), self._lines, title)
        self._runtime = runtime  # outlives the engine
        runtime.engine_host_code_allowed = allow_host_code
        check_validity(
            trt, runtime, plan, name=self._name, rebuild=rebuild,
            workspace=self._smaller_workspace(),
        )  # fmt: skip
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._failure("cannot be loaded")

    def _io(self, trt: Any, manifest: Manifest) -> tuple[TensorSpec, TensorSpec]:
        """Input and output as the engine has them; ``ArtifactError`` unless the manifest agrees."""
        found: dict[str, list[TensorSpec]] = {"INPUT": [], "OUTPUT": []}
        layouts = {t.name: t.layout for t in (*manifest.inputs, *manifest.outputs)}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            mode = str(self._engine.get_tensor_mode(name)).rpartition(".")[2]
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))).name
            shape = tuple(int(n) for n in self._engine.get_tensor_shape(name))
            found[mode].append(TensorSpec(name, dtype, shape, layouts.get(name, "?")))
        for specs, facts in (
            (found["INPUT"], manifest.inputs),
            (found["OUTPUT"], manifest.outputs),
        ):
            if specs != list(facts):
                raise ArtifactError(
                    f"engine '{self._name}' is not the one its manifest describes: "
                    f"it has {_list(specs)}"
                )
        if len(found["INPUT"]) != 1 or len(found["OUTPUT"]) != 1:
            raise ArtifactError(f"engine '{self._name}' has not exactly one input and one output")
        return found["INPUT"][0], found["OUTPUT"][0]

    def _context(self, trt: Any, cuda_graphs: bool) -> tuple[Any, bool]:
        context, own = open_context(trt, self._engine, graphs=cuda_graphs, kernels=self._kernels)
        if context is None:
            raise self._failure("has no room for another request")
        return context, own

    def _failure(self, what: str) -> EngineError:
        lines = self._lines()
        if shortage(lines) is not None:
            return EngineError(
                f"out of GPU memory: engine '{self._name}' {what}",
                hint="close other programs on the GPU, or build it with --workspace "
                f"{self._smaller_workspace()}",
            )
        return EngineError(f"engine '{self._name}' {what}: {first_error(reversed(lines))}")

    def _smaller_workspace(self) -> int:
        """MiB: an eighth of the GPU, and no more than half of what its activations take now."""
        most = max(64, self._gpu.memory // 8 >> 20)
        if self._engine is None:
            return most
        return max(16, min(most, _activations(self._engine) // 2 >> 20))

    def _lines(self) -> list[LogLine]:
        return self._heard.lines

    def input(self, slot: int) -> FrameBatch:
        """See the protocol."""
        return self._requests[slot].input

    def submit(self, slot: int) -> None:
        """See the protocol."""
        self._requests[slot].submit(slot)

    def wait(self, slot: int, timeout: float | None = None) -> OutputBatch:
        """See the protocol."""
        return self._requests[slot].wait(slot, timeout)

    def close(self) -> None:
        """See the protocol. Buffers handed out before are memory no more.

        Of a device that hangs nothing is freed: see ``abandoned``.
        """
        if not self._open:
            return
        self._open = False
        # By number: a name for a request would keep its context alive.
        if not all(self._requests[number].drain() for number in range(len(self._requests))):
            abandon(
                self._name, self._requests, self._kernels, self._engine, self._runtime,
                self._memory,
            )  # fmt: skip
            return
        try:
            # TensorRT frees device memory as its objects go: contexts, then engine, then runtime.
            with self._memory.active():
                self._requests.clear()
                self._kernels = None  # every context uses them
                self._engine = None
                self._runtime = None
        finally:
            self._heard.close()
            self._memory.close()


def built_with(manifest: Manifest, name: str) -> BuiltWith:
    """What the manifest says the engine was built with; ``ArtifactError`` when it does not."""
    try:
        return BuiltWith.model_validate(manifest.facts.get("built_with"))
    except ValidationError as error:
        raise ArtifactError(
            f"the manifest of '{name}' does not say what built it: it is no TensorRT engine of ours"
        ) from error


def _graph_state(asked: bool, own: bool, reasons: Sequence[str | None]) -> str:
    """Of all slots; ``reasons``: why each has no graph."""
    if not asked:
        return "off"
    without = [reason for reason in reasons if reason is not None]
    if not without:
        return "by the runtime" if own else "captured"
    which = "none" if len(without) == len(reasons) else f"not in {len(without)} of {len(reasons)}"
    return f"{which}: {'; '.join(dict.fromkeys(without))}"


def _activations(engine: Any) -> int:
    """Bytes that one context takes; the second name is of TensorRT before 10.1."""
    found = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if found is None else found)


def _list(specs: list[TensorSpec]) -> str:
    return ", ".join(f"{s.name} {s.dtype} {list(s.shape)}" for s in specs) or "none"
