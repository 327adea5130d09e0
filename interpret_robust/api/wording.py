"""Sentences of the commands in the words of a program: `--draws 20` is the argument `draws=20`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from interpret_robust.core.errors import UserError

ARGUMENTS = {"dataset": "data", "evaluator": "evaluators", "model-arg": "arguments", "overwrite": "overwrite=True"}
"""Options of the commands whose arguments in a program are called otherwise."""

_OPTION = re.compile(
    r"`(?!--)[^`]*`|pip install [^:;]*|(?<![\w./-])--(?:set )?(\w[\w-]*)( (?=[A-Z]+\b|\d|[\w-]+[.:/]\w))?"
)
"""An option with the space before its value, or a whole command, in which options stay."""


def as_arguments(sentence: str) -> str:
    """Return a sentence with the arguments of a program in the place of options, and None in that of JSON's null.

    Commands in it stay.

    Example:
        >>> as_arguments("give --local-layer, or --draws 20: `irt flags --limit 5` tells more.")
        'give local_layer, or draws=20: `irt flags --limit 5` tells more.'
    """

    def name(match: re.Match[str]) -> str:
        option = match[1]
        if option is None:
            return match[0]
        return ARGUMENTS.get(option, option.replace("-", "_")) + ("=" if match[2] else "")

    return _OPTION.sub(name, sentence).replace(" or null is needed", " or None is needed")


@contextmanager
def use_python_words() -> Iterator[None]:
    """Let a mistake inside of this name arguments where the commands name options."""
    try:
        yield
    except UserError as error:
        error.args = tuple(as_arguments(str(text)) for text in error.args)
        raise
