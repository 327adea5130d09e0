"""Several models in training on one GPU: in one process, a step of each in turn, each on a stream of its own.

One small network cannot fill a GPU. What lies on different streams runs there at the same time.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Event
from typing import Protocol, TypeVar

import torch

from interpret_robust.core.interruption import stop_requests

T = TypeVar("T")


class Stepwise(Protocol):
    """Work in steps that ends with a line that says what was done."""

    def steps(self, stop: Event, position: int | None) -> Generator[None, None, str]:
        """Do a step each time it is asked for one. Raises Stopped, with all saved, after `stop` is set."""


def to_end(steps: Generator[None, None, T]) -> T:
    """Take all steps, and return what they give."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer


def run(tasks: Sequence[Stepwise], at_once: int, device: torch.device) -> Iterator[tuple[Stepwise, str | Exception]]:
    """Yield each task with its answer or its exception, as they end; after SIGINT or SIGTERM none is begun."""
    queue, running = deque(tasks), deque[tuple[Stepwise, Generator[None, None, str], int]]()
    lines = list(range(min(at_once, len(tasks))))
    on_stream = {line: _stream(device) for line in lines}
    with stop_requests() as stop:
        while running or (queue and not stop.is_set()):
            while queue and lines and not stop.is_set():
                task, line = queue.popleft(), lines.pop(0)
                running.append((task, task.steps(stop, line if len(tasks) > 1 else None), line))
            task, steps, line = running.popleft()
            try:
                with on_stream[line]:
                    next(steps)
            except StopIteration as end:
                lines.append(line)
                yield task, end.value
            except Exception as error:
                lines.append(line)
                yield task, error
            else:
                running.append((task, steps, line))


def _stream(device: torch.device) -> AbstractContextManager[None]:
    """Return a context, to be entered again and again, in which work goes to a stream of its own."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
