"""Errors that a user can mend, and the sentences that say how."""

import re
from collections.abc import Callable, Iterable, Sequence

from interpret_robust.core.parsing import format_count

EXIT_USER_ERROR, EXIT_STOPPED, EXIT_INTERRUPTED = 2, 3, 130
"""Exit statuses of `irt`: a mistake of the user's, a time limit or a signal, Ctrl-C."""


class UserError(Exception):
    """A mistake in what the user gave. The message is one sentence: what, where, and what would be right.

    Example:
        >>> try:
        ...     ir.load("nothing.safetensors")
        ... except ir.UserError as error:
        ...     print(error)
        there is no checkpoint nothing.safetensors: `irt train` makes them.
    """


class DoubtWarning(UserWarning):
    """What is said in a program of a model whose answers are doubtful, see `models.checks.trial`.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", ir.DoubtWarning)
    """


class NotFiniteError(UserError):
    """Numbers that are needed are NaN or infinite on some images of a batch.

    Attributes:
        quantity: what is no number.
        places: the images, counted from 0.

    Example:
        >>> str(NotFiniteError("logits", [3, 8], "training image"))
        'logits are not finite numbers on 2 training images (counted from 0: 3, 8).'
    """

    def __init__(self, quantity: str, places: Sequence[int], noun: str = "image") -> None:
        self.quantity, self.places = quantity, places
        listing = ", ".join(map(str, places[:MOST_LISTED])) + (", ..." if len(places) > MOST_LISTED else "")
        images = format_count(len(places), noun)
        super().__init__(f"{quantity} are not finite numbers on {images} (counted from 0: {listing}).")


MOST_LISTED = 10
"""Images that a sentence lists."""


def escape_line_breaks(text: str) -> str:
    """Return a sentence with line breaks escaped, which a path or a damaged file may hold.

    Example:
        >>> escape_line_breaks("a\\nb.h5 is damaged.")
        'a\\\\nb.h5 is damaged.'
    """
    return "".join(_ESCAPES.get(character, character) for character in text)


_ESCAPES = {character: repr(character)[1:-1] for character in "\n\r\v\f\x1b\x85\u2028\u2029"}


def take_first_line(error: BaseException) -> str:
    """Return the first line of what a library says, with a quote closed that goes on behind it.

    Example:
        >>> take_first_line(ValueError("no module 'a\\nb'."))
        "no module 'a...'"
    """
    first, *rest = str(error).strip().split("\n")
    return close_quotes(first) if rest else first.rstrip(".")


def reason_in_brackets(error: Exception) -> str:
    """Return what HDF5 says of a file, in as few words as it gives: what stands in brackets at the end, if it has them.

    Example:
        >>> reason_in_brackets(OSError("Unable to open file (file signature not found)"))
        'file signature not found'
    """
    line = take_first_line(error).rstrip(".")
    return line.split("(", 1)[-1].removesuffix(")") if line.endswith(")") else line


def close_quotes(text: str) -> str:
    """Return a text that was cut, with every quote that the cut left open closed."""
    text = text.rstrip(". ")
    for quote in "'\"`":
        marks = re.findall(rf"(?<!\w){quote}|{quote}(?!\w)", text)
        text += f"...{quote}" if len(marks) % 2 else ""
    return text


def describe(value: object) -> str:
    """Return what a sentence calls a value: its text in Python where that is short, else its type.

    Example:
        >>> describe(3), describe("x.h5"), describe(list(range(99)))
        ('3', "'x.h5'", 'a value of type list')
    """
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE and "\n" not in text else f"a value of type {type(value).__name__}"


def type_name(value: object) -> str:
    """Return the name of a value's type with its article.

    Example:
        >>> type_name({}), type_name(3)
        ('a dict', 'an int')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


LONGEST_VALUE = 80
"""Characters of a value that a sentence quotes."""


def check_truth(name: str, value: object) -> None:
    """Raise UserError for what is neither True nor False, such as the text "no", which counts as true.

    Example:
        >>> check_truth("overwrite", True)
    """
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):  # NumPy's own
        raise UserError(f"{name} is {describe(value)}: give True or False.")


def unknown(
    kind: str, name: object, choices: Iterable[str], alike: Iterable[str] = (), limit: int | None = None
) -> UserError:
    """Return the error for a name that is not among `choices`, with the nearest one of these and of `alike`.

    Of more than `limit` choices only near ones are listed. A program may give something other than text for a name.

    Example:
        >>> str(unknown("model", "zoo", [f"a{n}" for n in range(99)], limit=12))
        "unknown model 'zoo': none of 99 has a name like that."
    """
    name, names = name if isinstance(name, str) else describe(name), sorted(choices)
    nearest = find_nearest(name, [*names, *sorted(alike)])
    hint = f"did you mean '{nearest}'? " if nearest else ""
    if limit is None or len(names) <= limit:
        return UserError(f"unknown {kind} '{name}': {hint}known are {', '.join(names)}.")
    matches = list_near(name, names, limit)
    if not matches:
        return UserError(f"unknown {kind} '{name}': none of {len(names)} has a name like that.")
    return UserError(f"unknown {kind} '{name}': {hint}of {len(names)}, the nearest are {', '.join(matches)}.")


def find_nearest(name: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that is most like a name, upper case or lower; None where none is like it.

    Example:
        >>> find_nearest("quik", ["paper", "quick"])
        'quick'
    """
    import difflib  # which most commands do not need

    by_lower_case = {choice.lower(): choice for choice in reversed(names)}
    return next((by_lower_case[key] for key in difflib.get_close_matches(name.lower(), by_lower_case, n=1)), None)


def list_near(name: str, names: Sequence[str], limit: int) -> list[str]:
    """Return at most so many of `names` that hold a name or are like it, upper case or lower, the nearest first.

    Example:
        >>> list_near("Truck", ["trout", "pickup_truck", "sea"], 2)
        ['pickup_truck', 'trout']
    """
    import difflib

    by_lower_case = {choice.lower(): choice for choice in reversed(names)}
    holders = [key for key in sorted(by_lower_case) if name.lower() in key]
    alike = difflib.get_close_matches(name.lower(), by_lower_case, limit, cutoff=0.4)
    return [by_lower_case[key] for key in dict.fromkeys((*holders, *alike))][:limit]


Say = Callable[[str], None]
