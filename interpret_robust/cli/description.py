"""What a file of ours holds, as text, without torch: `irt show`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust.core.configs import lines
from interpret_robust.core.errors import UserError
from interpret_robust.models import checkpoint_file
from interpret_robust.results import hdf5
from interpret_robust.results.tables import render

INTERVAL = 3
"""Numbers of an interval: value, low, high."""


def describe(path: Path) -> str:
    """Return contents and origin of a checkpoint (.safetensors) or an analysis (.h5), after checking its checksum.

    Raises UserError for a file that is missing, damaged or of another kind.
    """
    if path.suffix == ".safetensors":
        return _describe_checkpoint(path)
    if path.suffix == ".h5":
        return _describe_analysis(path)
    raise UserError(f"{path} is neither a checkpoint (.safetensors) nor an analysis (.h5).")


def _describe_checkpoint(path: Path) -> str:
    content = checkpoint_file.read(path)
    metadata = dict(content.about)
    history = metadata.pop("history")
    numbers = sum(math.prod(tensor.shape) for tensor in content.tensors.values())
    rows = [{key: _short(value) for key, value in epoch.items()} for epoch in history]
    return "\n\n".join(
        [
            f"{path}: {len(content.tensors)} tensors, {numbers} numbers, checksum good",
            lines(metadata),
            render(rows) if rows else "no epoch is finished yet",
        ]
    )


def _describe_analysis(path: Path) -> str:
    result = hdf5.read(path)
    rows = [{"dataset": name, "type": kind, "meaning": meaning} for name, kind, meaning in hdf5.tree(path)]
    numbers = [row for name, shape in _statistics(path) for row in _values(result, name, shape)]
    return "\n\n".join(
        [
            f"{path}: {result.schema}, {result.count} images, checksum good",
            lines(hdf5.provenance(path)),
            render(rows),
            render(numbers),
        ]
    )


MOST_VALUES = 24
"""Intervals of one statistic that are shown; one of more of them is a curve or a matrix, for a table or a figure."""


def _statistics(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Return the paths of a file's statistics that are few numbers, or numbers with intervals, with their shapes."""
    shapes = {
        name: () if shape == "scalar" else tuple(map(int, shape.split("x")))
        for name, kind, _ in hdf5.tree(path)
        for dtype, shape in [kind.split(" ")]
        if dtype != "text" and "/" in name and not name.startswith("per_image/")
    }
    return [
        (name, shape)
        for name, shape in shapes.items()
        if not shape or (shape[-1] == INTERVAL and math.prod(shape) <= INTERVAL * MOST_VALUES)
    ]


def _values(result: hdf5.Result, name: str, shape: tuple[int, ...]) -> Iterator[dict[str, str]]:
    """Yield a row a number or interval of a statistic, its place by the names of its axes; nothing for a curve."""
    values, axes = result[name], result.axes(name)
    places = [result[axis] for axis in axes[:-1]]
    if shape and (axes[-1] != "of" or any(names.dtype.kind not in "OU" for names in places)):
        return
    for place in np.ndindex(shape[:-1]):
        names = [str(axis[index]) for axis, index in zip(places, place, strict=True)]
        yield {"statistic": f"{name}[{', '.join(names)}]" if names else name, "value": _short(values[place])}


def _short(value: Any) -> str:
    return " ".join(f"{number:.4g}" for number in np.atleast_1d(value))
