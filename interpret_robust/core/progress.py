"""Progress on stderr: bars with the time left on a terminal, elsewhere a plain line now and then of what takes long."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from interpret_robust.core.parsing import format_count, format_duration

T = TypeVar("T")

FIRST_LINE = 5.0
"""Seconds of work after which there is a plain line."""

LINE_EVERY = 60.0
"""Seconds from then on between two."""

LONGEST = 44
"""Characters of a bar's description."""

SHORTEST = 12
"""Characters of it on a terminal too narrow for all."""

BAR_WIDTH = 10
"""Characters of the bar itself for which descriptions are cut and further numbers left out."""

WITH_TOTAL = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
WITHOUT_TOTAL = "{desc}: {n_fmt} {unit} [{elapsed}{postfix}]"
"""What a bar tells, in the words of tqdm: the elapsed time and the time left, and in `postfix` further numbers."""

DRAW_EVERY = 0.5
"""Seconds between two drawings of a bar while only passes are counted."""

_open_bars: list["Bar"] = []
"""Bars of work that has begun and not ended, the innermost last."""


class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # tqdm has no types
    """A bar, in whose place lines are written where stderr is no terminal: `small seed 0: 250 of 1,000 steps, about
    12 min left`.

    It fits the terminal: numbers that have no room are left out, the time left is not. It also tells how many passes
    through a network there were since the last unit: one batch of a large network may take minutes.
    """

    def __init__(self, description: str, total: int | None, unit: str, **options: Any) -> None:
        self._description, self._unit, self._lines = description, unit, ExitStack()
        self._passes, self._next_draw = 0, 0.0
        self._began = self._last_update = time.monotonic()
        self._initial = options.get("initial", 0)
        super().__init__(
            desc=_shorten(description), total=total, unit=unit, disable=None, dynamic_ncols=True, **options
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
        self._last_update = time.monotonic()
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
            return f"{self._description}: {self.n:,} {self._unit}{'' if self.n else self._time_note()}"
        passes = f", and {format_count(self._passes, 'pass')} for the next" if self._passes else ""
        return f"{self._description}: {self.n:,} of {self.total:,} {self._unit}{self._time_note()}{passes}"

    def _time_note(self) -> str:
        """Return about how long the rest takes; before the first unit is done, which tells it, for how long it runs."""
        time_now, count = time.monotonic(), self.n - self._initial
        if count <= 0:  # the first batch may take long
            return f", begun {_round_time(time_now - self._began)} ago"
        rest = (self._last_update - self._began) / count * (self.total - self.n) - (time_now - self._last_update)
        return f", about {_round_time(rest)} left" if rest > 0 else ""

    def __str__(self) -> str:
        """Return the bar as it fits the terminal, with as many numbers as have room in it."""
        values = {**self.format_dict, "bar_format": WITHOUT_TOTAL if self.total is None else WITH_TOTAL}
        width, postfix = values.get("ncols") or math.inf, values.pop("postfix", None)
        excess = _measure(values) - width
        if excess > 0:
            values["prefix"] = _shorten(self._description, max(SHORTEST, len(values["prefix"]) - int(excess)))
        numbers = [*(postfix.split(", ") if postfix else []), *self._rate(values)]
        texts = [", ".join(numbers[:count]) for count in range(len(numbers), 0, -1)]
        text = next((text for text in texts if _measure(values | {"postfix": text}) <= width), None)
        return str(self.format_meter(**values | {"postfix": text}))

    def _rate(self, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield the rate of a bar whose `values` are those of tqdm; nothing while it is not known."""
        seconds = values["elapsed"]
        rate = values.get("rate") or ((self.n - self._initial) / seconds if seconds else 0)
        if rate:
            yield f"{rate:.2f} {self._unit}/s" if rate >= 1 else f"{1 / rate:.2f} s each"


def open_bar(description: str, total: int, unit: str, *, initial: int = 0, position: int | None = None) -> Bar:
    """Return a bar of `total` units, `initial` of them already done."""
    return Bar(description, total, unit, initial=initial, position=position, leave=position is None)


def pass_counter(description: str) -> Bar:
    """Return a bar without an end, which counts passes through a network and goes when its work is over."""
    return Bar(description, None, "passes", leave=False, delay=FIRST_LINE)


def _shorten(description: str, longest: int = LONGEST) -> str:
    """Return a description that leaves room for a bar beside it: of a long one the beginning and the end."""
    if len(description) <= longest:
        return description
    return f"{description[: longest // 2]}...{description[3 - (longest + 1) // 2 :]}"


def _measure(values: Mapping[str, Any]) -> int:
    """Return the characters of a bar of BAR_WIDTH with `values`, as tqdm names them."""
    return len(tqdm.format_meter(**{**values, "ncols": None}))


def _round_time(seconds: float) -> str:
    """Return about how long something takes: to the minute where it is long, else to the second.

    Example:
        >>> _round_time(5.2), _round_time(755.0)
        ('5 s', '13 min')
    """
    return f"{round(seconds)} s" if seconds < LONG else format_duration(60 * round(seconds / 60))


LONG = 100.0
"""Seconds from which on seconds are not told any more."""


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
