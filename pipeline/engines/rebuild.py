"""The command that makes an engine again, for the hint of every refusal of one."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.artifact import Manifest

COMMAND = "python scripts/build_engine.py"
# Which TensorRT, and what one has and the other refuses; --level is a bundle's.
_OF_ONE_FLAVOUR = ("--flavour", "--hardware", "--optimization-level", "--level")
_SWITCHES_OF_ONE = ("--timing-cache", "--version-compatible")


def recorded_command(manifest: Manifest, engine: Path | None = None) -> str:
    """The command that makes an engine like it on this machine, as its build recorded it.

    Where none is recorded (in older manifests, and of engines for study, which are not meant to be
    used) it is what the other facts tell, which may be too little. So it is where the recorded one
    is none of ours: people paste what they are told to try, and manifests come from elsewhere.

    Args:
        manifest: the engine's.
        engine: its file. A bundle is built where it lies now: it may have been moved since.
    """
    facts = manifest.facts
    own = _own(facts.get("rebuild"), None if engine is None else engine.absolute().parent)
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


def for_other_flavour(command: str) -> str:
    """A recorded command without what binds it to one TensorRT: the other would refuse it.

    Word by word: in the text, a quoted path could hold such an option and lose its quotation mark.
    """
    kept: list[str] = []
    words = iter(shlex.split(command))
    for word in words:
        if word in _OF_ONE_FLAVOUR:
            next(words, None)  # its value
        elif word not in _SWITCHES_OF_ONE and word.partition("=")[0] not in _OF_ONE_FLAVOUR:
            kept.append(word)
    joined = shlex.join(kept)
    return _own(joined) or joined


def _own(recorded: object, here: Path | None = None) -> str | None:
    """The command, quoted anew, if it is this project's or a bundle's; that of the bundle ``here``,
    if there is one."""
    try:
        words = shlex.split(recorded) if isinstance(recorded, str) else []
    except ValueError:
        return None
    match words:
        case ["python", "scripts/build_engine.py", *_] | ["python3", "edge.py", "build", *_]:
            return shlex.join(words)
        case ["cd", folder, "&&", "python3", "edge.py", "build", *_]:
            moved = here is not None and (here / "edge.py").is_file()
            return f"cd {shlex.quote(str(here) if moved else folder)} && {shlex.join(words[3:])}"
    return None
