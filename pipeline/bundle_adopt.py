"""Taking a bundle's OpenVINO engine into service on the box: what ``edge.py build`` does for it.

Nothing is built: the engine is opened on this CPU, with the OpenVINO that is installed here, run on
the bundle's frames and held to the labels of its exact graph. Only then does it get the manifest
without which nothing opens it.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.artifact import Manifest, hash_of, sha256_of, write_whole
from pipeline.bundle_box import BoxEngine, load_check
from pipeline.engines.cpu import cpu_model, device_facts, overflow_warning
from pipeline.engines.opening import manifest_of
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.errors import CheckFailedError
from pipeline.verify import label_agreement, require_agreement

# Facts of the machine it was built on, which this one has its own of, or of its folder there.
_NOT_HERE = ("device", "tools", "executed", "runtime", "agreement", "tuning", "gate", "rebuild",
             "checkpoint")  # fmt: skip


def adopt_engine(
    folder: Path, index: dict[str, Any], engine: Path, about: dict[str, Any]
) -> BoxEngine:
    """Judge the engine and write its manifest.

    Args:
        folder: the unpacked bundle.
        index: its table of contents, read and checked.
        engine: the engine's ``.xml`` in it.
        about: facts for the manifest: the command that was given, and of which bundle.

    Raises:
        EngineError: OpenVINO does not open it.
        CheckFailedError: on this machine it is not its graph; then it gets no manifest.
    """
    manifest_path = manifest_of(engine)
    source = Manifest.from_json((folder / "model.json").read_bytes())
    frames, labels = load_check(folder)
    begin = perf_counter()
    with OpenVINOEngine(engine, precision=index["model"]["precision"]) as opened:
        found = label_agreement(opened, frames, labels)
        info = opened.info
    asked = float(index["model"]["min_agreement"])
    overflows = overflow_warning(source.facts.get("weight_bits"))
    try:
        require_agreement(
            found["labels"], asked, f"on this machine ({cpu_model()}) the engine",
            lambda: "it stays out of service",
            hint=overflows
            or "bundle an engine that was built with --precision fp32, or on such a CPU",
        )  # fmt: skip
    except CheckFailedError:
        manifest_path.unlink(missing_ok=True)  # another version or CPU may have been content
        raise
    version = metadata.version("openvino")
    device = device_facts()
    facts = {key: value for key, value in source.facts.items() if key not in _NOT_HERE} | {
        "device": device, "tools": {"openvino": version}, "executed": dict(info.executed),
        "runtime": dict(info.extra), "agreement": {"graph": found}, **about,
    }  # fmt: skip
    manifest = replace(
        source,
        main=engine.name,
        files={name: sha256_of(folder / name) for name in source.files},
        key=hash_of({"bundle": index["files"], "device": device, "openvino": version}),
        facts=facts,
    )
    write_whole(manifest_path, manifest.to_json())
    told = (
        f"{found['labels']:.2%} of labels as its graph, on {found['frames']} frames, with OpenVINO "
        f"{version} on {cpu_model()}"
    )
    warnings = () if overflows is None else (overflows,)
    return BoxEngine(engine, (told,), warnings, perf_counter() - begin)
