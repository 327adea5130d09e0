"""Parquet and Arrow files with an image column, as Hugging Face's `datasets` writes them.

Images are bytes, or structs of bytes and a path; labels are text, or whole numbers, whose names the metadata of
each file may tell in an order of its own. A column `mask` may hold images too: what is not 0 is the object. Needs
pyarrow.
"""

import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from interpret_robust.core.errors import UserError, take_first_line
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.damage import check_sizes
from interpret_robust.datasets.listing import (
    SPLITS,
    LabeledPictures,
    Listings,
    find_files,
    group_by_split,
    make_listings,
)

ENDINGS = (".parquet", ".arrow", ".feather")
MASK_COLUMN = "mask"
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img", "picture"), ("label", "labels", "fine_label", "class", "target")
CHUNKS_KEPT = 4
"""Row groups of Parquet that are kept decoded."""


@dataclass(frozen=True, eq=False)
class TableRows:
    """Pictures in rows of files: for each its file, its chunk (row group or record batch), its row there, its bytes."""

    files: Sequence["_File"]
    places: Labels
    """(N, 4): file, chunk, row, length."""
    are_masks: bool = False

    def __len__(self) -> int:
        return len(self.places)

    def name(self, place: int) -> str:
        """Return the file of a picture, and its number among all."""
        kind = "mask" if self.are_masks else "picture"
        return f"{self.files[self.places[place, 0]].path.name}, {kind} {place}"

    def length(self, place: int) -> int:
        """Return how many bytes a picture has."""
        return int(self.places[place, 3])

    def open(self, place: int) -> IO[bytes]:
        """Return a picture's bytes. Raises OSError or ValueError."""
        number, chunk, row, _ = self.places[place].tolist()
        file = self.files[number]
        with file.lock:  # a file is read by one thread at a time
            content = (file.masks if self.are_masks else file.images)(chunk)[row].as_py()
        if content is None:
            raise ValueError("no bytes")
        return io.BytesIO(content)


class _File:
    """A Parquet or Arrow file, of which chunks of the columns of images and of masks are read."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        self.images = lru_cache(CHUNKS_KEPT)(lambda chunk: self._bytes(chunk, self.image_column))
        self.masks = lru_cache(CHUNKS_KEPT)(lambda chunk: self._bytes(chunk, MASK_COLUMN))

    def chunk_count(self) -> int:
        if self._is_parquet:
            return int(self._content.num_row_groups)
        return int(self._content.column(self.image_column).num_chunks)

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() == ".parquet"

    @cached_property
    def _content(self) -> Any:
        """Return a Parquet file, or the table of an Arrow file, mapped into memory. Raises UserError."""
        try:
            import pyarrow as pa
            import pyarrow.parquet
        except ImportError:
            raise UserError(
                f"{self.path} needs pyarrow, which is missing: pip install 'interpret-robust[arrow]'."
            ) from None
        try:
            if self._is_parquet:
                return pa.parquet.ParquetFile(self.path)
            source = pa.memory_map(str(self.path))
            try:
                return pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:  # a stream, as `datasets` caches it
                source.seek(0)
                return pa.ipc.open_stream(source).read_all()
        except (pa.ArrowException, OSError) as error:
            kind = self.path.suffix[1:]
            raise UserError(f"{self.path} is damaged or no {kind} file ({take_first_line(error)}).") from error

    @property
    def schema(self) -> Any:
        return self._content.schema_arrow if self._is_parquet else self._content.schema

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """Return what Hugging Face's metadata say of each column that is there."""
        try:
            content = json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, ValueError, TypeError):
            return {}
        items = content.items() if isinstance(content, dict) else ()
        return {name: feature for name, feature in items if name in self.schema.names and isinstance(feature, dict)}

    @cached_property
    def image_column(self) -> str:
        """Return the name of the column of images. Raises UserError where there is none."""
        names = [name for name in IMAGE_COLUMNS if name in self.schema.names]
        return self._first("image", names + [name for name in self._columns_of("Image") if name != MASK_COLUMN])

    @property
    def has_masks(self) -> bool:
        """Return whether there is a column of masks."""
        return MASK_COLUMN in self.schema.names

    @cached_property
    def label_column(self) -> str:
        """Return the name of the column of labels. Raises UserError where there is none."""
        names = [name for name in LABEL_COLUMNS if name in self.schema.names]
        class_labels = self._columns_of("ClassLabel")
        if len(class_labels) > 1 and not names:
            raise UserError(
                f"{self.path} has {len(class_labels)} columns of classes, {', '.join(class_labels)}: call the one to "
                f"be predicted {LABEL_COLUMNS[0]}."
            )
        return self._first("label", [*sorted(names, key=lambda name: name not in class_labels), *class_labels])

    @cached_property
    def class_names(self) -> list[str] | None:
        """Return the names of the classes in the order of this file's numbers, None where its metadata name none."""
        names = self.features.get(self.label_column, {}).get("names")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            return None
        return [name.strip() for name in names]

    def labels(self) -> list[str | int]:
        """Return the label of each row.

        Raises UserError for a column of another type than whole numbers or text, such as lists, and without a label.
        """
        from pyarrow import types

        kind = self.schema.field(self.label_column).type
        values = kind.value_type if types.is_dictionary(kind) else kind
        tests = types.is_integer, types.is_string, types.is_large_string, types.is_boolean, types.is_null
        if not any(is_right(values) for is_right in tests):
            raise UserError(
                f"{self.path}: the column {self.label_column} holds {kind}, and labels are whole numbers or text, one "
                "a picture."
            )
        chunks = range(self.chunk_count())
        labels = [label for chunk in chunks for label in self.column(chunk, self.label_column).to_pylist()]
        if count := labels.count(None):
            raise UserError(
                f"{self.path}: {count} pictures have no label, the first is row {labels.index(None)}: leave them out."
            )
        return [str(label) if isinstance(label, bool) else label for label in labels]

    def _columns_of(self, kind: str) -> list[str]:
        return [name for name, feature in self.features.items() if feature.get("_type") == kind]

    def _first(self, kind: str, names: Sequence[str]) -> str:
        if not names:
            columns = ", ".join(self.schema.names)
            raise UserError(f"{self.path} has the columns {columns}: one called {kind} is needed.")
        return names[0]

    def column(self, chunk: int, name: str) -> Any:
        """Return a column of a chunk, as one array."""
        if self._is_parquet:
            return self._content.read_row_group(chunk, columns=[name]).column(name).combine_chunks()
        return self._content.column(name).chunk(chunk)

    def _bytes(self, chunk: int, name: str) -> Any:
        """Return the bytes of the images of a chunk in a column. Raises UserError for a column of another type."""
        from pyarrow import types

        column = self.column(chunk, name)
        is_struct = types.is_struct(column.type)
        if is_struct and column.type.get_field_index("bytes") < 0:
            raise UserError(self._wrong_type(name))
        images = column.field("bytes") if is_struct else column
        if types.is_null(images.type):  # where no row has bytes
            return images.cast("binary")
        if not (types.is_binary(images.type) or types.is_large_binary(images.type)):
            raise UserError(self._wrong_type(name))
        return images

    def _wrong_type(self, name: str) -> str:
        return (
            f"{self.path}: the column {name} holds {self.schema.field(name).type}, and pictures are bytes of a PNG or "
            "JPEG, or structs of bytes and path."
        )


