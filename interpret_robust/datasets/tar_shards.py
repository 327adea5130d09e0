"""WebDataset's tar files: of each sample KEY.jpg or KEY.png, and KEY.cls, the number of its class as text.

Nothing else in them is read, nothing is extracted, no code is run and nothing is unpickled.
"""

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from interpret_robust.core.errors import UserError, first_line
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.listing import LabeledPictures, Listings, by_split, listings_of

ENDINGS = frozenset({"jpg", "jpeg", "png"})
LONGEST_LABEL = 256
"""Bytes of a label: a .cls file holds a number, or a name."""


@dataclass(frozen=True)
class TarMembers:
    """Pictures in uncompressed tar files: their keys, and where the bytes of each lie."""

    shards: Sequence[Path]
    keys: Sequence[str]
    places: Labels
    """(N, 3): shard, offset, length."""

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, place: int) -> str:
        """Return the shard and the key of a picture."""
        return f"{self.shards[self.places[place, 0]].name}/{self.keys[place]}"

    def length(self, place: int) -> int:
        """Return how many bytes a picture has."""
        return int(self.places[place, 2])

    def open(self, place: int) -> IO[bytes]:
        """Return a picture's bytes. Raises OSError."""
        shard, offset, length = self.places[place].tolist()
        with open(self.shards[shard], "rb") as file:
            return io.BytesIO(os.pread(file.fileno(), length, offset))


def list_tars(source: Path) -> Listings:
    """Return what a tar file holds, or all those in a folder; names such as train-0000.tar tell the split.

    Raises UserError for a damaged or compressed tar, and for a picture without a label.
    """
    shards = sorted(source.rglob("*.tar")) if source.is_dir() else [source]
    return listings_of(source, {part: _listing(files) for part, files in by_split(source, shards).items()})


def _listing(shards: Sequence[Path]) -> LabeledPictures:
    keys: list[str] = []
    labels: list[str | int] = []
    places: list[tuple[int, int, int]] = []
    for number, shard in enumerate(shards):
        pictures, label_of = _members(shard)
        for key, (offset, length) in pictures.items():
            if key not in label_of:
                raise UserError(f"{shard}: the picture {key} has no {key}.cls beside it, the number of its class.")
            keys.append(key)
            labels.append(label_of[key])
            places.append((number, offset, length))
    return TarMembers(shards, keys, np.array(places, np.int64).reshape(-1, 3)), labels, None


def _members(shard: Path) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return where the picture of each key lies in a tar file, and the label of each key."""
    pictures, labels = {}, {}
    try:
        with tarfile.open(shard, "r:") as tar:
            while member := tar.next():
                key, ending = _key(member.name)
                if member.isreg() and ending in ENDINGS:
                    pictures[key] = (member.offset_data, member.size)
                elif member.isreg() and ending == "cls" and (file := tar.extractfile(member)):
                    labels[key] = file.read(LONGEST_LABEL).decode("utf-8").strip()
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(f"{shard} is no tar file that can be read, uncompressed ({first_line(error)}).") from error
    return pictures, labels


def _key(name: str) -> tuple[str, str]:
    """Return the key and the ending of a member: what stands before and behind the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()
