"""Adversarial images from anyone: are they of the split, in range and in the ball, and is a model right on them?

A file is HDF5, .npy, .npz, or tensors of torch. Its images are uint8, or floats in [0, 1]; (N, C, H, W), (N, H, W, C)
or, gray, (N, H, W); in the order of the split from its first image on, or of the array `index` beside them. Labels and
clean images beside them have to be those of the split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from interpret_robust.attacks.image_files import (
    CLEAN_NAMES,
    LABEL_NAMES,
    Arrays,
    list_neighbors,
    name_image,
    open_arrays,
)
from interpret_robust.attacks.norms import TOLERANCE, make_ball
from interpret_robust.attacks.settings import Norm, check_numbers, resolve_ball
from interpret_robust.core import progress
from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError, reason_in_brackets
from interpret_robust.core.files import hash_file
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.significance import mcnemar
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import list_batch_places, make_batch
from interpret_robust.models.checks.watch import watch
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.subject import Subject, check_fit
from interpret_robust.results.attack_outcomes import Outcomes
from interpret_robust.results.names import format_length

Pixels = npt.NDArray[np.float64]
INDEX = "index"

ROUNDING = 1 / 255
"""How far clean images may lie from those of the split: a library that saves bytes may cut where it should round."""


class Verification(NamedTuple):
    """What good images are, and what a model makes of them.

    Attributes:
        images: how many there are.
        largest: the largest change of a pixel, in units of pixels in [0, 1].
        mean_l2: mean over images of the L2 norm of the change, same units.
        natural, adversarial: accuracy on the clean images and on those of the file, with Wilson's interval.
        sha256: of the file's bytes.
        clean_count: how many images equal the clean ones.
        doubt: what the model did otherwise in batches of these images than in its trial, to be read behind its name.
    """

    images: int
    largest: float
    mean_l2: float
    natural: Interval
    adversarial: Interval
    sha256: str
    clean_count: int = 0
    doubt: str | None = None

    def cells(self) -> dict[str, str]:
        """Return what was verified as cells of a table, but for the hash."""
        return {
            "images": str(self.images),
            "largest change, 255ths": f"{255 * self.largest:.2f}",
            "mean L2 change": f"{self.mean_l2:.3f}",
            "unchanged": str(self.clean_count),
            "natural": self.natural.percent(),
            "adversarial": self.adversarial.percent(),
        }


@exact()
def verify(
    path: Path,
    subject: Subject,
    dataset: Dataset,
    split: str = "test",
    *,
    eps: float | None = None,
    norm: str | None = None,
    key: str | None = None,
    device: torch.device,
) -> Verification:
    """Check a file's images against those of a split, and classify both.

    Args:
        path: HDF5, .npy, .npz, .pth or .pt.
        subject: the model that answers, and gives the ball where `eps` is None: that of its training.
        dataset, split: the clean images.
        eps: radius in pixel units.
        norm: that of the radius, `linf` by default, `l2` or `l1`.
        key: the name of the file's array of images, where several might be.
        device: computes the answers.

    Raises UserError where the file is missing, damaged or of another kind, and where its images are not those that
    they should be: their shape or type, a pixel out of [0, 1], a change beyond `eps`, labels or clean images of
    another order. Nothing is unpickled.
    """
    dataset = subject.view(dataset)
    check_fit(subject, dataset)
    norm_name, eps = resolve_ball(norm, eps, subject.job.get("recipe", {}))
    check_numbers(eps, 0, 0, norm=norm_name)
    with open_arrays(path) as arrays:
        name = name_image(path, arrays, key)
        images, neighbors = Images(path, arrays[name], dataset.image_shape), list_neighbors(arrays, name)
        kind = f"{split} split of {dataset.name}"
        clean = _choose(images, neighbors, dataset.split(split), kind)
        _check_labels(path, neighbors, clean, kind)
        _check_clean(path, neighbors, clean, kind, dataset.image_shape)
        changes = _changes(images, clean)
        _check_ball(path, changes, norm_name, eps, int(np.prod(dataset.image_shape)))
        is_unchanged = changes["linf"] <= TOLERANCE
        natural, adversarial, doubt = _answers(images, clean, subject, device)
    return Verification(
        len(clean),
        float(changes["linf"].max()),
        float(changes["l2"].mean()),
        rate(natural),
        rate(adversarial),
        hash_file(path),
        int(is_unchanged.sum()),
        doubt or _doubt_about_aim(natural, adversarial) or _doubt_about_end(is_unchanged),
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
            raise UserError(
                f"{self.path} is damaged ({reason_in_brackets(error)}): save it anew, or copy it again."
            ) from None
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


def _choose(images: Images, neighbors: Arrays, split: Split, kind: str) -> Split:
    """Return the clean images that those of the file belong to: the first ones, or those of its array `index`."""
    count, path = len(images), images.path
    if not 1 <= count <= len(split):
        raise UserError(f"{path} holds {count} images, and the {kind} has {len(split)}: give 1 to {len(split)}.")
    if INDEX not in neighbors:
        return split.first(count)
    index = np.asarray(neighbors[INDEX][...])
    if index.dtype.kind not in "iu" or index.shape != (count,):
        raise UserError(f"{path}: {INDEX} is {index.dtype} of shape {index.shape}, and must be {count} integers.")
    if index.min() < 0 or index.max() >= len(split) or len(np.unique(index)) < count:
        raise UserError(
            f"{path}: {INDEX} goes from {index.min()} to {index.max()}, and must be {count} different images of the "
            f"{kind}, 0 to {len(split) - 1}."
        )
    return split.take(index.astype(np.int64))


def _check_labels(path: Path, neighbors: Arrays, clean: Split, kind: str) -> None:
    """Raise UserError where there are labels beside the images, (N,) or (N, 1), that are not those of the split."""
    name = next((name for name in LABEL_NAMES if name in neighbors), None)
    if name is None:
        return
    labels, count = np.asarray(neighbors[name][...]), len(clean)
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        raise UserError(
            f"{path}: {name} is {labels.dtype} of shape {labels.shape}, and must be {count} integers, one for each."
        )
    (indices,) = np.nonzero(labels.reshape(-1) != clean.labels)
    if len(indices):
        raise UserError(
            f"{path}: {name} differs from the labels of the {kind} at {len(indices)} of {count} images, the first of "
            f"them {indices[0]}: are they in the order of the split?"
        )


def _check_clean(path: Path, neighbors: Arrays, clean: Split, kind: str, shape: tuple[int, int, int]) -> None:
    """Raise UserError where there are clean images beside the adversarial ones that are not those of the split."""
    name = next((name for name in CLEAN_NAMES if name in neighbors and neighbors[name].ndim in (3, 4)), None)
    if name is None:
        return
    images = Images(path, neighbors[name], shape)
    if len(images) != len(clean):
        raise UserError(f"{path}: {name} holds {len(images)} images, and there are {len(clean)} adversarial ones.")
    (indices,) = np.nonzero(_changes(images, clean)["linf"] > ROUNDING + TOLERANCE)
    if len(indices):
        raise UserError(
            f"{path}: {name} differs from the images of the {kind} at {len(indices)} of {len(clean)} images, the first "
            f"of them {indices[0]}: are they in the order of the split?"
        )


def _doubt_about_aim(natural: Outcomes, adversarial: Outcomes) -> str | None:
    """Return a doubt where more images (N,) are right after the attack than before it, beyond chance, or None."""
    losses, gains, p_value = mcnemar(natural, adversarial)
    if gains <= losses or p_value > SIGNIFICANT:
        return None
    return (
        f"has {gains} of {len(natural)} images right after the attack that it had wrong before, and {losses} the other "
        f"way (p {p_value:.2g}): was the attack aimed at the true classes?"
    )


SIGNIFICANT = 0.05
"""Below this p, images that became right are no chance (McNemar's exact test)."""

LONGEST_TAIL = 8
"""Unchanged images in a row at the end of a file from which on an attack that was stopped is the likely reason."""


def _doubt_about_end(is_unchanged: Outcomes) -> str | None:
    """Return a doubt where the last images (N,) equal the clean ones and most of those before do not, or None."""
    (changed_places,) = np.nonzero(~is_unchanged)
    first = int(changed_places[-1]) + 1 if len(changed_places) else 0
    tail = len(is_unchanged) - first
    if tail < LONGEST_TAIL or (first > 0 and is_unchanged[:first].mean() > 1 / 2):
        return None
    return (
        f"is shown {tail} images at the end of the file, from image {first} on, that equal the clean ones: was the "
        "attack stopped before them? Accuracy under attack is too high then."
    )


def _changes(images: Images, clean: Split) -> dict[Norm, Pixels]:
    """Return the length of each image's change (N,) in every norm."""
    lengths: dict[Norm, Pixels] = {norm: np.empty(len(clean)) for norm in ORDERS}
    for span in _parts(clean, "checking"):
        natural = clean.images[span].transpose(0, 3, 1, 2) / 255
        change = (images.part(span) - natural).reshape(len(natural), -1)
        for norm, order in ORDERS.items():
            lengths[norm][span] = np.linalg.norm(change, order, axis=1)
    return lengths


ORDERS: dict[Norm, float] = {"linf": np.inf, "l2": 2, "l1": 1}


def _check_ball(path: Path, changes: dict[Norm, Pixels], norm: Norm, eps: float, pixels: int) -> None:
    lengths = changes[norm]
    (indices,) = np.nonzero(lengths > eps + make_ball(norm, eps).tolerance(pixels))
    if len(indices):
        farthest = f"{255 * lengths.max():.2f}/255" if norm == "linf" else f"{lengths.max():.4g}"
        raise UserError(
            f"{path}: {len(indices)} of {len(lengths)} images, the first of them {indices[0]}, are outside the ball "
            f"of {format_length(eps, norm)} around the clean images, the farthest by a change of {farthest}: "
            "are they in the order of the split, and was --eps theirs?"
        )


@torch.no_grad()
def _answers(
    images: Images, clean: Split, subject: Subject, device: torch.device
) -> tuple[Outcomes, Outcomes, str | None]:
    """Return which clean images (N,) are classified rightly, which of the file's, and a doubt about large batches."""
    model = subject.model(device)
    natural, adversarial = np.empty(len(clean), bool), np.empty(len(clean), bool)
    with watch(model) as doubts:
        for span in _parts(clean, "classifying"):
            batch = make_batch(clean, range(span.start, span.stop), device)
            tensors = torch.from_numpy(images.part(span).astype(np.float32)).to(device)
            for pixels, right in ((batch.images, natural), (tensors, adversarial)):
                right[span] = (predict_classes(model(pixels)) == batch.labels).cpu().numpy()
        return natural, adversarial, None if model.answers_alone else next(doubts(), None)


def _parts(clean: Split, activity: str) -> Iterator[slice]:
    """Yield the places of a batch of images after the other, with a progress bar."""
    with progress.open_bar(activity, len(clean), "images") as bar:
        for places in list_batch_places(clean):
            yield slice(places.start, places.stop)
            bar.update(len(places))
