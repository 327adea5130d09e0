"""Progress bars with rate and ETA on stderr; quiet where stderr is not a terminal."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(description: str, total: int, unit: str, *, initial: int = 0, position: int | None = None) -> "tqdm[Any]":
    """Return a bar of `total` units, `initial` of them already done."""
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        unit_scale=True,
        disable=None,
        dynamic_ncols=True,
        position=position,
        leave=position is None,
    )


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
