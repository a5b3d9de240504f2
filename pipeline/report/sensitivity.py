"""What quantizing each layer alone does to the network: the exact graph with every other layer in
float (``calibration.ablation``), executed as written, against the float graph on the same frames.

Layers are ranked by the error of the logits, ||one layer in int8 - float|| / ||float||: it is
steady on few frames, where mIoU moves by chance. Both are told, with the share of labels changed.
What was measured is kept layer by layer under a key over everything it depends on, so that an
interrupted run goes on and the same question is never measured twice.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from calibration.ablation import Ablation
from calibration.cityscapes import IGNORE, NUM_CLASSES
from pipeline.artifact import hash_of, sha256_of
from pipeline.engines.base import FrameBatch, OutputBatch
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import UsageError
from pipeline.inference import FrameSegmenter
from pipeline.kernels import confusion
from pipeline.publish import write_output
from pipeline.report.frames import FrameSource
from pipeline.report.metrics import class_iou, mean_over_classes
from pipeline.report.schema import SensitivityRow
from pipeline.report.subjects import Graphs
from pipeline.stage import PICTURES, tool_versions

MAX_FRAMES: Final = 64
"""Their pictures and float logits are held in memory, some 20 MB each at 1024x2048."""

STATE_NAME: Final = "sensitivity.json"
_LAYOUT: Final = 1


@dataclass(frozen=True)
class Answer:
    """One network over all frames.

    Attributes:
        logits: of each frame, float32 (C, h, w).
        labels: of each frame, uint8 (H, W), at the frame's size.
        confusion: (C, C + 1) over all frames.
    """

    logits: Sequence[npt.NDArray[np.float32]]
    labels: Sequence[npt.NDArray[np.uint8]]
    confusion: npt.NDArray[np.int64]

    @property
    def miou(self) -> float | None:
        """In points; ``None`` where no pixel is scored."""
        found = float(mean_over_classes(class_iou(self.confusion)))
        return found if np.isfinite(found) else None


class _Listening(OnnxRuntimeEngine):
    """Keeps the logits of its last run, so that one run gives both them and the labels."""

    last: OutputBatch

    def _run(self, frames: FrameBatch) -> OutputBatch:
        self.last = super()._run(frames)
        return self.last


class Bench:
    """Frames in memory, over which graphs of one network are run exactly.

    Args:
        frames: labelled frames.
        indices: which of them; at most ``MAX_FRAMES``.

    Raises:
        UsageError: too many frames.
        CalibrationDataError: a frame that cannot be read.
    """

    def __init__(self, frames: FrameSource, indices: Sequence[int]) -> None:
        if not 1 <= len(indices) <= MAX_FRAMES:
            raise UsageError(
                f"sensitivity of {len(indices)} frames: give 1 to {MAX_FRAMES}, they are held in "
                "memory"
            )
        self._held = [frames.read(index) for index in indices]

    def __len__(self) -> int:
        return len(self._held)

    def run(self, model: onnx.ModelProto, notify: Callable[[], None] = lambda: None) -> Answer:
        """Label every frame; ``notify`` is called after each.

        Raises ``EngineError`` where ONNX Runtime refuses the graph.
        """
        logits, labels = [], []
        matrix = np.zeros((NUM_CLASSES, NUM_CLASSES + 1), np.int64)
        with _opened(model) as engine:
            segmenter = FrameSegmenter(engine, tiles="fit")
            for bgr, truth in self._held:
                predicted = segmenter.segment(bgr)
                logits.append(np.array(engine.last[0], np.float32))
                labels.append(predicted)
                confusion(truth, predicted, matrix, ignore=IGNORE)
                notify()
        return Answer(logits, labels, matrix)


@contextmanager
def _opened(model: onnx.ModelProto) -> Iterator[_Listening]:
    with tempfile.TemporaryDirectory(prefix="repmlp-layer-") as folder:
        path = Path(folder) / "mixed.onnx"
        onnx.save(model, path)
        with closing(_Listening(path)) as engine:
            yield engine


def compare(layer: str, kind: str, changed: Answer, reference: Answer) -> SensitivityRow:
    """What one layer did. Logits that are not finite are an error of 1e6."""
    gap = norm = 0.0
    for mine, theirs in zip(changed.logits, reference.logits, strict=True):
        gap += float(np.square(mine.astype(np.float64) - theirs).sum())
        norm += float(np.square(theirs.astype(np.float64)).sum())
    error = float(np.sqrt(gap / norm)) if norm else 0.0
    pairs = list(zip(changed.labels, reference.labels, strict=True))
    moved = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
    before, after = reference.miou, changed.miou
    return SensitivityRow(
        layer=layer,
        kind=kind,
        drop=None if before is None or after is None else before - after,
        logits_error=min(error, 1e6) if np.isfinite(error) else 1e6,
        labels_changed=100.0 * moved / sum(a.size for a, _b in pairs),
    )


def ranked(rows: Sequence[SensitivityRow]) -> list[SensitivityRow]:
    """Greatest error of the logits first; equals by name, so that the order is always the same."""
    return sorted(rows, key=lambda row: (-row.logits_error, row.layer))


def measure(
    graphs: Graphs,
    frames: FrameSource,
    indices: Sequence[int],
    *,
    state: Path | None = None,
    digest: str = "",
    notify: Callable[[int, int], None] = lambda done, total: None,
) -> list[SensitivityRow]:
    """Every quantized layer alone, ranked.

    Args:
        graphs: of the candidate.
        frames: labelled frames.
        indices: which of them to use.
        state: file that keeps what was measured; ``None`` keeps nothing.
        digest: of the frames' contents, for the key of ``state``.
        notify: called with (runs done, runs in all).

    Raises:
        QuantizedGraphError: the two graphs are not of one network.
        EngineError: ONNX Runtime refuses one.
        UsageError: too many frames, or none of the layers is quantized.
        SinkError: ``state`` cannot be written.
    """
    floating = onnx.load(graphs.floating)
    ablation = Ablation(onnx.load(graphs.quantized), floating)
    if not ablation.layers:
        raise UsageError(f"'{graphs.quantized}' holds no quantized layer: nothing to rank")
    bench = Bench(frames, indices)
    key = hash_of(
        {
            "layout": _LAYOUT,
            "graphs": [sha256_of(graphs.quantized), sha256_of(graphs.floating)],
            "frames": [digest, list(indices)],
            "tools": tool_versions(("onnxruntime", "numpy", *PICTURES)),
        }
    )
    kept = _read(state, key)
    total = (len(ablation.layers) + 1) * len(bench)
    done = len(kept) * len(bench)

    def step() -> None:
        nonlocal done
        done += 1
        notify(done, total)

    notify(done, total)
    if len(kept) < len(ablation.layers):
        reference = bench.run(floating, step)
        for name, kind in ablation.layers.items():
            if name not in kept:
                changed = bench.run(ablation.only([name]), step)
                kept[name] = compare(name, kind, changed, reference)
                _write(state, key, kept)
    notify(total, total)
    return ranked(list(kept.values()))


def _read(state: Path | None, key: str) -> dict[str, SensitivityRow]:
    """What an earlier run measured under the same key; nothing where the file is another's."""
    if state is None or not state.is_file():
        return {}
    try:
        held: Any = json.loads(state.read_bytes())
        if held["key"] != key:
            return {}
        rows = [SensitivityRow.model_validate(row) for row in held["rows"]]
    except (ValueError, KeyError, TypeError):
        return {}  # half a file, or one that is none of ours: measured again
    return {row.layer: row for row in rows}


def _write(state: Path | None, key: str, rows: dict[str, SensitivityRow]) -> None:
    if state is not None:
        held = {"key": key, "rows": [row.model_dump() for row in rows.values()]}
        write_output(state, json.dumps(held).encode())
