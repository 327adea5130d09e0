"""The next piece of a sequence is made in a thread while the last one is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(make: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `make(item)` in order, of which the next is begun before the last is taken; at most two exist at once.

    Example:
        >>> list(read_ahead(abs, [-1, 2]))
        [1, 2]
    """
    with ThreadPoolExecutor(1) as pool:
        last: Future[R] | None = None
        for item in items:
            future = pool.submit(make, item)
            if last is not None:
                yield last.result()
            last = future
        if last is not None:
            yield last.result()
