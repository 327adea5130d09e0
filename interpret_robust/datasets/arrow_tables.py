"""Parquet and Arrow files with an image column, as Hugging Face's `datasets` writes them.

Images are bytes, or structs of bytes and a path; labels are whole numbers, whose names the file's metadata may tell, or
text. Needs pyarrow.
"""

import io
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
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
        return int(self._reader.num_row_groups if self._is_parquet else len(self._reader))

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    @property
    def _reader(self) -> Any:
        return _reader(self.path)

    @property
    def schema(self) -> Any:
        return self._reader.schema_arrow if self._is_parquet else self._reader[0].schema

    def column(self, chunk: int, name: str) -> Any:
        """Return a column of a chunk, as one array."""
        if self._is_parquet:
            return self._reader.read_row_group(chunk, columns=[name]).column(name).combine_chunks()
        return self._reader[chunk].column(name)

    def _images(self, chunk: int) -> Any:
        """Return the bytes of the images of a chunk."""
        column = self.column(chunk, image_column(self))
        return column.field("bytes") if hasattr(column, "field") else column


@cache
def _reader(path: Path) -> Any:
    """Return a Parquet file, or the record batches of an Arrow file, mapped into memory. Raises UserError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path} needs pyarrow, which is missing: pip install 'interpret-robust[arrow]'.") from None
    try:
        if path.suffix == ".parquet":
            return pa.parquet.ParquetFile(path)
        source = pa.memory_map(str(path))
        try:
            file = pa.ipc.open_file(source)
            return [file.get_batch(number) for number in range(file.num_record_batches)]
        except pa.ArrowInvalid:  # a stream, as `datasets` caches it
            source.seek(0)
            return list(pa.ipc.open_stream(source))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged or no {path.suffix[1:]} file ({first_line(error)}).") from error


def image_column(file: _File) -> str:
    """Return the name of a file's column of images. Raises UserError where there is none."""
    names = [name for name in IMAGE_COLUMNS if name in file.schema.names]
    names += [name for name, feature in _features(file).items() if _kind(feature) == "Image"]
    if not names:
        raise UserError(f"{file.path} has the columns {', '.join(file.schema.names)}: one called image is needed.")
    return names[0]


def _label_column(file: _File) -> str:
    names = [name for name, feature in _features(file).items() if _kind(feature) == "ClassLabel"]
    names += [name for name in LABEL_COLUMNS if name in file.schema.names]
    if not names:
        raise UserError(f"{file.path} has the columns {', '.join(file.schema.names)}: one called label is needed.")
    return names[0]


def _features(file: _File) -> dict[str, Any]:
    """Return what Hugging Face's metadata say of each column."""
    try:
        content = json.loads((file.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return content if isinstance(content, dict) else {}


def _kind(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def list_tables(source: Path) -> Listings:
    """Return what a file holds, or all those in a folder; names such as train-00000-of-00002.parquet tell the split.

    Lengths are read chunk by chunk. Raises UserError for a damaged file, and one without images or labels.
    """
    paths = sorted(path for ending in ENDINGS for path in source.rglob(f"*{ending}")) if source.is_dir() else [source]
    files = {part: [_File(path) for path in group] for part, group in by_split(source, paths).items()}
    splits: dict[str, LabeledPictures] = {part: _listing(group) for part, group in files.items()}
    return listings_of(source, splits, _class_names(files["test" if "test" in files else "train"][0]))


def _class_names(file: _File) -> list[str] | None:
    names = _features(file).get(_label_column(file), {}).get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _listing(files: Sequence[_File]) -> LabeledPictures:
    import pyarrow.compute as pc

    labels: list[str | int] = []
    places = []
    for number, file in enumerate(files):
        for chunk in range(file.chunk_count()):
            lengths = pc.fill_null(pc.binary_length(file.images(chunk)), 0).to_numpy(zero_copy_only=False)
            rows = np.arange(len(lengths))
            places.append(np.stack([np.full_like(rows, number), np.full_like(rows, chunk), rows, lengths], 1))
            labels += file.column(chunk, _label_column(file)).to_pylist()
    if any(label is None for label in labels):
        raise UserError(f"{files[0].path}: {labels.count(None)} pictures have no label: leave them out.")  # type: ignore[arg-type]
    return TableRows(files, np.concatenate(places).astype(np.int64)), labels, None
