"""What Python's `help` says of the options of a function, generated from where they are defined."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from interpret_robust import analyses
from interpret_robust.analyses.engine.options import Setting, read_options
from interpret_robust.models.card import Card
from interpret_robust.results.names import format_radius
from interpret_robust.training.recipe import list_meanings
from interpret_robust.training.recipe_file import find_recipe

Function = TypeVar("Function", bound=Callable[..., Any])

WIDTH = 96
"""Columns of a line, which `help` indents by four."""

LONGEST_NUMBER = 8
"""Characters of a number that is written out; a longer one is a fraction, such as 8/255."""

POINTER = "    `irt analyze {} --help` lists its settings."
"""What is said of an analysis of an installed package."""


def add_options(listing: str) -> Callable[[Function], Function]:
    """Return a decorator that adds a list of options to the docstring of a function."""

    def decorate(function: Function) -> Function:
        function.__doc__ = f"{inspect.getdoc(function) or ''}\n\n{listing}\n"
        return function

    return decorate


def describe_settings() -> str:
    """Return the questions, each with its settings: name, default, and what it means.

    An analysis of an installed package is named without its settings, since they are known only once it is imported.
    """
    own_names = analyses.own_names()
    parts = ["Questions, and the settings of each with their defaults:"]
    for name in analyses.list_names():
        title = textwrap.fill(f"{name}: {analyses.about(name)}", WIDTH)
        lines = map(_setting, read_options(name).settings) if name in own_names else [POINTER.format(name)]
        parts.append(_listing(title, lines))
    return "\n\n".join(parts)


def describe_recipe_fields(dataset: str) -> str:
    """Return the fields of a recipe, with their values in the recipe of a dataset and what each means."""
    recipe = find_recipe(None, dataset)
    lines = (_line(name, getattr(recipe, name), meaning) for name, meaning in list_meanings().items())
    return _listing(f"Fields of the recipe, with their values for {dataset}:", lines)


def describe_card_fields() -> str:
    """Return the fields of a card but for the model itself, with what each means."""
    defaults: Mapping[str, Any] = {field.name: field.default for field in fields(Card)}
    _, _, section = (inspect.getdoc(Card) or "").partition("Attributes:")
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, flags=re.MULTILINE)
    lines = (_line(name, defaults[name], " ".join(text.split())) for name, text in entries if name != "model")
    return _listing("Fields of a card, for a model from elsewhere:", lines)


def _listing(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *lines])


def _setting(setting: Setting) -> str:
    meaning = re.sub(r"--(\w[\w-]*)", lambda option: option[1].replace("-", "_"), setting.help)
    choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
    return _line(setting.name, setting.default, meaning + choices)


def _line(name: str, default: Any, meaning: str) -> str:
    is_fraction = isinstance(default, float) and len(repr(default)) > LONGEST_NUMBER
    value = format_radius(default) if is_fraction else repr(default)
    return textwrap.fill(f"{name}={value}: {meaning}", WIDTH, initial_indent="    ", subsequent_indent="        ")
