"""Labels by the names of classes, where a model and its images number them differently."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import is_printable_label
from interpret_robust.core.files import check_present
from interpret_robust.datasets.base import Dataset, Split, number_classes

Outputs = Sequence[Sequence[str]]
"""The names that each output of a model has, such as a synset, a word and its synonyms."""


def renumber(data: Dataset, outputs: Outputs) -> Dataset | None:
    """Return a dataset with the labels that its classes have among a model's outputs, None where one is not there.

    Names are compared without case, underscores as spaces. A name that several outputs have finds none of them.

    Example:
        >>> renumber(Dataset("pets", None, test, ("cat", "dog")), [["dog"], ["cow"], ["cat"]]).class_names
        ('dog', 'cow', 'cat')
    """
    places = find(data.class_names, outputs)
    if None in places or len(set(places)) < len(places):
        return None
    labels = np.array(places, np.int64)
    own_names = dict(zip(places, data.class_names, strict=True))
    names = tuple(own_names.get(place) or name for place, name in enumerate(name_outputs(outputs)))
    if names == data.class_names:
        return data

    def change(split: Split) -> Split:
        return replace(split, labels=labels[split.labels])

    return data.change(change, names)


def find(names: Sequence[str], outputs: Outputs) -> list[int | None]:
    """Return the output that each name means, None for a name that no output or several have."""
    counts = Counter(key for output in outputs for key in {_key(name) for name in output})
    numbers = {_key(name): number for number, output in enumerate(outputs) for name in output}
    return [numbers.get(_key(name)) if counts[_key(name)] == 1 else None for name in names]


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def name_outputs(outputs: Outputs) -> tuple[str, ...]:
    """Return a name for each output: its first, with its number where other outputs begin with that name too.

    Example:
        >>> name_outputs([["crane", "n02012849"], ["crane", "n03126707"], ["dog"]])
        ('crane (0)', 'crane (1)', 'dog')
    """
    names = [output[0] for output in outputs]
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({place})" for place, name in enumerate(names))


def renumber_by_file(data: Dataset, path: Path) -> Dataset:
    """Return a dataset with its classes numbered as in a file; numbers that have no names get those of the file.

    Raises UserError where the file lacks a class.
    """
    outputs = read(path)
    if data.class_names == number_classes(len(data.class_names)) and len(data.class_names) <= len(outputs):
        return data.change(lambda split: split, name_outputs(outputs))
    result = renumber(data, outputs)
    if result is None:
        places = find(data.class_names, outputs)
        strange = [name for name, place in zip(data.class_names, places, strict=True) if place is None]
        problem = f"names no class '{strange[0]}', or several" if strange else "gives one number to two classes"
        raise UserError(
            f"{path} has {len(outputs)} classes and {problem}, and {data.name} has {len(data.class_names)} classes: "
            "each must be there once."
        )
    return result


def read(path: Path) -> list[list[str]]:
    """Return the names of a model's outputs in their order, from a file.

    It is JSON: a list of names; an object of names or lists of names by number, as `imagenet_class_index.json` has
    them; or an object of numbers by name. Or it is CSV without a header: a line `name`, or `number,name,...`.
    Raises UserError for anything else.
    """
    check_present(path, "file of class names", "give JSON, a list of names, or CSV, a line NUMBER,NAME")
    try:
        text = path.read_text(encoding="utf-8")
        outputs = parse(json.loads(text)) if path.suffix == ".json" else _parse_rows([*csv.reader(text.splitlines())])
    except (OSError, ValueError, TypeError, AttributeError, IndexError, csv.Error, RecursionError):
        outputs = []
    if not outputs or not all(output and all(map(is_printable_label, output)) for output in outputs):
        raise UserError(
            f"{path} does not name the classes of a model's outputs: give JSON, a list of names or an object of names "
            "by number from 0 on, or CSV, a line NUMBER,NAME for each."
        )
    return outputs


def parse(content: Any) -> list[list[str]]:
    """Return the names of outputs in their order, from a list of them or a mapping from or to numbers.

    Raises ValueError, TypeError or AttributeError for anything else.

    Example:
        >>> parse({"dog": 1, "cat": 0}), parse({"0": "cat", "1": "dog"})
        ([['cat'], ['dog']], [['cat'], ['dog']])
    """
    if isinstance(content, list):
        return [_names(item) for item in content]
    if all(type(value) is int for value in content.values()):
        return _sort_by_number([(number, [name]) for name, number in content.items()])
    return _sort_by_number([(int(number), _names(item)) for number, item in content.items()])


def _parse_rows(rows: list[list[str]]) -> list[list[str]]:
    rows = [[cell.strip() for cell in row] for row in rows if row]
    if all(len(row) == 1 for row in rows):
        return rows
    return _sort_by_number([(int(row[0]), row[1:]) for row in rows])


def _names(item: Any) -> list[str]:
    names = [item] if isinstance(item, str) else item
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise TypeError(item)
    return names


def _sort_by_number(pairs: list[tuple[int, list[str]]]) -> list[list[str]]:
    """Return names in the order of their numbers. Raises ValueError unless these are 0, 1, 2 and so on."""
    if sorted(number for number, _ in pairs) != list(range(len(pairs))):
        raise ValueError(pairs)
    return [names for _, names in sorted(pairs)]
