"""A model that questions are asked of, whoever made it: what analyses need to know."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.base import Dataset
from interpret_robust.models import Classifier


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
        `seed` None, `recipe` holds the radius that attacks take by default, and `card` how it was found.
        """

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what makes answers that rest on it doubtful, a sentence each; none of a checkpoint of ours."""

    def local_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of its local features; zeros where it has none."""

    def model(self, device: torch.device) -> Classifier:
        """Return the model on `device`, in eval mode."""


def check_fit(subject: Subject, dataset: Dataset) -> None:
    """Raise UserError where a model and a dataset differ in the size of images or the number of classes."""
    job = subject.job
    if tuple(job["image_shape"]) != dataset.image_shape or len(job["class_names"]) != len(dataset.class_names):
        raise UserError(
            f"{subject.location} was trained on {job['dataset']} (images {job['image_shape']}, "
            f"{len(job['class_names'])} classes), which does not fit {dataset.name} "
            f"(images {list(dataset.image_shape)}, {len(dataset.class_names)} classes)."
        )
