"""Checks of what a program gives; the commands check the texts of their options themselves."""

import os
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust.core.errors import UserError, describe


def check_members(values: Any, kind: Any, noun: str, right: str) -> list[Any]:
    """Return the members of a list, each of which is of a kind.

    Raises UserError for a list without members, and for anything of another kind, in a list or instead of one.

    Example:
        >>> check_members(range(3), int, "number", "a whole number")
        [0, 1, 2]
    """
    found = [*values] if isinstance(values, Iterable) else [values]
    if not found:
        raise UserError(f"there is no {noun} in the list: give at least one.")
    for value in found:
        if not isinstance(value, kind):
            raise UserError(f"{describe(value)} is no {noun}: give {right}, or a list of those.")
    return found


def make_plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, which a file can hold, and anything else as it is.

    Example:
        >>> make_plain(np.int64(3)), make_plain("l2")
        (3, 'l2')
    """
    return value.item() if isinstance(value, np.generic) else value


def check_images(name: str, count: Any, default: str) -> None:
    """Raise UserError for what is neither a number of images nor None, which stands for `default`.

    Example:
        >>> check_images("limit", 8, "all"), check_images("limit", None, "all")
        (None, None)
    """
    is_whole = isinstance(count, Integral) and not isinstance(count, bool)
    if count is not None and not (is_whole and count >= 1):
        raise UserError(f"{name} is {describe(count)}: give a whole number of images from 1 on, or None for {default}.")


def check_path(name: str, value: Any) -> str:
    """Return a path as text. Raises UserError for what is neither text nor a path, and for what no file can be called.

    Example:
        >>> check_path("data", Path("mine.npz"))
        'mine.npz'
    """
    if not isinstance(value, str | Path):
        raise UserError(f"{name} is {describe(value)}: give a path, or a name, as text.")
    text = str(value)
    is_long = len(os.fsencode(text)) > LONGEST_PATH or any(
        len(os.fsencode(part)) > LONGEST_PART for part in Path(text).parts
    )
    if is_long or "\0" in text:
        problem = f"has {len(text)} characters" if is_long else f"is {describe(text)}, with a character that ends it"
        raise UserError(f"{name} {problem}, and no file is called so: give its path.")
    return text


LONGEST_PATH, LONGEST_PART = 4095, 255
"""Bytes of a path, and of the name of a file or folder, that Linux takes."""


def check_text(name: str, value: Any, example: str) -> None:
    """Raise UserError for what is no text.

    Example:
        >>> check_text("variant", "at-att", "at")
    """
    if not isinstance(value, str):
        raise UserError(f"{name} is {describe(value)}: give one name as text, such as '{example}'.")
