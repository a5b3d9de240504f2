"""The command that makes an engine again, for the hint of every refusal of one."""

from __future__ import annotations

import shlex

from pipeline.artifact import Manifest

COMMAND = "python scripts/build_engine.py"


def recorded_command(manifest: Manifest) -> str:
    """The command that makes an engine like it on this machine, as its build recorded it.

    Where none is recorded (in older manifests, and of engines for study, which are not meant to be
    used) it is what the other facts tell, which may be too little. So it is where the recorded one
    is none of ours: people paste what they are told to try, and manifests come from elsewhere.
    """
    facts = manifest.facts
    own = _own(facts.get("rebuild"))
    if own is not None:
        return own
    words = [COMMAND]
    if manifest.main.endswith(".engine"):
        words.append("--backend tensorrt")
    words += [
        f"--{o} {shlex.quote(str(facts[o]))}" for o in ("precision", "preset") if facts.get(o)
    ]
    shape = manifest.inputs[0].shape if manifest.inputs else ()
    if len(shape) == 4:
        words.append(f"--shape {shape[1]}x{shape[2]}")
    return " ".join(words)


def _own(recorded: object) -> str | None:
    """The command, quoted anew, if it is this project's or a bundle's."""
    try:
        words = shlex.split(recorded) if isinstance(recorded, str) else []
    except ValueError:
        return None
    match words:
        case ["python", "scripts/build_engine.py", *_] | ["python3", "edge.py", "build", *_]:
            return shlex.join(words)
        case ["cd", folder, "&&", "python3", "edge.py", "build", *_]:
            return f"cd {shlex.quote(folder)} && {shlex.join(words[3:])}"
    return None
