"""What a dataset is: images by their places, in memory or decoded when asked for, labels, masks, names of classes."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from interpret_robust.core.errors import UserError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]
Patterns = npt.NDArray[np.float32]


DIVIDED_TWICE = "1 of 255, as where images were divided by 255 before"
"""What is wrong with images whose largest value is 1."""

ORDER_DEVIATIONS = 4.0
"""Standard deviations by which neighbors are alike more often than by chance in a split that is not shuffled."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, H, W, C) uint8 with C 1 or 3, labels (N,) int64, object masks (N, H, W) or None.

    `images[places]` and `masks[places]` are arrays; where the whole is a `datasets.pictures.PictureArray`, they are
    decoded then.
    """

    images: Images
    labels: Labels
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.images)

    def first(self, limit: int | None) -> "Split":
        """Return the first `limit` images, all of them for None."""
        if limit is None:
            return self
        return self.take(slice(limit))

    def draw(self, limit: int | None) -> "Split":
        """Return `limit` images that stand for the split, all of them for None.

        They are the first ones, unless the split is in the order of its classes: then they are drawn from all classes
        in proportion, the first of each class first (image r of a class of m, counted from 0, comes at (r + 1/2) / m).
        What a smaller limit draws is the beginning of what a larger one does (`drawing_order`), unless that is all
        images: these are in the order of the split.

        Example:
            >>> Split(images, np.array([0, 0, 0, 0, 1, 1])).draw(3).labels
            array([0, 1, 0])
        """
        if limit is None or limit >= len(self) or not self.is_in_class_order:
            return self.first(limit)
        return self.take(self.drawing_order[:limit])

    def take(self, places: slice | npt.NDArray[np.int64]) -> "Split":
        """Return the images at some places, in their order; of pictures none is decoded."""
        masks = None if self.masks is None else _part(self.masks, places)
        return Split(_part(self.images, places), self.labels[places], masks)

    @property
    def pictures(self) -> dict[str, Any] | None:
        """Return what a file tells of pictures that are decoded when asked for; None for arrays in memory."""
        images: Any = self.images
        return None if isinstance(images, np.ndarray) else images.description()

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
    def drawing_order(self) -> npt.NDArray[np.int64]:
        """Return the places (N,) of all images in the order in which `draw` takes them."""
        if not self.is_in_class_order:
            return np.arange(len(self))
        counts, rank = np.bincount(self.labels), np.zeros(len(self))
        for label in np.flatnonzero(counts):
            rank[self.labels == label] = (np.arange(counts[label]) + 0.5) / counts[label]
        order: npt.NDArray[np.int64] = np.argsort(rank, kind="stable")
        return order

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 over the bytes of images and labels, in C order.

        Of pictures it is over what `PictureArray.digest` gives in the place of the images.
        """
        images: Any = self.images
        digest = hashlib.sha256(np.ravel(images).data if isinstance(images, np.ndarray) else images.digest())
        digest.update(np.ravel(self.labels).data)
        return digest.hexdigest()


LONGEST_NUMBER = 5
"""Digits of the number of a class: names are made up to the highest."""


def number_classes(count: int) -> tuple[str, ...]:
    """Return names of the classes of images that come without any."""
    return tuple(f"class {label}" for label in range(count))


def _part(array: Any, places: Any) -> Any:
    """Return a part of an array, which stays undecoded where it is one of pictures."""
    return array[places] if isinstance(array, np.ndarray) else array.take(places)


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
    def is_for_training(self) -> bool:
        """Return whether there are training images."""
        return True

    @property
    def reference(self) -> Split:
        """Return the images that means and statistics of a model are taken from: training images where there are any.

        Else test images.
        """
        return self.train if self.is_for_training else self.test

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height, width."""
        height, width, channels = self.reference.images.shape[1:]
        return channels, height, width

    def split(self, name: str) -> Split:
        """Return the split called `train` or `test`; of pictures also `val`, if there. Raises UserError for others."""
        if name not in ("train", "test"):
            raise UserError(f"{self.name} has no split '{name}', but {' and '.join(self.split_names)}.")
        return self.train if name == "train" else self.test

    @property
    def split_names(self) -> tuple[str, ...]:
        """Return the names of its splits."""
        return ("train", "test")

    def change(self, change: Callable[[Split], Split], class_names: tuple[str, ...]) -> "Dataset":
        """Return this dataset with each split changed and with other names of classes."""
        return replace(self, train=change(self.train), test=change(self.test), class_names=class_names)

    def frame(self, framing: Any) -> "Dataset":  # noqa: ARG002
        """Return this dataset as it is: arrays have their size, see `LazyDataset.frame`."""
        return self


class LazyDataset(Dataset):
    """A dataset whose splits are made when they are asked for; data that are for tests alone have no `train`.

    Args:
        name: what files and tables call it.
        parts: what makes each split, by its name, `test` and perhaps `train` and `val`.
        class_names: in the order of the labels.
    """

    def __init__(self, name: str, parts: Mapping[str, Callable[[], Split]], class_names: tuple[str, ...]) -> None:
        vars(self).update(name=name, parts=parts, class_names=class_names, patterns=None)

    parts: Mapping[str, Callable[[], Split]]

    def __repr__(self) -> str:
        return f"LazyDataset({self.name!r}, {' and '.join(self.parts)}, {len(self.class_names)} classes)"

    @property
    def is_for_training(self) -> bool:
        """Return whether there are training images."""
        return "train" in self.parts

    @cached_property
    def train(self) -> Split:
        """Return the training split. Raises UserError where there is none."""
        if not self.is_for_training:
            remedy = (
                "add x_train and y_train."
                if self.test.pictures is None
                else "put pictures into train/ and test/, each with one folder for each class."
            )
            raise UserError(f"{self.name} has test images only, and this needs training images: {remedy}")
        return self.parts["train"]()

    @cached_property
    def test(self) -> Split:
        """Return the test split."""
        return self.parts["test"]()

    @cached_property
    def _validation(self) -> Split:
        return self.parts["val"]()

    def split(self, name: str) -> Split:
        """Return a split, see `Dataset.split`."""
        return self._validation if name == "val" and "val" in self.parts else super().split(name)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Return the names of its splits."""
        return tuple(self.parts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return channels, height, width, of the test split: nobody may ask for the other one."""
        height, width, channels = self.test.images.shape[1:]
        return channels, height, width

    def change(self, change: Callable[[Split], Split], class_names: tuple[str, ...]) -> "Dataset":
        """Return this dataset with each split changed when it is asked for, and with other names of classes."""
        parts = {part: lambda part=part: change(self.split(part)) for part in self.parts}
        return LazyDataset(self.name, parts, class_names)

    def frame(self, framing: Any) -> "Dataset":
        """Return this dataset with its pictures resized and cropped so, unless they are already."""
        if framing is None:
            return self

        def frame(split: Split) -> Split:
            if split.pictures is None:
                return split
            images: Any = split.images
            masks: Any = split.masks
            return replace(split, images=images.frame(framing), masks=masks and masks.frame(framing))

        return self.change(frame, self.class_names)
