"""Why a checkpoint cannot be read: cut short, no checkpoint at all, or refused for its code.

What readers say of such a file is of their insides ("Errno 22", "pop from empty list"), so the file
itself is looked at. Nothing of it is run.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import zipfile
from pathlib import Path

from models.errors import ModelError, UnsafeCheckpointError

_ZIP = b"PK\x03\x04"
"""What a file of ``torch.save`` begins with."""
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The same before PyTorch 1.6: a pickle of its magic number."""
_HEAD = 1 << 20
_MOST_HEADER = 100_000_000
"""Bytes of a safetensors file's header, by its definition."""


def unreadable(path: Path, error: Exception) -> ModelError:
    """What to raise for a file that its reader refused with ``error``. The message is one line."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size
        tensors = path.suffix == ".safetensors"
        cut = _cut_tensors(head, size) if tensors else _cut_pickle(path, head, error)
    except OSError:  # which is what the reader said too
        return ModelError(f"checkpoint '{path}' cannot be read: {first}")
    if cut:
        return ModelError(f"checkpoint '{path}' is incomplete: copy or download it again")
    if tensors:
        return ModelError(f"checkpoint '{path}' is not a safetensors file: {first}")
    saved = head.startswith((_ZIP, _OLD))
    if isinstance(error, pickle.UnpicklingError) and (saved or _names_globals(head)):
        return UnsafeCheckpointError(
            f"checkpoint '{path}' is not plain tensors and was refused: it may run code when "
            "loaded; save it again as .safetensors from a machine that trusts it"
        )
    if saved:
        return ModelError(f"checkpoint '{path}' cannot be read: {first}")
    return ModelError(
        f"'{path}' is not a checkpoint: give a file that torch.save wrote, or a .safetensors"
    )


def _cut_tensors(head: bytes, size: int) -> bool:
    """Whether a safetensors file ends before its header or the last of its tensors does."""
    length = int.from_bytes(head[:8], "little")
    if size <= 8:
        return size < 8 or length <= _MOST_HEADER
    if length > _MOST_HEADER or head[8:9] != b"{":
        return False
    if 8 + length > size:
        return True
    try:  # of a header that is larger than the head this is a ValueError too
        header = json.loads(head[8 : 8 + length])
        ends = [each["data_offsets"][1] for key, each in header.items() if key != "__metadata__"]
        return bool(8 + length + max(ends, default=0) > size)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return False


def _cut_pickle(path: Path, head: bytes, error: Exception) -> bool:
    """Whether a file of ``torch.save`` ends early; an empty one does."""
    if len(head) < len(_OLD) and (_ZIP.startswith(head) or _OLD.startswith(head)):
        return True
    if head.startswith(_ZIP):
        return not zipfile.is_zipfile(path)  # its directory is what is written last
    # There is no end to look for in the old form: its reader says that it came upon one.
    said = str(error)
    ended = isinstance(error, EOFError) or "EOF" in said or "requires a buffer" in said
    return head.startswith(_OLD) and (ended or said == "index out of range")


def _names_globals(head: bytes) -> bool:
    """Whether a pickle asks for anything by name, which is how it would run code."""
    names = {"GLOBAL", "INST"}
    if head.startswith(b"\x80"):  # has no argument, so any bytes may hold one by chance
        names.add("STACK_GLOBAL")
    with contextlib.suppress(Exception):  # bytes that are no pickle raise anything at all
        return any(code.name in names for code, _value, _at in pickletools.genops(io.BytesIO(head)))
    return False
