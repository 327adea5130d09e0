"""Compute the checksums that stand in a file: over its columns, and over its provenance."""

import hashlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from interpret_robust.results.schema import PROVENANCE

_PART_BYTES = 4 * 1024 * 1024


def hash_content(file: h5py.File) -> str:
    """Return the SHA-256 over path, type, shape and bytes of every dataset except the run's clock and machine."""
    digest = hashlib.sha256()
    for name in ("config_sha256", "schema", "n_done"):
        digest.update(str(file.attrs[name]).encode())

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(PROVENANCE):
            digest.update(f"{name} {item.dtype} {item.shape}".encode())
            for part in list_slices(item):
                digest.update(_bytes(item[part]))

    file.visititems(visit)
    return digest.hexdigest()


def is_intact(file: h5py.File) -> bool:
    """Return whether a file without a seal is what was written: one of the first format, but for its provenance."""
    if hash_content(file) != file.attrs["content_sha256"]:
        return False
    origin = file.attrs.get("provenance_sha256")
    return file.attrs["format_version"] == 1 if origin is None else bool(origin == hash_provenance(file))


def hash_provenance(file: h5py.File) -> str:
    """Return the SHA-256 over the texts of `provenance/`, the run's clock and machine among them."""
    group = file[PROVENANCE]
    return hashlib.sha256(b"\0".join(group[name].asstr()[()].encode() for name in sorted(group))).hexdigest()


def list_slices(dataset: h5py.Dataset) -> Iterator[Any]:
    """Yield slices that cover a dataset, each of moderate size."""
    if not dataset.shape:
        yield ()
        return
    length = dataset.shape[0]
    step = max(1, _PART_BYTES * length // max(1, dataset.nbytes))
    for start in range(0, length, step):
        yield slice(start, start + step)


def _bytes(values: Any) -> bytes:
    array = np.ascontiguousarray(values)
    return b"\0".join([*array.ravel(), b""]) if array.dtype == object else array.tobytes()
