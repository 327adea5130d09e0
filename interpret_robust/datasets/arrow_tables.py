"""Parquet and Arrow files with an image column, as Hugging Face's `datasets` writes them.

Images are bytes, or structs of bytes and a path; labels are whole numbers, whose names the file's metadata may tell, or
text. Needs pyarrow.
"""

import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from interpret_robust.core.errors import UserError, first_line
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.listing import LabeledPictures, Listings, by_split, listings_of

ENDINGS = (".parquet", ".arrow", ".feather")
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img", "picture"), ("label", "labels", "fine_label", "class", "target")
CHUNKS_KEPT = 4
"""Row groups of Parquet that are kept decoded."""


@dataclass(frozen=True, eq=False)
class TableRows:
    """Pictures in rows of files: for each its file, its chunk (row group or record batch), its row there, its bytes."""

    files: Sequence["_File"]
    places: Labels
    """(N, 4): file, chunk, row, length."""
    _lock: Any = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.places)

    def name(self, place: int) -> str:
        """Return the file of a picture, and its number among all."""
        return f"{self.files[self.places[place, 0]].path.name}, picture {place}"

    def length(self, place: int) -> int:
        """Return how many bytes a picture has."""
        return int(self.places[place, 3])

    def open(self, place: int) -> IO[bytes]:
        """Return a picture's bytes. Raises OSError or ValueError."""
        file, chunk, row, _ = self.places[place].tolist()
        with self._lock:  # a file is read by one thread at a time
            content = self.files[file].images(chunk)[row].as_py()
        if content is None:
            raise ValueError("no bytes")
        return io.BytesIO(content)


class _File:
    """A Parquet or Arrow file, of which chunks of the image column are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = lru_cache(CHUNKS_KEPT)(self._images)

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
        return self._first("image", names + self._columns_of("Image"))

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

    def _images(self, chunk: int) -> Any:
        """Return the bytes of the images of a chunk."""
        column = self.column(chunk, self.image_column)
        images = column.field("bytes") if hasattr(column, "field") else column
        return images.cast("binary") if images.type == "null" else images  # null where no row has bytes


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
    import pyarrow.compute as pc

    labels: list[str | int] = []
    places = [np.empty((0, 4), np.int64)]
    for number, file in enumerate(files):
        for chunk in range(file.chunk_count()):
            lengths = pc.fill_null(pc.binary_length(file.images(chunk)), 0).to_numpy(zero_copy_only=False)
            rows = np.arange(len(lengths))
            places.append(np.stack([np.full_like(rows, number), np.full_like(rows, chunk), rows, lengths], 1))
            labels += file.column(chunk, file.label_column).to_pylist()
    if any(label is None for label in labels):
        raise UserError(f"{files[0].path}: {labels.count(None)} pictures have no label: leave them out.")  # type: ignore[arg-type]
    return TableRows(files, np.concatenate(places).astype(np.int64)), labels, None
