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


BLACK = "1 of 255, as where images were divided by 255 before"
"""What is wrong with images whose largest value is 1."""

ORDER_DEVIATIONS = 4.0
"""Standard deviations by which neighbors are alike more often than by chance in a split that is not shuffled."""


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
        return self._take(slice(limit))

    def draw(self, limit: int | None) -> "Split":
        """Return `limit` images that stand for the split, all of them for None.

        They are the first ones, unless the split is in the order of its classes: then they are drawn from all classes
        in proportion, the first of each class first (image r of a class of m, counted from 0, comes at (r + 1/2) / m).
        What a smaller limit draws is the beginning of what a larger one does.

        Example:
            >>> Split(images, np.array([0, 0, 0, 0, 1, 1])).draw(3).labels
            array([0, 1, 0])
        """
        if limit is None or limit >= len(self) or not self.is_in_class_order:
            return self.first(limit)
        return self._take(self._fair_order[:limit])

    def _take(self, places: slice | npt.NDArray[np.int64]) -> "Split":
        return Split(self.images[places], self.labels[places], None if self.masks is None else self.masks[places])

    @cached_property
    def is_in_class_order(self) -> bool:
        """Return whether equal labels lie beside each other more often than in shuffled splits (ORDER_DEVIATIONS)."""
        counts, total = np.bincount(self.labels), len(self)
        if total < 2:
            return False
        share = float(((counts / total) ** 2).sum())
        expected = float((counts * (counts - 1)).sum() / total)
        neighbors = int((self.labels[1:] == self.labels[:-1]).sum())
        return bool(neighbors - expected > ORDER_DEVIATIONS * (total * share * (1 - share)) ** 0.5)

    @cached_property
    def _fair_order(self) -> npt.NDArray[np.int64]:
        counts, rank = np.bincount(self.labels), np.zeros(len(self))
        for label in np.flatnonzero(counts):
            rank[self.labels == label] = (np.arange(counts[label]) + 0.5) / counts[label]
        order: npt.NDArray[np.int64] = np.argsort(rank, kind="stable")
        return order

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 over the bytes of images and labels, in C order."""
        digest = hashlib.sha256(np.ravel(self.images).data)
        digest.update(np.ravel(self.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named pair of splits that share image shape and classes.

    `patterns` (classes, y, x, color), in pixels in [0, 1], are what was added to the images of each class where a
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
