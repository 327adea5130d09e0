"""Read columns of an open file, text and truth values as such however they are stored."""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from interpret_robust.core.arrays import AnyArray

TRUTH = "dtype", "bool"
"""The attribute, which xarray knows, of a dataset of truth values: their type is `u1`."""

Places = int | tuple[str, ...] | tuple[int, ...]
"""The length of an axis, or the names of its places, or the numbers that they stand for."""

Axes = Mapping[str, Places]


class Columns:
    """Per-image columns by path, read when they are asked for. The source may be a file or a dict of arrays."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getitem__(self, path: str) -> AnyArray:
        return read_part(self._source[path], ...)

    def rows_at(self, path: str, indices: AnyArray) -> AnyArray:
        """Return the rows of a column at `indices` (M,), in their order; no other row is read."""
        rows, places = np.unique(indices, return_inverse=True)
        return read_part(self._source[path], rows)[places]


def read_part(dataset: Any, part: Any) -> AnyArray:
    """Return part of a dataset or array, with text and truth values as such however they are stored."""
    if not isinstance(dataset, h5py.Dataset):
        return np.asarray(dataset[part])
    if dataset.dtype.kind in "OS":
        return np.asarray(dataset.asstr()[part])
    name, kind = TRUTH
    values: AnyArray = np.asarray(dataset[part])
    return values.astype(np.bool_) if dataset.attrs.get(name) == kind else values
