"""Say where pictures lie: how many, their names, their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

import numpy as np
from PIL import Image

from interpret_robust.datasets.base import Labels

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif"),
)
"""What names of pictures end with, in either case; one that this PIL cannot read counts as damaged."""


class Pictures(Protocol):
    """Where pictures lie: how many there are, what each is called, its bytes."""

    def __len__(self) -> int:
        """Return how many there are."""

    def name(self, place: int) -> str:
        """Return what a sentence calls a picture, without the folder that all are in."""

    def length(self, place: int) -> int:
        """Return how many bytes a picture has."""

    def open(self, place: int) -> IO[bytes] | Image.Image:
        """Return a picture's bytes, or the picture where a library has decoded it.

        Raises an error of UNREADABLE where it is not there.
        """


@dataclass(frozen=True)
class Files:
    """Pictures that are files: their paths below a folder, and how many bytes each has."""

    folder: Path
    names: Sequence[str]
    lengths: Labels

    @classmethod
    def list(cls, folder: Path, names: Sequence[str]) -> Self:
        """Return files by their paths below `folder`; one that is not there has no bytes."""
        lengths = np.fromiter((_length(folder / name) for name in names), np.int64, len(names))
        return cls(folder, names, lengths)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def absent_names(self) -> Sequence[str]:
        """Return the paths at which there is no file."""
        return [name for name in self.names if not (self.folder / name).is_file()]

    def name(self, place: int) -> str:
        """Return the path of a picture below the folder."""
        return self.names[place]

    def length(self, place: int) -> int:
        """Return how many bytes a file has."""
        return int(self.lengths[place])

    def open(self, place: int) -> IO[bytes]:
        """Return an open file. Raises OSError."""
        return open(self.folder / self.names[place], "rb")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # the latter for a name that no file can have
        return 0
