"""What a file of one analysis holds, as data: writer, validator, reader and the format page all go by it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

INTERVAL = ("value", "low", "high")

PROVENANCE = "provenance"
"""The group of the texts that say where every number comes from."""


@dataclass(frozen=True)
class Column:
    """One dataset of a file: its path, NumPy type, meaning, and its axes after the first, by name.

    `version` is that of the schema in which it came.

    Example:
        >>> ir.Column("per_image/attention", "f4", "weight of each position", ("position",)).axes
        ('position',)
    """

    path: str
    dtype: str
    doc: str
    axes: tuple[str, ...] = ()
    version: int = 1

    @property
    def file_type(self) -> str:
        """Return the NumPy type in a file: `f4` for half precision and `u1` for truth, which netCDF4 does not have."""
        return {np.dtype("f2"): "f4", np.dtype("bool"): "u1"}.get(np.dtype(self.dtype), self.dtype)


@dataclass(frozen=True)
class Schema:
    """What a file of one analysis holds. `per_image` has a leading axis `sample`, the image; `summary` has none.

    Attributes:
        name, version: a changed set of columns is a new version.
        oldest: the oldest version whose files are still read, with the columns of their time; None for this one alone.
        groups: attributes of groups, such as the NXdata signal that a viewer should plot. The first is the
            file's default plot.
        labels: for axes whose places have names, these names. The axis `of` is a value and its interval.

    Raises ValueError where a group, the first part of a column's path, is named as an axis.

    Example:
        >>> ir.Schema("mean", 1, (ir.Column("per_image/mean", "f4", "mean pixel"),), ()).label
        'mean/1'
    """

    name: str
    version: int
    per_image: tuple[Column, ...]
    summary: tuple[Column, ...]
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    oldest: int | None = None

    def __post_init__(self) -> None:
        axes = {axis for _, names in self.columns() for axis in names}
        groups = {column.path.partition("/")[0] for column, _ in self.columns()}
        if axes & groups:
            raise ValueError(f"{self.label} has groups that are named as axes: {sorted(axes & groups)}")

    @property
    def label(self) -> str:
        """Return text such as `attention-rank/1`."""
        return f"{self.name}/{self.version}"

    @property
    def readable(self) -> tuple[str, ...]:
        """Return the labels of all versions that are read, the newest first."""
        oldest = self.version if self.oldest is None else self.oldest
        return tuple(f"{self.name}/{version}" for version in range(self.version, oldest - 1, -1))

    def restrict(self, version: int) -> "Schema":
        """Return the schema as it was in an earlier version that is still read."""
        per_image, summary = (
            tuple(column for column in columns if column.version <= version)
            for columns in (self.per_image, self.summary)
        )
        return replace(self, version=version, per_image=per_image, summary=summary)

    def columns(self) -> Iterator[tuple[Column, tuple[str, ...]]]:
        """Yield every column with all its axes."""
        for column in self.per_image:
            yield column, ("sample", *column.axes)
        for column in self.summary:
            yield column, column.axes

    def names(self, axis: str) -> tuple[str, ...] | None:
        """Return the names of an axis's places, where the schema gives them."""
        return INTERVAL if axis == "of" else self.labels.get(axis)


def interval(path: str, doc: str, *axes: str) -> Column:
    """Return the column of a statistic and its 95 % interval: the last axis is (value, low, high)."""
    return Column(path, "f8", doc, (*axes, "of"))


def describe_plot(signal: str, axes: str, title: str) -> dict[str, str]:
    """Return the attributes of a group that a viewer plots: its dataset `signal` over `axes`, joined by colons.

    They are those of NeXus (https://manual.nexusformat.org/classes/base_classes/NXdata.html).

    Example:
        >>> describe_plot("pgd", "factor:of", "Accuracy against radius")["signal"]
        'pgd'
    """
    return {"NX_class": "NXdata", "signal": signal, "axes": axes, "title": title}
