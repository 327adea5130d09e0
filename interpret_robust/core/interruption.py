"""Stopping long work between two steps, with everything saved."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(Exception):
    """Work ended early, by its time limit or by a signal, with everything saved."""


class NotBegun(Stopped):
    """Work was not begun, since its time was over or a stop was asked for."""


stop_order = threading.Event()
"""Set in a worker whose parent has told it to stop, which holds for work that begins later too."""


def say_stopping(number: int) -> None:
    """Say on a terminal that Ctrl-C was noticed, which a batch may take long to show. Workers are silent."""
    if number == signal.SIGINT and multiprocessing.parent_process() is None and sys.stderr.isatty():
        # A signal may come inside of another write, which `print` forbids.
        os.write(sys.stderr.fileno(), b"\nirt: stopping after this batch or step; Ctrl-C again stops at once.\n")


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets, so that a step is never cut in two.

    A second signal of the same kind acts at once. Outside the main thread signals are left alone. Where `stop_order`
    was set before, the event is set from the beginning.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _: Any) -> None:
        stop.set()
        say_stopping(number)
        signal.signal(number, handlers[signal.Signals(number)])

    for number in handlers:
        signal.signal(number, request)
    if stop_order.is_set():  # now that a signal that follows it would be noticed
        stop.set()
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
