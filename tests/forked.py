"""Functions in processes of their own, forked of the process pool's server, which has loaded torch once."""

import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from interpret_robust.core import process_pool


class Exit(NamedTuple):
    """How a process has ended: its status, minus the number of a signal, and what it has printed."""

    code: int | None
    out: str
    err: str


def start(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """A process that calls a function of a module, under this process's environment of now."""
    process = process_pool._context().Process(target=_call, args=(dict(os.environ), function, *arguments))
    process.start()
    return process


def run(function: Callable[..., object], *arguments: Any) -> Exit:
    """Call a function of a module in a process, to its end."""
    with TemporaryDirectory() as folder:
        process = start(_call_and_print_to, folder, function, *arguments)
        process.join()
        out, err = (Path(folder, name).read_text(encoding="utf-8") for name in ("1", "2"))
        return Exit(process.exitcode, out, err)


def _call(environment: dict[str, str], function: Callable[..., object], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _call_and_print_to(folder: str, function: Callable[..., object], *arguments: Any) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(Path(folder, str(descriptor)), os.O_WRONLY | os.O_CREAT), descriptor)
    function(*arguments)
