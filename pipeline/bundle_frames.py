"""Frames that travel with a bundle, and the labels its graph gives them, executed exactly.

An engine is compared with its graph before anyone may use it. On the edge box nothing can execute
the graph but the engine itself; so the answers are taken along.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.cityscapes import Cityscapes
from calibration.frames import checking_frames
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.verify import batches, labels_of

FRAMES, LABELS = "check/frames.npy", "check/labels.npy"
COUNT = 3


def check_files(model: bytes, dataset: Path | None) -> dict[str, bytes]:
    """``FRAMES`` and ``LABELS`` as files.

    Args:
        model: the graph, one input uint8 (N, H, W, 3), and logits or labels out.
        dataset: a Cityscapes tree, of whose val split the frames are, if it has one; rendered
            streets if ``None``.

    Returns:
        Of K inputs: frames uint8 (K, N, H, W, 3) BGR, and the classes uint8 (K, N, h, w) at the
        positions of the logits, or the labels uint8 (K, N, H, W).
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        graph.write_bytes(model)
        with OnnxRuntimeEngine(graph) as exact:
            batch, height, width, _channels = exact.inputs[0].shape
            if dataset is None:
                # Only where it is needed: the renderer is no part of what a bundle is made of.
                from calibration.streets import write_dataset

                dataset = Path(folder) / "streets"
                write_dataset(dataset, train=0, val=COUNT * batch)
            frames = checking_frames(Cityscapes(dataset), COUNT * batch).images(height, width)
            stacks = list(batches(frames, batch, COUNT))
            labels = [labels_of(exact.infer(stack)) for stack in stacks]
    return {FRAMES: _npy(np.stack(stacks)), LABELS: _npy(np.stack(labels))}


def _npy(array: npt.NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array, np.uint8), allow_pickle=False)
    return out.getvalue()