def list_tables(source: Path) -> Listings:
    """Return what a file holds, or all those in a folder; names such as train-00000-of-00002.parquet tell the split.

    Lengths are read chunk by chunk. Raises UserError for a damaged file, and one without images or labels.
    """
    groups = group_by_split(source, find_files(source, ENDINGS))
    files = {part: [_File(path) for path in group] for part, group in groups.items()}
    names = _class_names([file for part in SPLITS for file in files.get(part, ())])
    return make_listings(source, {part: _listing(group, names) for part, group in files.items()}, names)


def _class_names(files: Sequence[_File]) -> list[str] | None:
    """Return the names of classes as the first file orders them, None where its metadata name none.

    Raises UserError where another file has a class that the first lacks, or names where the first has none.
    """
    names = files[0].class_names
    for file in files[1:]:
        if strange := sorted(set(file.class_names or ()) - set(names or ())):
            raise UserError(
                f"{file.path} has the class '{strange[0]}' in its metadata, which {files[0].path} lacks: all files "
                "need one set of classes."
            )
    return names


def _renumber(file: _File, names: Sequence[str] | None) -> list[str | int]:
    """Return the labels of a file, numbers as `names` orders the classes.

    Raises UserError for a number that has no name.
    """
    labels = file.labels()
    if names is None or file.class_names == names:
        return labels
    own_names = dict(enumerate(file.class_names or ()))
    for row, label in enumerate(labels):
        if isinstance(label, int) and label not in own_names:
            raise UserError(
                f"{file.path}: row {row} has the label {label}, for which its metadata have no name, and other files "
                "name their classes: write names as text, or names in the metadata of all files."
            )
    return [own_names.get(label, label) if isinstance(label, int) else label for label in labels]


def _listing(files: Sequence[_File], names: Sequence[str] | None) -> LabeledPictures:
    labels = [label for file in files for label in _renumber(file, names)]
    pictures = _rows(files, are_masks=False)
    if not any(file.has_masks for file in files):
        return pictures, labels, None
    if bare_files := [file for file in files if not file.has_masks]:
        raise UserError(
            f"{bare_files[0].path} has no column {MASK_COLUMN}, and other files have: give all of them or none."
        )
    masks = _rows(files, are_masks=True)
    check_sizes(pictures, masks, "")
    return pictures, labels, masks


def _rows(files: Sequence[_File], *, are_masks: bool) -> TableRows:
    """Return the pictures, or the masks, of all rows of files."""
    import pyarrow.compute as pc

    places = [np.empty((0, 4), np.int64)]
    for number, file in enumerate(files):
        for chunk in range(file.chunk_count()):
            content = file.masks(chunk) if are_masks else file.images(chunk)
            lengths = pc.fill_null(pc.binary_length(content), 0).to_numpy(zero_copy_only=False)
            rows = np.arange(len(lengths))
            places.append(np.stack([np.full_like(rows, number), np.full_like(rows, chunk), rows, lengths], 1))
    return TableRows(files, np.concatenate(places).astype(np.int64), are_masks)
