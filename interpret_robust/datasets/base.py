"""What a dataset is once it is in memory."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from interpret_robust.core.errors import UserError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]
Patterns = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, H, W, C) uint8 with C 1 or 3, labels (N,) int64, object masks (N, H, W) or None."""

    images: Images
    labels: Labels
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.images)

    def first(self, limit: int | None) -> "Split":
        """Return the first `limit` images, all of them for None."""
        if limit is None:
            return self
        masks = None if self.masks is None else self.masks[:limit]
        return Split(self.images[:limit], self.labels[:limit], masks)

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 over the bytes of images and labels, in C order."""
        digest = hashlib.sha256(np.ravel(self.images).data)
        digest.update(np.ravel(self.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named pair of splits that share image shape and classes.

    `patterns` (classes, y, x, colour), in pixels in [0, 1], are what was added to the images of each class where a
    feature was planted; None for images as they are.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...] = field(repr=False)
    patterns: Patterns | None = field(default=None, repr=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height, width."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    def split(self, name: str) -> Split:
        """Return the split called `train` or `test`."""
        if name not in ("train", "test"):
            raise UserError(f"a dataset has the splits train and test, not '{name}'.")
        return self.train if name == "train" else self.test
