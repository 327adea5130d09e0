"""Doubts that a run notes in its partial file, for whoever goes on with it, or joins it with others.

They lie in bytes of a fixed number, which change while the file grows: their SHA-256, then JSON, then zeros.
"""

import hashlib
import json
from collections.abc import Iterable

import h5py
import numpy as np

DOUBTS = "doubts"
"""The dataset that holds them."""

ROOM = 8 * 1024
"""Its bytes, for about twenty sentences."""

UNREADABLE_DOUBTS = (
    "What was doubtful about the run before it was stopped cannot be read: --overwrite begins it anew, and tells again."
)
"""What is told in the place of doubts that are damaged."""

_DIGEST = hashlib.sha256().digest_size


def add_room(file: h5py.File, layout: h5py.h5p.PropDCID) -> None:
    """Add the bytes for doubts to a new file, by a dataset creation property list."""
    file.create_dataset(DOUBTS, (ROOM,), "u1", fillvalue=0, dcpl=layout)


def write(file: h5py.File, doubts: Iterable[str]) -> None:
    """Write doubts behind those that are there, each once; a file of before 2026-12 has no room for them.

    Those that the room does not hold are left out.

    Example:
        >>> with h5py.File(partial, "r+") as file:
        ...     write(file, ["mine answers an image differently in a batch of 500 and in one of 8."])
    """
    if DOUBTS not in file:
        return
    sentences = list(dict.fromkeys([*read(file), *doubts]))
    if not sentences:
        return
    while len(text := json.dumps(sentences).encode()) > ROOM - _DIGEST:
        sentences.pop()
    content = hashlib.sha256(text).digest() + text
    file[DOUBTS][...] = np.frombuffer(content.ljust(ROOM, b"\0"), np.uint8)
    file.flush()


def read(file: h5py.File) -> list[str]:
    """Return the doubts that a file notes, in order; UNREADABLE_DOUBTS where its bytes are damaged."""
    content = file[DOUBTS][...].tobytes().rstrip(b"\0") if DOUBTS in file else b""
    if not content:
        return []
    digest, text = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(text).digest() != digest:
        return [UNREADABLE_DOUBTS]
    sentences: list[str] = json.loads(text)
    return sentences
