"""What a partial file notes of its rows: after which batches they are whole, each with a checksum, and of which run.

Rows of several processes are in parts beside it.
"""

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.results import seal
from interpret_robust.results.hdf5 import UNREADABLE
from interpret_robust.results.schema import Schema

PLACES = "places"
"""In a part: which image each of its rows is of."""

ENDS, CHECKSUMS = "batch_ends", "batch_checksums"
"""In a partial file: how many rows there were after each batch, and the SHA-256 of the batch."""


def count_batches(file: h5py.File) -> int:
    """Return how many batches of rows a partial file has noted."""
    return int(np.count_nonzero(file[ENDS][...]))


def count_good_rows(file: h5py.File, schema: Schema) -> int:
    """Return how many rows from the first on are what was written: whole batches whose checksum holds."""
    start = 0
    for end, checksum in zip(file[ENDS][...].tolist(), file[CHECKSUMS][...], strict=True):
        if not start < end <= len(file[ENDS]):
            break
        if not np.array_equal(checksum, hash_batch(file, schema, start, end)):
            break
        start = end
    return start


def hash_batch(file: h5py.File, schema: Schema, start: int, stop: int) -> AnyArray:
    """Return the SHA-256, 32 bytes, of a batch of rows: of what run, which images, and each column's bytes."""
    digest = hashlib.sha256(f"{file.attrs['config_sha256']} {start} {stop}".encode())
    for path in (*(column.path for column in schema.per_image), *([PLACES] if PLACES in file else [])):
        values = file[path][start:stop]
        digest.update(f"{path} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def is_of(partial: Path, config: str) -> bool:
    """Return whether a file of rows can be read and is of the configuration of this hash.

    Raises UserError where it grows.
    """
    try:
        if not seal.block_holds(partial):
            return False
        with h5py.File(partial, "r") as file:
            return bool(file.attrs["config_sha256"] == config)
    except BlockingIOError:
        raise UserError(f"{partial} is being written by another process: wait until it ends.") from None
    except UNREADABLE:
        return False


def is_intact(part: Path, schema: Schema) -> bool:
    """Return whether a part, whose seal holds, is of this schema, so that its good rows can be told."""
    try:
        with h5py.File(part, "r") as file:
            return file.attrs["schema"] == schema.label and len(file[PLACES]) == len(file[ENDS])
    except UNREADABLE:
        return False


def list_parts(path: Path) -> Iterator[Path]:
    """Return the parts that several processes wrote of the file at `path`."""
    return path.parent.glob(f"{glob.escape(path.name)}.partial.*")


def cut(file: h5py.File, rows: int) -> None:
    """Forget the batches of a partial file beyond its first `rows` rows."""
    batches = int(np.searchsorted(file[ENDS][: count_batches(file)], rows, side="right"))
    file[ENDS][batches:] = 0
    file.flush()
