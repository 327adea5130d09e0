"""Independent work side by side: one process and one thread a core, which beats one model on all cores.

Workers stop by themselves, with everything saved, when the parent goes away or asks them to: they watch
a pipe that only the parent holds open. Where the platform can, they are forked: on Linux of the parent itself, as long
as it has not loaded torch, whose threads do not outlive that, and else of a server that has loaded torch once for all
of them and never touches CUDA. They import the same modules as the parent, whatever the current folder holds.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import chain
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.spawn import get_preparation_data
from typing import Any, Protocol

from tqdm import tqdm

from interpret_robust.core import openmp
from interpret_robust.core.fork_server import end_with_parent
from interpret_robust.core.interruption import NotBegun, Stopped, say_stopping, stop_order


class Task(Protocol):
    """Work that can be sent to another process. `position` is the line of its progress bar."""

    def __call__(self, position: int | None) -> str:
        """Do the work; return a line that says what was done."""


Outcome = tuple[Task, str | Exception]
Context = ForkContext | ForkServerContext | SpawnContext

SERVER_MODULES = ("interpret_robust.core.fork_server", "scipy.special", "captum.attr", "interpret_robust.study.tasks")
"""What the server of workers loads: our modules, and the libraries that these load where they are first used."""


def count_cores() -> int:
    """Return processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    tasks: Sequence[Task],
    workers: int,
    group: Callable[[Any], Hashable] = id,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[Outcome]:
    """Yield each task with its answer or its exception, as they end; one worker means this process.

    Tasks of which `group` gives the same are done one after the other by one worker, and come back together. Where a
    task is stopped by a signal, none after it is begun: these come back with NotBegun. SIGTERM acts as Ctrl-C does.
    `meanwhile` is called when workers have begun, and where there are none before the first task.
    """
    tasks_by_group: dict[Hashable, list[Task]] = {}
    for task in tasks:
        tasks_by_group.setdefault(group(task), []).append(task)
    groups = list(tasks_by_group.values())
    if workers <= 1 or len(groups) <= 1:
        meanwhile()
        is_stopped = False
        for task in chain.from_iterable(groups):
            outcome = NotBegun("was not begun") if is_stopped else _attempt(task, None)
            is_stopped = is_stopped or isinstance(outcome, Stopped)
            yield task, outcome
        return
    context = _context()
    watch_signals, parent_end = context.Pipe(duplex=False)
    with parent_end, _interrupt_at_sigterm():
        other_children = multiprocessing.active_children()
        pool, futures = _submit(groups, workers, context, (watch_signals, parent_end))
        processes = [process for process in multiprocessing.active_children() if process not in other_children]
        try:
            meanwhile()
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                members = futures[future]
                yield from zip(members, future.result() if error is None else [error] * len(members), strict=True)
        except BaseException as error:
            # A second signal must not cut short the shutdown, which would leave workers that wait for ever: it ends
            # them, and so the shutdown. What they have saved is kept.
            handler = signal.signal(signal.SIGINT, lambda *_: _kill(processes))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if isinstance(error, KeyboardInterrupt):
                say_stopping(signal.SIGINT)
            parent_end.close()
            pool.shutdown(wait=True, cancel_futures=True)
            signal.signal(signal.SIGINT, handler)
            raise
        pool.shutdown()


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()


@contextmanager
def _interrupt_at_sigterm() -> Iterator[None]:
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _submit(
    groups: Sequence[list[Task]], workers: int, context: Context, pipe: tuple[Connection, Connection]
) -> tuple[ProcessPoolExecutor, dict[Future[list[str | Exception]], list[Task]]]:
    """Return workers that have begun, and the tasks by the future of their answers."""
    environment = dict(os.environ)
    with openmp.let_workers_wait_asleep(), _share_import_path():  # it is too late to do so in a worker
        positions: Queue[int] = context.Queue()
        for position in range(workers):
            positions.put(position)
        if isinstance(context, ForkServerContext):
            _start_server()
        # The lock keeps bars of several processes from overwriting each other.
        pool = ProcessPoolExecutor(workers, context, _prepare, (positions, pipe, context.RLock(), environment))
        return pool, {pool.submit(_work, members): members for members in groups}


def _start_server() -> None:
    """Start the server of workers unless it runs. Signals wait until it says how they end it, see `fork_server`."""
    resource_tracker.ensure_running()  # which would let them through
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def is_forked() -> bool:
    """Return whether workers are forked of this process, with all that it has loaded, which takes no time."""
    return sys.platform == "linux" and "torch" not in sys.modules


def _context() -> Context:
    """Return how workers are started: forked of this process or of a server, or one by one where neither can be."""
    if is_forked():
        return multiprocessing.get_context("fork")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*SERVER_MODULES])
    return context


@contextmanager
def _share_import_path() -> Iterator[None]:
    """Let processes that are started inside look for modules in the folders of `sys.path`, in this order.

    Python would look first in the current folder, which may hold a folder `torch/`, or other code of ours.
    """
    folders = [folder for folder in get_preparation_data("workers")["sys_path"] if isinstance(folder, str)]
    variables = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}
    own_values = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in own_values.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _attempt(task: Task, position: int | None) -> str | Exception:
    try:
        return task(position)
    except Exception as error:
        return error


_position: int | None = None


def _prepare(
    positions: "Queue[int]", pipe: tuple[Connection, Connection], lock: Any, environment: Mapping[str, str]
) -> None:
    """Stop this worker when the parent's end of the pipe closes.

    A server's environment is that of its start: `environment` is the parent's of now. What a network prints goes to
    stderr, since the parent's tables go to stdout.
    """
    if is_forked():
        end_with_parent(signal.SIGKILL)  # others that are forked hold the pipes too by which it could tell
    watch_signals, parent_end = pipe
    parent_end.close()
    sys.stdout = sys.stderr
    os.environ.clear()
    os.environ.update(environment)
    global _position  # noqa: PLW0603 - the one thing a worker knows of itself
    _position = positions.get()
    tqdm.set_lock(lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave_if_orphaned)
    threading.Thread(target=_stop_with_parent, args=(watch_signals,), daemon=True).start()


def _leave_if_orphaned(*_: Any) -> None:
    """End where nobody waits for the answer. A parent that lives ends its workers itself, when they are done.

    The two pipes of a parent that was killed need not close at the same moment.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join(timeout=1)
    if not parent.is_alive():
        os._exit(1)


def _stop_with_parent(watch_signals: Connection) -> None:
    try:
        watch_signals.recv()
    except (EOFError, OSError):
        stop_order.set()
        os.kill(os.getpid(), signal.SIGTERM)


def _work(tasks: Sequence[Task]) -> list[str | Exception]:
    """Return what each of a worker's tasks answers, or its exception. Those that have loaded torch use one thread."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return [_attempt_unless_stopped(task) for task in tasks]


def _attempt_unless_stopped(task: Task) -> str | Exception:
    # The pool hands a worker one group more than it works on, and does not take it back.
    if stop_order.is_set():
        return NotBegun("not begun: asked to stop")
    outcome = _attempt(task, _position)
    if isinstance(outcome, Stopped):
        # A signal to everybody reaches a worker before its parent can tell it.
        stop_order.set()
    return outcome
