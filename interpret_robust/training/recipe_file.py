"""A recipe of the user's own: fields of `Recipe` in a TOML file, on a preset or from nothing."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from interpret_robust.core.errors import UserError, take_first_line, unknown
from interpret_robust.core.files import check_present
from interpret_robust.core.parsing import parse_number
from interpret_robust.training.recipe import (
    CHOICES,
    KINDS,
    PRESETS,
    Recipe,
    change,
    choose_default_preset,
    choose_preset,
    fit_dataset,
    list_meanings,
    parse,
)

ENDING = ".toml"
REQUIRED_FIELDS = ("epochs", "batch_size", "learning_rate")
"""Fields that a file without `base` has to give."""


def find_recipe(
    recipe: str | Path | None, dataset: str, overrides: tuple[str, ...] = (), architecture: str = "small"
) -> Recipe:
    """Return the recipe of a name or a file, None for that of the dataset, with overrides of the form `field=value`.

    What a dataset forbids, such as mirrored digits, it forbids a file as well as a preset; overrides stand. Raises
    UserError for an unknown name, a bad file or a bad override.
    """
    start = find(choose_default_preset(dataset) if recipe is None else recipe, architecture)
    return change(fit_dataset(start, dataset), dict(map(parse, overrides)))


def find(recipe: str | Path, architecture: str = "small") -> Recipe:
    """Return the recipe of a preset's name, or of a file, for an architecture.

    Raises UserError for a name that no preset has, and for a bad file.

    Example:
        >>> find("quick").epochs, find("quick", "cnn").epochs
        (8, 10)
    """
    if Path(str(recipe)).suffix == ENDING:
        return read(Path(recipe), architecture)
    return choose_preset(str(recipe), architecture)


def read(path: Path, architecture: str = "small") -> Recipe:
    """Return the recipe of a file, whose name without the ending it has. On `base`, it is that for an architecture.

    Raises UserError where the file is missing or no TOML, for an unknown field or base, and for a value of the wrong
    kind or out of range.
    """
    check_present(path, "recipe", "`irt recipes quick --form toml` prints one to begin with")
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no TOML file ({take_first_line(error)}).") from None
    try:
        return _recipe(path.stem, entries, architecture)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _recipe(name: str, entries: dict[str, Any], architecture: str) -> Recipe:
    base = entries.pop("base", None)
    for field in entries:
        if field not in KINDS:
            raise unknown("recipe field", field, [*KINDS, "base"])
    values = {field: _value(field, value) for field, value in entries.items()}
    if base is None:
        if absent := [field for field in REQUIRED_FIELDS if field not in values]:
            raise UserError(f'{absent[0]} is missing: give it, or a preset to begin with, such as base = "quick".')
        start = Recipe(name, **{field: values[field] for field in REQUIRED_FIELDS})
    elif str(base) not in PRESETS:
        raise unknown("base", str(base), PRESETS)
    else:
        start = choose_preset(base, architecture)
    return replace(change(start, values), name=name)


def _value(field: str, value: Any) -> Any:
    """Return the value of a field as TOML has it; a number may be text, such as "8/255"."""
    kind = KINDS[field]
    if field in CHOICES:
        if isinstance(value, str):
            return value
        right = f"one of {', '.join(CHOICES[field])}, in quotes"
    elif kind is bool:
        if isinstance(value, bool):
            return value
        right = "true or false"
    elif kind is int:
        if type(value) is int:
            return value
        right = "a whole number, such as 4"
    else:
        right = 'a number, or a fraction in quotes, such as 0.5 or "8/255"'
        try:
            if type(value) in (int, float):
                return float(value)
            if isinstance(value, str):
                return parse_number(value)
        except (ValueError, OverflowError):  # the latter for a whole number beyond all floats
            pass
    raise UserError(f"{field} is {json.dumps(value, default=str)}: give {right}.")


def format_toml(recipe: Recipe) -> str:
    """Return a recipe as a file that `read` reads to the same numbers, each field behind its meaning."""
    head = (
        f"# {recipe.name}, as `irt train --recipe FILE.toml` takes it.\n"
        '# Below a line base = "quick", fields that are left out are those of that preset.\n'
    )
    entries = [
        f"{fill(meaning, 100, initial_indent='# ', subsequent_indent='# ')}\n{_line(field, getattr(recipe, field))}\n"
        for field, meaning in list_meanings().items()
    ]
    return "\n".join([head, *entries])


def _line(field: str, value: Any) -> str:
    """Return a field and its value in TOML, which has no null: a field that is not set is a comment."""
    if value is None:
        return f"# {field} = 0.995"
    parts = round(255 * value) if isinstance(value, float) else 0
    if field in FRACTIONS and parts / 255 == value and parts:
        return f'{field} = "{parts}/255"'
    return f"{field} = {json.dumps(value)}"


FRACTIONS = ("eps", "attack_step")
"""Fields that people write as steps of 255."""
