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
        4 of 7 pictures are there already, such as a.png
    """
    if len(names) > MOST_NAMED:
        noun = "pictures" if all(name.endswith(".png") for name in names) else "files"
        say(f"{len(names)} of {count} {noun} are there already, such as {names[0]}")
        return
    for name in names:
        say(f"{name}{_UNCHANGED_ENDING}")


@contextmanager
def gather_unchanged(say: Say) -> Iterator[Say]:
    """Yield what says a sentence about a file at once, and at the end which files are there already.

    A file that was made meanwhile, which is the last word of a sentence, is not among them, however often it is asked
    for.

    Example:
        >>> with gather_unchanged(print) as say:
        ...     say("a.png is there already")
        ...     say("drew b.png")
        ...     say("b.png is there already")
        drew b.png
        a.png is there already
    """
    is_new: dict[str, bool] = {}

    def sort(sentence: str) -> None:
        if sentence.endswith(_UNCHANGED_ENDING):
            is_new.setdefault(sentence.removesuffix(_UNCHANGED_ENDING), False)
        else:
            is_new[sentence.rpartition(" ")[2]] = True
            say(sentence)

    yield sort
    say_unchanged([name for name in is_new if not is_new[name]], len(is_new), say)
