"""What is said of files that are there already: a few by name, many in one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from interpret_robust.core.errors import Say

MOST_NAMED = 3
"""Files that are named one by one."""

_UNCHANGED_ENDING = " is there already"


def say_unchanged(names: Sequence[str], count: int, say: Say) -> None:
    """Say which of `count` files are there already.

    Example:
        >>> say_unchanged(["a.png", "b.png", "c.png", "d.png"], 7, print)
        4 of 7 files are there already
    """
    if len(names) > MOST_NAMED:
        say(f"{len(names)} of {count} files are there already")
        return
    for name in names:
        say(f"{name}{_UNCHANGED_ENDING}")


@contextmanager
def unchanged_together(say: Say) -> Iterator[Say]:
    """Yield what says a sentence about a file at once, and at the end which files are there already.

    Example:
        >>> with unchanged_together(print) as say:
        ...     say("a.png is there already")
        ...     say("drew b.png")
        drew b.png
        a.png is there already
    """
    names: list[str] = []
    other_count = 0

    def sort(sentence: str) -> None:
        nonlocal other_count
        if sentence.endswith(_UNCHANGED_ENDING):
            names.append(sentence.removesuffix(_UNCHANGED_ENDING))
        else:
            other_count += 1
            say(sentence)

    yield sort
    say_unchanged(names, len(names) + other_count, say)
