"""Adversarial images from anyone: are they of the split, in range and in the ball, and is a checkpoint right on them?

A file is HDF5 or .npy. Its images are uint8, or floats in [0, 1]; (N, C, H, W), (N, H, W, C) or, gray, (N, H, W); in
the order of the split from its first image on, or of the HDF5 file's dataset `index`. They are read batch by batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch

from interpret_robust.attacks.pgd import PGD, TOLERANCE
from interpret_robust.core import progress
from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError, reason_in_brackets
from interpret_robust.core.files import check_present, file_sha256
from interpret_robust.core.statistics import Interval, rate
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import BATCH_SIZE, make_batch
from interpret_robust.models.checkpoint import Checkpoint
from interpret_robust.models.classifier import predicted_classes
from interpret_robust.models.subject import check_fit
from interpret_robust.results.attack_outcomes import Outcomes
from interpret_robust.results.names import radius

Pixels = npt.NDArray[np.float64]
INDEX = "index"


class Verification(NamedTuple):
    """What good images are, and what a checkpoint makes of them.

    Attributes:
        images: how many there are.
        largest: the largest change of a pixel, in units of pixels in [0, 1].
        mean_l2: mean over images of the L2 norm of the change, same units.
        natural, adversarial: accuracy on the clean images and on those of the file, with Wilson's interval.
        sha256: of the file's bytes.
    """

    images: int
    largest: float
    mean_l2: float
    natural: Interval
    adversarial: Interval
    sha256: str

    def cells(self) -> dict[str, str]:
        """Return the same as cells of a table, but for the hash."""
        return {
            "images": str(self.images),
            "largest change, 255ths": f"{255 * self.largest:.2f}",
            "mean L2 change": f"{self.mean_l2:.3f}",
            "natural": self.natural.percent(),
            "adversarial": self.adversarial.percent(),
        }


@exact()
def verify(
    path: Path,
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: str = "test",
    *,
    eps: float | None = None,
    key: str | None = None,
    device: torch.device,
) -> Verification:
    """Check a file's images against those of a split, and classify both.

    Args:
        path: HDF5 or .npy.
        checkpoint: answers, and gives the radius where `eps` is None: that of its training.
        dataset, split: the clean images.
        eps: radius in pixel units.
        key: the file's dataset of images, where HDF5 holds several that might be.
        device: computes the answers.

    Raises UserError where the file is missing, damaged or of another kind, and where its images are not those that
    they should be: their shape or type, a pixel out of [0, 1], a change beyond `eps`. Nothing is unpickled.
    """
    check_fit(checkpoint, dataset)
    radius = PGD(checkpoint.job["recipe"]["eps"] if eps is None else eps, step_size=0, steps=0).eps
    with _open(path, key) as array:
        images = Images(path, array, dataset.image_shape)
        clean = _choose(images, dataset.split(split), f"{split} split of {dataset.name}")
        largest, l2 = _changes(images, clean)
        _check_ball(path, largest, radius)
        natural, adversarial = _answers(images, clean, checkpoint, device)
    return Verification(
        len(clean), float(largest.max()), float(l2.mean()), rate(natural), rate(adversarial), file_sha256(path)
    )


@dataclass(frozen=True)
class Images:
    """A file's images, read in slices. Raises UserError for an array that cannot be images of `shape` (C, H, W)."""

    path: Path
    array: Any
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        kind, (channels, height, width) = self.array.dtype, self.shape
        if kind != np.uint8 and kind.kind != "f":
            raise UserError(f"{self.path} holds numbers of type {kind}: give uint8, or floats in [0, 1].")
        if self.array.shape[1:] not in self._layouts():
            raise UserError(
                f"{self.path} holds an array of shape {self.array.shape}, and the images here are "
                f"(N, {channels}, {height}, {width}) or (N, {height}, {width}, {channels})."
            )

    def _layouts(self) -> Sequence[tuple[int, ...]]:
        channels, height, width = self.shape
        gray = [(height, width)] if channels == 1 else []
        return [self.shape, (height, width, channels), *gray]

    def __len__(self) -> int:
        return len(self.array)

    def part(self, span: slice) -> Pixels:
        """Return images (n, C, H, W) as pixels in [0, 1]. Raises UserError for a pixel that is not."""
        try:
            images = np.asarray(self.array[span])
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.path} is damaged ({reason_in_brackets(error)}).") from None
        pixels = images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1)
        if pixels.shape[1:] != self.shape:
            pixels = pixels.reshape(len(pixels), *self.shape[1:], self.shape[0]).transpose(0, 3, 1, 2)
        self._check_range(pixels, span.start)
        return pixels

    def _check_range(self, pixels: Pixels, first: int) -> None:
        for offset, image in enumerate(pixels):
            low, high = float(image.min()), float(image.max())
            if low >= -TOLERANCE and high <= 1 + TOLERANCE:
                continue
            location = f"{self.path}: image {first + offset}"
            if np.isnan(low):
                raise UserError(f"{location} has a pixel that is not a number: pixels lie in [0, 1].")
            if low >= 0 and 1.5 < high <= 255:
                raise UserError(
                    f"{location} has a pixel of {high:g}, as of floats from 0 to 255: divide by 255 or give uint8."
                )
            worst = low if low < -TOLERANCE else high
            raise UserError(f"{location} has a pixel of {worst:g}: pixels lie in [0, 1], before any normalization.")


