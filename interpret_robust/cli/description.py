"""What a file of ours holds, as text, without torch: `irt show`."""

import math
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from interpret_robust.core.configs import lines
from interpret_robust.core.errors import UserError
from interpret_robust.core.parsing import format_count
from interpret_robust.models import checkpoint_file
from interpret_robust.results import hdf5
from interpret_robust.results.export import PICTURE_AXES
from interpret_robust.results.schema import INTERVAL
from interpret_robust.results.tables import render, terminal_width


def describe(path: Path) -> str:
    """Return contents and origin of a checkpoint (.safetensors) or an analysis (.h5), after checking its checksum.

    Raises UserError for a file that is missing, damaged or of another kind.
    """
    if path.suffix == ".safetensors":
        return _describe_checkpoint(path)
    if path.suffix == ".h5":
        return _describe_analysis(path)
    raise UserError(f"{path} is neither a checkpoint (.safetensors) nor an analysis (.h5): give one of these.")


def _describe_checkpoint(path: Path) -> str:
    content = checkpoint_file.read(path)
    metadata = dict(content.about)
    history = metadata.pop("history")
    numbers = sum(math.prod(tensor.shape) for tensor in content.tensors.values())
    rows = [{key: _short(value) for key, value in epoch.items()} for epoch in history]
    return "\n\n".join(
        [
            _fit(f"{path}: {len(content.tensors)} tensors, {numbers} numbers, checksum good"),
            _fit(lines(metadata)),
            render(rows) if rows else "no epoch is finished yet",
        ]
    )


def _describe_analysis(path: Path) -> str:
    result = hdf5.read(path)
    rows = [{"dataset": name, "type": kind, "meaning": meaning} for name, kind, meaning in hdf5.tree(path)]
    names = [row["dataset"] for row in rows if "/" in row["dataset"] and not row["type"].startswith("text")]
    numbers = [row for name in names if not name.startswith("per_image/") for row in _statistic(result, name)]
    return "\n\n".join(
        [
            _fit(f"{path}: {result.schema}, {format_count(result.count, 'image')}, checksum good"),
            _fit(lines(hdf5.provenance(path))),
            render(rows),
            render(numbers),
        ]
    )


def describe_image(path: Path, row: int) -> str:
    """Return what an analysis says of one image: a line a number with its place along further axes, or, where there are
    more than MOST_VALUES, all in one line.

    Pictures are left out. Raises UserError for a file that is no analysis, and for a row that it does not have.
    """
    if path.suffix != ".h5":
        raise UserError(f"{path} is no analysis (.h5), and holds no numbers of single images.")
    result = hdf5.read(path)
    if row >= result.count:
        raise UserError(f"there is no image {row} in {path}: it has {result.count}, from 0 on.")
    names = [name for name, _, _ in hdf5.tree(path) if name.startswith("per_image/")]
    lines = [f"{path}: {result.schema}, image {row} of {result.count}, checksum good"]
    for name in names:
        axes, short = result.axes(name)[1:], name.removeprefix("per_image/")
        if set(axes) & set(PICTURE_AXES):
            continue
        values = result.first(name, row + 1)[row]
        if not axes or values.size > MOST_VALUES:
            place_names = f"[{', '.join(axes)}]" if axes else ""
            lines.append(f"{short}{place_names}: {' '.join(map(str, np.ravel(values)))}")
            continue
        places = [result[axis] for axis in axes]
        for place in np.ndindex(values.shape):
            words = ", ".join(str(axis[index]) for axis, index in zip(places, place, strict=True))
            lines.append(f"{short}[{words}]: {values[place]!s}")
    return "\n".join(map(_fit, lines))


def _fit(text: str) -> str:
    """Return lines broken where they are wider than the terminal: between words, in one that is wider by itself."""
    width = terminal_width()
    return "\n".join(fill(line, width, subsequent_indent="    ", break_on_hyphens=False) for line in text.split("\n"))


MOST_VALUES = 24
"""Intervals of one statistic that are shown; one of more of them is a curve or a matrix, for a table or a figure."""


def _statistic(result: hdf5.Result, name: str) -> Iterator[dict[str, str]]:
    """Yield a row for a number, or for each interval with its place by the names of its axes; nothing for a curve."""
    *axes, last = result.axes(name) or ("of",)
    places = [result[axis] for axis in axes]
    if last != "of" or any(names.dtype.kind not in "OU" for names in places):
        return
    values = result[name]
    if values.size > MOST_VALUES * len(INTERVAL):
        return
    for place in np.ndindex(*map(len, places)):
        names = [str(axis[index]) for axis, index in zip(places, place, strict=True)]
        yield {"statistic": f"{name}[{', '.join(names)}]" if names else name, "value": _short(values[place])}


def _short(value: Any) -> str:
    return " ".join(f"{number:.4g}" for number in np.atleast_1d(value))
