"""Write the HDF5 file of an analysis: rows that grow batch by batch, joined, finished and sealed.

Rows grow in `NAME.h5.partial`, flushed after each batch; when all are there, the file itself is written from them
and put in place in one step. A stopped run goes on after its last whole batch if its configuration is the same.

Several processes each write a part, `NAME.h5.partial.FIRST`, of the images that they look at, FIRST being the first of
them. Parts are joined when all rows are there; what a stopped run left of them counts, however many processes go on.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import describe_differences, hash_config
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import put_in_place
from interpret_robust.core.locks import do_if_free
from interpret_robust.core.spelling import translate_config
from interpret_robust.results import run_doubts, seal
from interpret_robust.results.checksums import hash_content, hash_provenance, list_slices
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import FORMAT, FORMAT_VERSION, UNREADABLE, read
from interpret_robust.results.row_batches import (
    CHECKSUMS,
    ENDS,
    PLACES,
    count_batches,
    count_good_rows,
    cut,
    hash_batch,
    is_intact,
    is_of,
    list_parts,
)
from interpret_robust.results.schema import PROVENANCE, Column, Schema
from interpret_robust.results.storage import (
    FILL,
    as_stored,
    attach,
    choose_chunks,
    mark_truth,
    name_axes,
    place_count,
    write_json,
)

RUN = "run_json"

JOINED_BATCH = 250
"""Rows a checksum, where rows of several processes were joined."""

_ROOM_FOR_THE_REST = 1024 * 1024
"""Bytes for statistics, provenance and the file's own structure."""


