"""Whether a file is what its analysis says it writes, dataset by dataset: `irt validate`."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import h5py
import numpy as np

from interpret_robust import analyses
from interpret_robust.core.errors import UserError, reason_in_brackets
from interpret_robust.results import hdf5
from interpret_robust.results.schema import Column, Schema
from interpret_robust.results.view import View


def list_problems(path: Path) -> list[str]:
    """Return what is wrong with an analysis file, a sentence each; nothing where it is good.

    A file is good where it can be read (its checksum holds) and has every dataset of its schema with that type
    and those axes, and the groups' attributes. Datasets beyond the schema are ignored.
    """
    try:
        result = hdf5.read(path)
        name = result.analysis
        if name not in analyses.list_names():
            return [f"{path} holds {result.schema}, which no analysis of this irt writes."]
        schema: Schema = analyses.get(name).schema
        if result.schema not in schema.readable:
            hdf5.read(path, schema.readable)  # says what to do with another version
        schema = schema.restrict(result.version)
        with h5py.File(path) as file:
            return [f"{path}: {problem}." for problem in _problems(View(file), schema)]
    except UserError as error:
        return [str(error)]
    except hdf5.UNREADABLE as error:
        return [f"{path} is damaged ({reason_in_brackets(error)}): run its analysis again with --overwrite."]


def _problems(file: View, schema: Schema) -> Iterator[str]:
    for column, axes in schema.columns():
        if isinstance(file.get(column.path), h5py.Dataset):
            yield from _check_column(file, column, axes)
        else:
            yield f"{column.path} is missing"
    for axis in dict.fromkeys(axis for _, axes in schema.columns() for axis in axes):
        names = schema.names(axis)
        if names is not None and axis in file and tuple(file[axis].asstr()[()]) != names:
            yield f"the places of {axis} are not {', '.join(names)}"
    yield from _check_groups(file, schema)


def _check_column(file: View, column: Column, axes: tuple[str, ...]) -> Iterator[str]:
    dataset = file[column.path]
    expected = np.dtype(column.dtype if file.format_version == 1 else column.file_type)
    if dataset.dtype != expected:
        yield f"{column.path} is of type {dataset.dtype}, not {expected}"
    labels = file.axes(dataset)
    if labels != axes:
        yield f"{column.path} has the axes {labels}, not {axes}"
        return
    for scales, axis, length in zip_longest(file.scales(dataset), axes, dataset.shape):
        scale = file.get(axis)
        if scale is None or not scale.is_scale or scales != [scale]:
            yield f"{column.path} has no scale for its axis {axis}"
        elif len(scale) != length:
            yield f"{column.path} has {length} places along {axis}, and its scale {len(scale)}"


def _check_groups(file: View, schema: Schema) -> Iterator[str]:
    for group, attributes in schema.groups.items():
        if group not in file:
            continue  # its columns are missing, and said to be
        for key, value in attributes.items():
            names = file.attribute(group, key)
            if names != value:
                yield f"{group} has {key} '{names}', not '{value}'"
        links = [attributes.get("signal", ""), *attributes.get("axes", "").split(":")]
        for name in filter(None, links):
            if f"{group}/{name}" not in file:
                yield f"{group} has no {name}, which its plot needs"
    default = file.attribute("/", "default")
    if schema.groups and default != next(iter(schema.groups)):
        yield f"its default plot is '{default}', not '{next(iter(schema.groups))}'"
