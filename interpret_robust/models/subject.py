"""A model that questions are asked of, whoever made it: what analyses need to know."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.base import Dataset
from interpret_robust.models import Classifier
from interpret_robust.models.variants import is_external


class Subject(Protocol):
    """A checkpoint of ours, or a model from elsewhere."""

    @property
    def name(self) -> str:
        """Return what its files and tables call it."""

    @property
    def location(self) -> str:
        """Return what a sentence for the user calls it: where it was found."""

    @property
    def sha256(self) -> str:
        """Return the SHA-256 over its tensors."""

    @property
    def source(self) -> str:
        """Return the name or path of its data.

        Those it was trained on, where that is known, else those it was brought with.
        """

    @property
    def job(self) -> Mapping[str, Any]:
        """Return how it was made: `dataset`, `image_shape`, `class_names`, `architecture`, `variant`, `seed`, `recipe`.

        Of a model from elsewhere the first three are those of the data it was brought with, `variant` is its name,
        `seed` None, `card` says how it was found, and there is no `recipe`.
        """

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what makes answers that rest on it doubtful, a sentence each."""

    def local_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of its local features; zeros where it has none."""

    def model(self, device: torch.device) -> Classifier:
        """Return the model on `device`, in eval mode."""

    def view(self, dataset: Dataset) -> Dataset:
        """Return images as the model takes them: pictures resized and cropped, classes numbered as its outputs."""


def doubt_about_classes(subject: Subject, dataset: Dataset) -> str | None:
    """Return a sentence where a model and its images call their classes by different names, else None.

    Names that only number the classes, `class 0` and so on, tell nothing.
    """
    pairs = list(zip(subject.job["class_names"], dataset.class_names, strict=False))
    label, names = next(((label, pair) for label, pair in enumerate(pairs) if pair[0] != pair[1]), (0, ("", "")))
    if names[0] == names[1] or f"class {label}" in names:
        return None
    is_loaded = is_external(subject.job)
    origin = "was loaded with other names of classes" if is_loaded else "was trained on classes with other names"
    return (
        f"{subject.location} {origin} than those of {dataset.name} (label {label} is "
        f"'{names[0]}' and '{names[1]}'): its answers count as they stand if both have their classes in the same order."
    )


def check_fit(subject: Subject, dataset: Dataset) -> None:
    """Raise UserError where a model and a dataset differ in the size of images or in the number or order of classes."""
    job = subject.job
    if tuple(job["image_shape"]) != dataset.image_shape or len(job["class_names"]) != len(dataset.class_names):
        origin = "was loaded for" if is_external(job) else "was trained on"
        raise UserError(
            f"{subject.location} {origin} {job['dataset']} (images {job['image_shape']}, "
            f"{len(job['class_names'])} classes), which does not fit {dataset.name} "
            f"(images {list(dataset.image_shape)}, {len(dataset.class_names)} classes): give another --dataset."
        )
    _check_order(subject, dataset)


def _check_order(subject: Subject, dataset: Dataset) -> None:
    """Raise UserError where a name of a class is another label of the model than of the dataset."""
    own_labels, labels = (
        {name: label for label, name in enumerate(names) if names.count(name) == 1}
        for names in (list(subject.job["class_names"]), list(dataset.class_names))
    )
    moves = [(name, own_labels[name], label) for name, label in labels.items() if own_labels.get(name, label) != label]
    if moves:
        name, own_label, label = moves[0]
        raise UserError(
            f"{subject.location} has its classes in another order than {dataset.name} has here ('{name}' is its label "
            f"{own_label}, and that of the images {label}; {len(moves)} of {len(labels)} names differ so): its answers "
            "would count for other classes. Let its outputs, and the names that it is loaded with, be in the order of "
            "the images' labels."
        )