class Rows:
    """A file that grows: `append` rows batch by batch, then `finish` with the statistics."""

    def __init__(self, file: h5py.File, path: Path, schema: Schema, axes: Axes) -> None:
        self._file, self.path, self.schema, self.axes = file, path, schema, axes

    @property
    def row_count(self) -> int:
        """Return how many rows are whole on the disk."""
        return int(self._file[ENDS][...].max(initial=0))

    def append(self, rows: Mapping[str, AnyArray]) -> None:
        """Write the next rows of every per-image column. Raises ValueError where columns or shapes differ."""
        _require(rows.keys(), self.schema.per_image)
        counts = {len(values) for values in rows.values()}
        if len(counts) != 1:
            raise ValueError(f"columns have different numbers of rows: {sorted(counts)}")
        start, stop = self.row_count, self.row_count + counts.pop()
        datasets = {path: self._file[path] for path in rows}
        for path, values in rows.items():
            shape = datasets[path].shape[1:]
            if values.shape[1:] != shape:  # HDF5 would repeat values to fill the row
                raise ValueError(f"{path} has rows of {shape}, not {values.shape[1:]}")
        for column in self.schema.per_image:
            datasets[column.path][start:stop] = as_stored(rows[column.path], column)
        batch = count_batches(self._file)
        self._file[CHECKSUMS][batch] = hash_batch(self._file, self.schema, start, stop)
        self._file.flush()
        self._file[ENDS][batch] = stop
        self._file.flush()

    @property
    def partial(self) -> Path:
        """Return where the rows are as they grow."""
        return Path(self._file.filename)

    @property
    def run(self) -> dict[str, Any]:
        """Return what was known of the run as it began; nothing where an older version began it."""
        place = f"{PROVENANCE}/{RUN}"
        run: dict[str, Any] = json.loads(self._file[place].asstr()[()]) if place in self._file else {}
        return run

    def note_doubts(self, doubts: Iterable[str]) -> None:
        """Keep what is doubtful about the rows, for whoever goes on with them."""
        run_doubts.write(self._file, doubts)

    def list_doubts(self) -> list[str]:
        """Return what was noted as doubtful, here and in the parts."""
        doubts = run_doubts.read(self._file)
        for path in self._good_parts():
            with h5py.File(path, "r") as part:
                doubts += run_doubts.read(part)
        return doubts

    def columns(self) -> Columns:
        """Return the per-image columns."""
        return Columns(self._file)

    def missing_images(self) -> AnyArray:
        """Return which images have no row yet, here or in a part: their indices, ascending."""
        indices = [np.arange(self.row_count)]
        for path in self._good_parts():
            with h5py.File(path, "r") as part:
                indices.append(part[PLACES][: count_good_rows(part, self.schema)])
        return np.setdiff1d(np.arange(self._length), np.concatenate(indices))

    def join(self) -> None:
        """Take the rows of all parts, which together with those here must be all there are, and remove the parts."""
        if count := len(self.missing_images()):
            raise ValueError(f"{self.path} lacks the rows of {count} images")
        parts = self._good_parts()
        if not parts:
            return
        for path in parts:
            with h5py.File(path, "r") as part:
                self._take(part)
        self._note_whole()
        for path in parts:
            path.unlink()

    def _note_whole(self) -> None:
        """Note that all rows are there, in batches of their own."""
        ends = [*range(JOINED_BATCH, self._length, JOINED_BATCH), self._length]
        self._file[ENDS][...] = 0
        for batch, (start, stop) in enumerate(pairwise([0, *ends])):
            self._file[CHECKSUMS][batch] = hash_batch(self._file, self.schema, start, stop)
            self._file[ENDS][batch] = stop
        self._file.flush()

    def _take(self, part: h5py.File) -> None:
        for run in _runs(part[PLACES][: count_good_rows(part, self.schema)]):
            places = part[PLACES][run]
            for column in self.schema.per_image:
                self._file[column.path][places[0] : places[-1] + 1] = part[column.path][run]

    @property
    def _length(self) -> int:
        return len(self._file[ENDS])

    def _good_parts(self) -> list[Path]:
        """Return the parts of this configuration's run. Others, and those that a kill left unreadable, are removed."""
        parts = []
        for path in sorted(list_parts(self.path)):
            if is_of(path, str(self._file.attrs["config_sha256"])) and is_intact(path, self.schema):
                parts.append(path)
            else:
                path.unlink()
        return parts

    def finish(self, summary: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Write the file itself, compressed and with the statistics, and remove the partial one."""
        _require(summary.keys(), self.schema.summary)
        partial = self.partial
        whole = self.path.with_name(self.path.name + ".whole.partial")
        _check_room(whole, partial.stat().st_size)
        try:
            with h5py.File(whole, "w") as file:
                self._copy(file)
                self._summarize(file, summary)
                write_json(file, RUN, run)
                file.attrs["complete"], file.attrs["n_done"] = np.uint8(1), self.row_count
                file.attrs["content_sha256"] = hash_content(file)
                file.attrs["provenance_sha256"] = hash_provenance(file)
                file.attrs["created_utc"] = datetime.now(UTC).isoformat(timespec="seconds")
            seal.append(whole)
            put_in_place(whole, self.path)
        finally:
            whole.unlink(missing_ok=True)
        self._file.close()
        partial.unlink(missing_ok=True)

    def _copy(self, file: h5py.File) -> None:
        """Copy attributes, provenance and rows of the partial file, the rows a chunk at a time."""
        file.attrs.update(self._file.attrs)
        for name in self._file[PROVENANCE]:
            if name != RUN:  # that of the beginning
                self._file.copy(f"{PROVENANCE}/{name}", file.require_group(PROVENANCE))
        for column in self.schema.per_image:
            source = self._file[column.path]
            target = file.create_dataset(column.path, source.shape, source.dtype, **choose_chunks(source))
            for part in list_slices(source):
                target[part] = source[part]

    def _summarize(self, file: h5py.File, summary: Mapping[str, Any]) -> None:
        for column in self.schema.summary:
            file.create_dataset(column.path, data=as_stored(np.asarray(summary[column.path], column.dtype), column))
        name_axes(file, self.schema, self.axes)
        for group, attributes in self.schema.groups.items():
            axes = [axis for axis in attributes.get("axes", "").split(":") if axis]
            file[group].attrs.update(attributes)
            if len(axes) > 1:
                file[group].attrs["axes"] = axes  # viewers of today do not take several names in one text
            for axis in axes:  # a copy: readers that visit each object once find a shared one in one place only
                file[group].create_dataset(axis, data=file[axis], dtype=file[axis].dtype)
                attach(file[group][axis], 0, file[axis], axis)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file:  # finished
            return
        partial, is_empty = self.partial, self.row_count == 0
        self._file.close()
        if is_empty and not any(list_parts(self.path)):
            partial.unlink(missing_ok=True)


def open_rows(
    path: Path,
    schema: Schema,
    count: int,
    axes: Axes,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    run: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    is_outdated: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> Rows:
    """Start the file of an analysis over `count` images, or go on with its unfinished `.partial`.

    The caller holds the lock of `path`, see `core.locks`, until the rows are closed.

    Args:
        path: the file's final name.
        schema: what it holds.
        count: number of images.
        axes: the places of each axis that the per-image columns name.
        config: everything that decides the numbers; a partial file of another config is an error.
        environment: versions and machine, stored as they are.
        run: what is known of the run as it begins, for whoever goes on, see `Rows.run`.
        overwrite: discard a partial file of another config.
        is_outdated: whether a partial file of that config may be discarded without being asked to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = name_partial(path)
    if partial.exists():
        file_there = _reopen(partial, schema, config, is_outdated, overwrite=overwrite)
        if file_there is not None:
            return Rows(file_there, path, schema, axes)
    for leftover in (partial, *list_parts(path)):
        leftover.unlink(missing_ok=True)
    file = _create(partial, schema, count, axes, config)
    write_json(file, "environment_json", environment)
    write_json(file, RUN, run or {})
    return Rows(_seal_new(partial, file, schema), path, schema, axes)


def name_partial(path: Path) -> Path:
    """Return where the rows lie while the file at `path` is not finished."""
    return path.with_name(f"{path.name}.partial")


def open_part(path: Path, schema: Schema, places: AnyArray, axes: Axes, config: Mapping[str, Any]) -> Rows:
    """Start the part of the file at `path` that holds the rows of the images at `places` (M,), in their order.

    The file itself is open on rank 0, see `open_rows`, whose `missing_images` names images that are in no other part.
    """
    partial = path.with_name(f"{path.name}.partial.{places[0]}")
    file = _create(partial, schema, len(places), axes, config)
    file.create_dataset(PLACES, data=places)
    return Rows(_seal_new(partial, file, schema), path, schema, axes)


def _create(partial: Path, schema: Schema, count: int, axes: Axes, config: Mapping[str, Any]) -> h5py.File:
    """Return a file for `count` rows, none of them written."""
    shapes = {
        column.path: (count, *(place_count(schema.names(axis) or axes[axis]) for axis in column.axes))
        for column in schema.per_image
    }
    room = sum(np.dtype(column.file_type).itemsize * math.prod(shapes[column.path]) for column in schema.per_image)
    _check_room(partial, room)
    file = h5py.File(partial, "w", userblock_size=seal.BLOCK)
    file.attrs.update(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "schema": schema.label,
            "complete": np.uint8(0),
            "n_done": 0,
            "config_sha256": hash_config(config),
            "NX_class": "NXroot",
        }
    )
    if schema.groups:
        file.attrs["default"] = next(iter(schema.groups))
    write_json(file, "config_json", config)
    # Rows lie flat, with all their room taken at once: a kill between two writes then cannot damage rows that
    # are there, as it can where HDF5 moves compressed chunks about.
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    for column in schema.per_image:
        fill = FILL[np.dtype(column.dtype).kind]
        shape = shapes[column.path]
        dataset = file.create_dataset(column.path, shape, column.file_type, fillvalue=fill, dcpl=early.copy())
        mark_truth(dataset, column)
    file.create_dataset(ENDS, (count,), "i8", fillvalue=0, dcpl=early.copy())
    file.create_dataset(CHECKSUMS, (count, hashlib.sha256().digest_size), "u1", fillvalue=0, dcpl=early.copy())
    run_doubts.add_room(file, early.copy())
    return file


