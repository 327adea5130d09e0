"""Parquet and Arrow files with an image column, as Hugging Face's `datasets` writes them.

Images are bytes, or structs of bytes and a path; labels are whole numbers, whose names the file's metadata may tell, or
text. A column `mask` may hold images too: what is not 0 is the object. Needs pyarrow.
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

from interpret_robust.core.errors import UserError, first_line
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.listing import LabeledPictures, Listings, by_split, listings_of
from interpret_robust.datasets.pictures import check_sizes

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
        return self.path.suffix == ".parquet"

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
            raise UserError(f"{self.path} is damaged or no {kind} file ({first_line(error)}).") from error

    @property
    def schema(self) -> Any:
        return self._content.schema_arrow if self._is_parquet else self._content.schema

    @cached_property
    def features(self) -> dict[str, Any]:
        """Return what Hugging Face's metadata say of each column."""
        try:
            content = json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, ValueError, TypeError):
            return {}
        return content if isinstance(content, dict) else {}

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
        return self._first("label", self._columns_of("ClassLabel") + names)

    def _columns_of(self, kind: str) -> list[str]:
        features = self.features.items()
        return [name for name, feature in features if isinstance(feature, dict) and feature.get("_type") == kind]

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
    paths = sorted(path for ending in ENDINGS for path in source.rglob(f"*{ending}")) if source.is_dir() else [source]
    files = {part: [_File(path) for path in group] for part, group in by_split(source, paths).items()}
    splits: dict[str, LabeledPictures] = {part: _listing(group) for part, group in files.items()}
    return listings_of(source, splits, _class_names(files["test" if "test" in files else "train"][0]))


def _class_names(file: _File) -> list[str] | None:
    names = file.features.get(file.label_column, {}).get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _listing(files: Sequence[_File]) -> LabeledPictures:
    labels: list[str | int] = []
    for file in files:
        for chunk in range(file.chunk_count()):
            labels += file.column(chunk, file.label_column).to_pylist()
    if any(label is None for label in labels):
        raise UserError(f"{files[0].path}: {labels.count(None)} pictures have no label: leave them out.")  # type: ignore[arg-type]
    pictures = _rows(files, are_masks=False)
    if not any(file.has_masks for file in files):
        return pictures, labels, None
    if lacking := [file for file in files if not file.has_masks]:
        raise UserError(
            f"{lacking[0].path} has no column {MASK_COLUMN}, and other files have: give all of them or none."
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
