"""Progress on stderr: bars with rate and ETA on a terminal, elsewhere a plain line now and then of what takes long."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from interpret_robust.core.parsing import format_count

T = TypeVar("T")

FIRST_LINE = 5.0
"""Seconds of work after which there is a plain line."""

LINE_EVERY = 60.0
"""Seconds from then on between two."""

LONGEST = 44
"""Characters of a bar's description."""

DRAW_EVERY = 0.5
"""Seconds between two drawings of a bar while only passes are counted."""

_open_bars: list["Bar"] = []
"""Bars of work that has begun and not ended, the innermost last."""


class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # tqdm has no types
    """A bar, in whose place lines are written where stderr is no terminal: `small seed 0: 250 of 1,000 steps`.

    It also tells how many passes through a network there were since the last unit: one batch of a large network may
    take minutes.
    """

    def __init__(self, description: str, total: int | None, unit: str, **options: Any) -> None:
        self._description, self._unit, self._lines = description, unit, ExitStack()
        self._passes, self._next_draw = 0, 0.0
        super().__init__(
            desc=_shorten(description), total=total, unit=f" {unit}", disable=None, dynamic_ncols=True, **options
        )

    def __enter__(self) -> "Bar":
        if self.disable:
            self._lines.enter_context(write_lines(self._line))
        _open_bars.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        _open_bars[:] = [other for other in _open_bars if other is not self]  # bars of one place on screen are equal
        self._lines.close()
        super().__exit__(*error)

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more units; returns whether the bar was drawn."""
        if self._passes:
            self._passes = 0
            self.set_postfix_str("", refresh=False)
        if self.disable:
            self.n += n or 0
        return bool(super().update(n))

    def count_pass(self) -> None:
        """Count a pass towards the next unit, or as one where passes are what is counted."""
        if self.total is None:
            self.update()
            return
        self._passes += 1
        self.set_postfix_str(format_count(self._passes, "pass"), refresh=False)
        if not self.disable and time.monotonic() > self._next_draw:
            self._next_draw = time.monotonic() + DRAW_EVERY
            self.refresh()

    def _line(self) -> str:
        if self.total is None:
            return f"{self._description}: {self.n:,} {self._unit}"
        passes = f", and {format_count(self._passes, 'pass')} for the next" if self._passes else ""
        return f"{self._description}: {self.n:,} of {self.total:,} {self._unit}{passes}"


def open_bar(description: str, total: int, unit: str, *, initial: int = 0, position: int | None = None) -> Bar:
    """Return a bar of `total` units, `initial` of them already done."""
    return Bar(description, total, unit, initial=initial, position=position, leave=position is None)


def pass_counter(description: str) -> Bar:
    """Return a bar without an end, which counts passes through a network and goes when its work is over."""
    return Bar(description, None, "passes", leave=False, delay=FIRST_LINE)


def _shorten(description: str) -> str:
    """Return a description that leaves room for a bar beside it: of a long one the beginning and the end."""
    if len(description) <= LONGEST:
        return description
    return f"{description[: LONGEST // 2]}...{description[3 - LONGEST // 2 :]}"


def clear_bars() -> None:
    """Clear the line of the cursor and all below it, where bars of other processes may stand, on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[J")
        sys.stderr.flush()


def count_pass() -> None:
    """Tell the innermost bar that a batch has gone through a network."""
    if _open_bars:
        _open_bars[-1].count_pass()


@contextmanager
def write_lines(text: Callable[[], str]) -> Iterator[None]:
    """Write to stderr what `text` gives after FIRST_LINE seconds of the block, and every LINE_EVERY seconds after it.

    Example:
        >>> with write_lines(lambda: "computing"):
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


def count_items(items: Sequence[T], description: str, unit: str) -> Iterator[T]:
    """Yield the items, with a bar that counts those that were taken.

    Example:
        >>> list(count_items([1, 2], "squares", "numbers"))
        [1, 2]
    """
    with open_bar(description, len(items), unit) as counter:
        for item in items:
            yield item
            counter.update()