def _seal_new(path: Path, file: h5py.File, schema: Schema) -> h5py.File:
    """Return a new file, sealed and open again to take rows."""
    names = (ENDS, CHECKSUMS, run_doubts.DOUBTS, *(column.path for column in schema.per_image))
    datasets = [file[name].id for name in names]
    rows = [(dataset.get_offset(), dataset.get_storage_size()) for dataset in datasets if dataset.get_storage_size()]
    file.close()
    seal.write_block(path, rows)
    return h5py.File(path, "r+")


def is_finished(path: Path, schema: Schema, config: Mapping[str, Any], *, overwrite: bool = False) -> bool:
    """Return whether `path` holds a finished file of this configuration.

    Raises UserError where it holds another configuration, unless it may be overwritten.
    """
    if not path.exists() or overwrite:
        return False
    stored_config = read(path, schema.label).config
    if hash_config(_without_paths(stored_config)) == hash_config(_without_paths(config)):
        do_if_free(path, lambda: _remove_leftovers(path, config))
        return True
    difference = describe_differences(stored_config, config)
    if _has_other_weights(stored_config, config):
        raise UserError(
            f"{path} is the answer of another model than the one that has its name now ({difference}): if the "
            "checkpoint was put there by mistake, put the right one in its place; else --overwrite asks the new one."
        )
    raise UserError(
        f"{path} holds another configuration ({difference}): use another --root, or --overwrite to replace it."
    )