@contextmanager
def _open(path: Path, key: str | None) -> Iterator[Any]:
    """Yield the array of images of a file, and of an HDF5 file its dataset; neither is read yet."""
    check_present(path, "file", "give HDF5 or .npy")
    if not h5py.is_hdf5(path):
        if key:
            raise UserError(f"{path} is no HDF5 file: --key {key} is for datasets of HDF5.")
        yield _npy(path)
        return
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} is damaged ({reason_in_brackets(error)}).") from None
    with file:
        yield _dataset(path, file, key)


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        reason = reason_in_brackets(error)
    if "Python objects" in reason:
        raise UserError(f"{path} holds Python objects, which are never unpickled: give uint8, or floats in [0, 1].")
    raise UserError(f"{path} is neither HDF5 nor a whole .npy file ({reason}).")


def _dataset(path: Path, file: h5py.File, key: str | None) -> h5py.Dataset:
    """Return the dataset of images: the one that is named, or the only one of four axes, or else of three."""
    by_axes: dict[int, list[str]] = {3: [], 4: []}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim in by_axes:
            by_axes[item.ndim].append(name)

    file.visititems(visit)
    names = by_axes[4] or by_axes[3]
    dataset_names = [key.strip("/")] if key else names
    if len(dataset_names) > 1:
        raise UserError(
            f"{path} holds several arrays that might be the images: name one with --key {' or '.join(names)}."
        )
    if not dataset_names or dataset_names[0] not in by_axes[4] + by_axes[3]:
        listing = f"there are {', '.join(names)}" if names else "it holds no dataset of three or four axes"
        raise UserError(f"{path} has no images{f' called {key}' if key else ''}: {listing}.")
    return file[dataset_names[0]]


def _choose(images: Images, split: Split, kind: str) -> Split:
    """Return the clean images that those of the file belong to: the first ones, or those of its dataset `index`."""
    count, path = len(images), images.path
    if not 1 <= count <= len(split):
        raise UserError(f"{path} holds {count} images, and the {kind} has {len(split)}: give 1 to {len(split)}.")
    group = images.array.parent if isinstance(images.array, h5py.Dataset) else {}
    if INDEX not in group:
        return split.first(count)
    index = group[INDEX][...]
    if index.dtype.kind not in "iu" or index.shape != (count,):
        raise UserError(f"{path}: {INDEX} is {index.dtype} of shape {index.shape}, and must be {count} integers.")
    if index.min() < 0 or index.max() >= len(split) or len(np.unique(index)) < count:
        raise UserError(
            f"{path}: {INDEX} goes from {index.min()} to {index.max()}, and must be {count} different images of the "
            f"{kind}, 0 to {len(split) - 1}."
        )
    return Split(split.images[index], split.labels[index])


def _changes(images: Images, clean: Split) -> tuple[Pixels, Pixels]:
    """Return the largest change of a pixel of each image (N,), and the L2 norm of its change (N,)."""
    largest, l2 = np.empty(len(clean)), np.empty(len(clean))
    for span in _parts(len(clean), "checking"):
        natural = clean.images[span].transpose(0, 3, 1, 2) / 255
        change = (images.part(span) - natural).reshape(len(natural), -1)
        largest[span], l2[span] = np.abs(change).max(1), np.linalg.norm(change, axis=1)
    return largest, l2


def _check_ball(path: Path, largest: Pixels, eps: float) -> None:
    (indices,) = np.nonzero(largest > eps + TOLERANCE)
    if len(indices):
        raise UserError(
            f"{path}: {len(indices)} of {len(largest)} images, the first of them {indices[0]}, are outside the ball "
            f"of {radius(eps)} around the clean images, the farthest by a change of {255 * largest.max():.2f}/255: "
            "are they in the order of the split, and was --eps theirs?"
        )


@torch.no_grad()
def _answers(images: Images, clean: Split, checkpoint: Checkpoint, device: torch.device) -> tuple[Outcomes, Outcomes]:
    """Return which clean images (N,) are classified rightly, and which of the file's."""
    model = checkpoint.model(device)
    natural, adversarial = np.empty(len(clean), bool), np.empty(len(clean), bool)
    for span in _parts(len(clean), "classifying"):
        batch = make_batch(clean, range(span.start, span.stop), device)
        tensors = torch.from_numpy(images.part(span).astype(np.float32)).to(device)
        for pixels, right in ((batch.images, natural), (tensors, adversarial)):
            right[span] = (predicted_classes(model(pixels)) == batch.labels).cpu().numpy()
    return natural, adversarial


def _parts(count: int, activity: str) -> Iterator[slice]:
    """Yield batches of `count` images, with a progress bar."""
    with progress.bar(activity, count, "images") as bar:
        for first in range(0, count, BATCH_SIZE):
            part = slice(first, min(first + BATCH_SIZE, count))
            yield part
            bar.update(part.stop - part.start)
