"""WebDataset's tar files: of each sample KEY.jpg, KEY.png or alike, and KEY.cls, the number of its class as text.

KEY.mask.png may stand beside each: what is not 0 is the object.

Nothing else in them is read, nothing is extracted, no code is run and nothing is unpickled.
"""

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from interpret_robust.core.errors import UserError, take_first_line
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.damage import check_sizes
from interpret_robust.datasets.listing import LabeledPictures, Listings, find_files, group_by_split, make_listings
from interpret_robust.datasets.picture_files import ENDINGS

MASK_ENDING = "mask.png"
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

    Raises UserError for a damaged or compressed tar, for a picture without a label, and for a label without a picture.
    """
    shards = group_by_split(source, find_files(source, (".tar",)))
    return make_listings(source, {part: _listing(files) for part, files in shards.items()})


def _listing(shards: Sequence[Path]) -> LabeledPictures:
    keys: list[str] = []
    labels: list[str | int] = []
    places: list[tuple[int, int, int]] = []
    mask_places: list[tuple[int, int, int]] = []
    for number, shard in enumerate(shards):
        members = _members(shard)
        for key, (offset, length) in members.pictures.items():
            if key not in members.labels:
                remedy = "" if members.labels else "; where folders are classes, unpack the tar and give the folder"
                raise UserError(
                    f"{shard}: the picture {key} has no {key}.cls beside it, the number of its class{remedy}."
                )
            keys.append(key)
            labels.append(members.labels[key])
            places.append((number, offset, length))
            if key in members.masks:
                mask_places.append((number, *members.masks[key]))
        if lonely := sorted(members.labels.keys() - members.pictures.keys()):
            raise UserError(
                f"{shard}: {len(lonely)} labels have no picture that can be read here, the first is {lonely[0]}.cls: a "
                f"file such as {lonely[0]}.jpg is needed, and no link."
            )
    pictures = TarMembers(shards, keys, np.array(places, np.int64).reshape(-1, 3))
    if not mask_places:
        return pictures, labels, None
    if absent := len(places) - len(mask_places):
        raise UserError(
            f"{shards[0]}: {absent} of {len(places)} pictures have no mask KEY.{MASK_ENDING}: give all of them or none."
        )
    masks = TarMembers(shards, [f"{key}.{MASK_ENDING}" for key in keys], np.array(mask_places, np.int64))
    check_sizes(pictures, masks, "")
    return pictures, labels, masks


class _Members(NamedTuple):
    """By key, where the picture and the mask lie in a tar file, offset and length, and the label."""

    pictures: dict[str, tuple[int, int]]
    masks: dict[str, tuple[int, int]]
    labels: dict[str, str]


def _members(shard: Path) -> _Members:
    members = _Members({}, {}, {})
    try:
        with tarfile.open(shard, "r:") as tar:
            while member := tar.next():
                key, ending = _key(member.name)
                place = (member.offset_data, member.size)
                if member.isreg() and f".{ending}" in ENDINGS:
                    _add(members.pictures, key, place)
                elif member.isreg() and ending == MASK_ENDING:
                    _add(members.masks, key, place)
                elif member.isreg() and ending == "cls" and (file := tar.extractfile(member)):
                    _add(members.labels, key, file.read(LONGEST_LABEL).decode("utf-8").strip())
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
        _check_end(shard)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(f"{shard} is no tar file that can be read, uncompressed ({take_first_line(error)}).") from error
    return members


def _add(members: dict[str, Any], key: str, value: Any) -> None:
    if key in members:
        raise ValueError(f"the key {key} has two pictures, masks or labels")
    members[key] = value


def _check_end(shard: Path) -> None:
    """Raise ValueError for a file that was cut off: a tar file ends with blocks of zeros."""
    with open(shard, "rb") as file:
        file.seek(max(0, shard.stat().st_size - tarfile.BLOCKSIZE))
        if any(file.read()):
            raise ValueError("the blocks of zeros at its end are missing")


def _key(name: str) -> tuple[str, str]:
    """Return the key and the ending of a member: what stands before and behind the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()