def _has_other_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two configurations are of models of one name, but not of one content."""
    models = [config.get("checkpoint", {}) for config in (first, second)]
    return len({model.get("name") for model in models}) == 1 and len({model.get("sha256") for model in models}) == 2


def _without_paths(config: Any) -> Any:
    """Return a configuration as JSON has it, without the paths of files of weights, of which it has checksums."""
    if isinstance(config, Mapping):
        entries = {name: _without_paths(value) for name, value in config.items()}
        if isinstance(card := entries.get("card"), dict) and card.get("weights") not in (None, "pretrained", "random"):
            entries["card"] = {**card, "weights": "a file"}
        return entries
    return [_without_paths(item) for item in config] if isinstance(config, list | tuple) else config


def _remove_leftovers(path: Path, config: Mapping[str, Any]) -> None:
    """Remove what a kill left of the same configuration's run, after the file itself was put in place."""
    for leftover in (name_partial(path), *list_parts(path)):
        with suppress(UserError):
            if is_of(leftover, hash_config(config)):
                leftover.unlink(missing_ok=True)


def _runs(places: AnyArray) -> Iterator[slice]:
    """Return the stretches of ascending indices in which each is one more than the last."""
    ends = [0, *(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    return (slice(start, stop) for start, stop in pairwise(ends) if stop > start)


def _reopen(
    partial: Path,
    schema: Schema,
    config: Mapping[str, Any],
    is_outdated: Callable[[dict[str, Any]], bool],
    *,
    overwrite: bool,
) -> h5py.File | None:
    """Return the partial file, ready to go on.

    None where it is to be discarded, as one that a kill left unreadable is.
    """
    if not seal.block_holds(partial):
        return None
    try:
        file = h5py.File(partial, "r+")
    except BlockingIOError:
        raise UserError(f"{partial} is being written by another process: wait until it ends.") from None
    except UNREADABLE:
        return None
    stored_config = json.loads(file[f"{PROVENANCE}/config_json"].asstr()[()])
    is_same = hash_config(stored_config) == hash_config(config) and file.attrs["schema"] == schema.label
    if is_same and not overwrite and file.attrs["format_version"] == FORMAT_VERSION:
        cut(file, count_good_rows(file, schema))
        return file
    file.close()
    has_old_names = hash_config(translate_config(stored_config)) == hash_config(config)
    if is_same or overwrite or has_old_names or is_outdated(stored_config):
        return None
    raise UserError(
        f"{partial} is an unfinished analysis of another configuration "
        f"({describe_differences(stored_config, config)}): use --overwrite to discard it."
    )


def _require(names: Any, columns: tuple[Column, ...]) -> None:
    expected = {column.path for column in columns}
    if set(names) != expected:
        raise ValueError(f"columns differ from the schema: {sorted(set(names) ^ expected)}")


def _check_room(path: Path, content: int) -> None:
    """Raise OSError unless the disk has room for a file of `content` bytes at `path`, where the system can tell.

    HDF5 does not survive a disk that fills up under an open file, so it has to be told before.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, content + content // 20 + _ROOM_FOR_THE_REST)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        path.unlink(missing_ok=True)
