"""What tests of several folders share."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NoReturn

import pytest

from pipeline.console import run_command
from pipeline.engines.cuda_driver import find_gpu
from pipeline.errors import EngineError


def exit_code(main: Callable[[list[str]], int], *arguments: object) -> int:
    """Run a command in this process as its script does; what it exits with."""
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main([str(argument) for argument in arguments]))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def full_disk(*_arguments: object) -> NoReturn:
    """In the place of a function that writes: the disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def why_no_gpu() -> str | None:
    """What is missing to execute a TensorRT engine here; ``None`` where there is a GPU."""
    try:
        find_gpu()
    except EngineError as error:
        return str(error)
    return None
