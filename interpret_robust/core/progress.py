"""Progress on stderr: bars with rate and ETA on a terminal, elsewhere a plain line now and then of what takes long."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

FIRST_LINE = 5.0
"""Seconds of work after which there is a plain line."""

LINE_EVERY = 60.0
"""Seconds from then on between two."""


class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # tqdm has no types
    """A bar, in whose place lines are written where stderr is no terminal: `small seed 0: 250 of 1,000 steps`."""

    def __init__(self, description: str, total: int, unit: str, **options: Any) -> None:
        self._description, self._unit, self._lines = description, unit, ExitStack()
        super().__init__(
            desc=description, total=total, unit=f" {unit}", unit_scale=True, disable=None, dynamic_ncols=True, **options
        )

    def __enter__(self) -> "Bar":
        if self.disable:
            self._lines.enter_context(lines(self._line))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lines.close()
        super().__exit__(*error)

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more units; returns whether the bar was drawn."""
        if self.disable:
            self.n += n or 0
        return bool(super().update(n))

    def _line(self) -> str:
        return f"{self._description}: {self.n:,} of {self.total:,} {self._unit}"


def bar(description: str, total: int, unit: str, *, initial: int = 0, position: int | None = None) -> Bar:
    """Return a bar of `total` units, `initial` of them already done."""
    return Bar(description, total, unit, initial=initial, position=position, leave=position is None)


@contextmanager
def lines(text: Callable[[], str]) -> Iterator[None]:
    """Write to stderr what `text` gives after FIRST_LINE seconds of the block, and every LINE_EVERY seconds after it.

    Example:
        >>> with lines(lambda: "computing"):
        ...     pass
    """
    is_over = threading.Event()

    def write() -> None:
        wait = FIRST_LINE
        while not is_over.wait(wait):
            say(text())
            wait = LINE_EVERY

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def say(sentence: str) -> None:
    """Write a sentence to stderr, above the bars that are there."""
    tqdm.write(sentence, file=sys.stderr)


def with_bar(items: Sequence[T], description: str, unit: str) -> Iterator[T]:
    """Yield the items, with a bar that counts those that were taken.

    Example:
        >>> list(with_bar([1, 2], "squares", "numbers"))
        [1, 2]
    """
    with bar(description, len(items), unit) as counter:
        for item in items:
            yield item
            counter.update()
