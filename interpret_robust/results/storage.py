"""How values lie in a file: their types, compression, the scales of their axes, texts."""

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.results.columns import TRUTH, Axes, Places
from interpret_robust.results.schema import PROVENANCE, Column, Schema

_COMPRESS_ABOVE = 4096
_CHUNK_BYTES = 64 * 1024


def choose_chunks(source: h5py.Dataset) -> dict[str, Any]:
    """Return how a column is stored in a finished file, as h5py takes it: in compressed chunks, unless tiny."""
    if source.nbytes <= _COMPRESS_ABOVE:
        return {"fillvalue": source.fillvalue}
    rows = max(1, _CHUNK_BYTES * len(source) // source.nbytes)
    chunks = (min(len(source), rows), *source.shape[1:])
    return {
        "fillvalue": source.fillvalue,
        "chunks": chunks,
        "compression": "gzip",
        "compression_opts": 4,
        "shuffle": True,
    }


FILL: dict[str, float] = {"f": np.nan, "i": -1, "u": 255, "b": False}
"""What a row that was never written holds."""


def name_axes(file: h5py.File, schema: Schema, axes: Axes) -> None:
    """Say what each dataset means, and give each of its axes the scale of that name at the root."""
    scales: dict[str, h5py.Dataset] = {}
    for column, names in schema.columns():
        dataset = file[column.path]
        dataset.attrs["long_name"] = column.doc
        mark_truth(dataset, column)
        for place, (axis, length) in enumerate(zip(names, dataset.shape, strict=True)):
            if axis not in scales:
                places = schema.names(axis) or axes.get(axis, length)
                scales[axis] = file.create_dataset(axis, **_scale(places))
                scales[axis].make_scale(axis)
            if len(scales[axis]) != length:
                raise ValueError(f"{column.path} has {length} places along {axis}, others have {len(scales[axis])}")
            attach(dataset, place, scales[axis], axis)


def mark_truth(dataset: h5py.Dataset, column: Column) -> None:
    """Note of a dataset of truth values that it is one."""
    if np.dtype(column.dtype) == np.bool_:
        dataset.attrs.__setitem__(*TRUTH)


def attach(dataset: h5py.Dataset, place: int, scale: h5py.Dataset, axis: str) -> None:
    """Give an axis of a dataset its name and its scale."""
    dimension = dataset.dims[place]
    dimension.label = axis
    dimension.attach_scale(scale)


def as_stored(values: AnyArray, column: Column) -> AnyArray:
    """Return values in the type of the file, where it is not the column's: to the precision of the column's."""
    return values if column.file_type == column.dtype else np.asarray(values, column.dtype).astype(column.file_type)


def _scale(places: Places) -> dict[str, Any]:
    """Return what an axis's scale is made of: numbers, or names of fixed length."""
    if isinstance(places, int):
        return {"data": np.arange(places, dtype="i4")}
    if places and isinstance(places[0], int):
        return {"data": np.array(places, "i4")}
    names = [str(place).encode() for place in places]
    kind = h5py.string_dtype("utf-8", max([1, *map(len, names)]))
    return {"data": np.array(names, kind), "dtype": kind}


def place_count(places: Places) -> int:
    """Return how long an axis is."""
    return places if isinstance(places, int) else len(places)


def write_json(file: h5py.File, name: str, value: Mapping[str, Any]) -> None:
    """Write a text of fixed length: one of variable length lies in a heap, where a damaged byte makes HDF5 hang."""
    text = json.dumps(value, indent=1, sort_keys=True).encode()
    file.create_dataset(f"{PROVENANCE}/{name}", data=text, dtype=h5py.string_dtype("utf-8", len(text)))
