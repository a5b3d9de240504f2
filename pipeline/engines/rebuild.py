"""The command that makes an engine again, for the hint of every refusal of one."""

from __future__ import annotations

from pipeline.artifact import Manifest

COMMAND = "python scripts/build_engine.py"


def recorded_command(manifest: Manifest) -> str:
    """The command that makes an engine like it on this machine, as its build recorded it.

    Where none is recorded (in older manifests, and of engines for study, which are not meant to be
    used) it is what the other facts tell, which may be too little.
    """
    facts = manifest.facts
    if isinstance(facts.get("rebuild"), str):
        return " ".join(facts["rebuild"].split())
    words = [COMMAND]
    if manifest.main.endswith(".engine"):
        words.append("--backend tensorrt")
    words += [f"--{o} {facts[o]}" for o in ("precision", "preset") if facts.get(o)]
    shape = manifest.inputs[0].shape if manifest.inputs else ()
    if len(shape) == 4:
        words.append(f"--shape {shape[1]}x{shape[2]}")
    return " ".join(words)
