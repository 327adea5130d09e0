"""What a model has right of a few images, and whether it would have more right in another way."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor

from interpret_robust.core.significance import mcnemar
from interpret_robust.datasets.base import Labels
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel

BATCH_SIZE = 25
"""Images that are asked at once."""

SIGNIFICANT = 0.01

LEAST_WRONG = 8
"""The fewest images, all right under one normalization and wrong under another, that McNemar's test at 0.01 tells."""

Right = npt.NDArray[np.bool_]
"""Which images (N,) are right."""


class Judgment(NamedTuple):
    """Images (N, C, H, W) and labels (N,) that a model was asked, and which it has right.

    `guesses` is the share that is right without looking at images, and `flat_count` how many images are right and have
    no gradient of the cross-entropy.
    """

    images: Tensor
    labels: Labels
    right: Right
    guesses: float
    flat_count: int = 0

    @property
    def accuracy(self) -> float:
        """Return the share of images that are right."""
        return float(self.right.mean())

    @property
    def summary(self) -> str:
        """Return the beginning of a sentence, such as `is right on 42% of 100 test images`."""
        return f"is right on {self.accuracy:.0%} of {len(self.labels)} test images"

    def is_better_than_guessing(self) -> bool:
        """Return whether that cannot be luck: an exact binomial test at SIGNIFICANT."""
        return is_above(self.right, self.guesses)


def is_better(other: Right, judgment: Judgment) -> bool:
    """Return whether more images are right in another way, more than by luck, and better than by guessing."""
    is_more = other.mean() > judgment.accuracy and mcnemar(other, judgment.right).p_value < SIGNIFICANT
    return is_more and is_above(other, judgment.guesses)


def is_above(right: Right, chance: float) -> bool:
    """Return whether more images are right than by chance: an exact binomial test at SIGNIFICANT."""
    return is_above_chance(int(right.sum()), len(right), chance)


def is_above_chance(count: int, images: int, chance: float) -> bool:
    """Return whether so many of some images are right by more than chance: an exact binomial test at SIGNIFICANT.

    Example:
        >>> is_above_chance(10, 100, 0.1), is_above_chance(20, 100, 0.1)
        (False, True)
    """
    return bool(scipy.special.bdtrc(count - 1, images, chance) <= SIGNIFICANT)


def count_flat(logits: Tensor, right: Right) -> int:
    """Return how many images are right with a softmax of their logits (N, classes) that is one and zeros in float32.

    What the cross-entropy's gradient begins with is the softmax less one at the label.

    Example:
        >>> count_flat(torch.tensor([[200.0, 0.0], [20.0, 0.0], [0.0, 200.0]]), np.array([True, True, False]))
        1
    """
    ordered = logits.softmax(1).sort(1, descending=True).values
    is_flat = (ordered[:, 0] == 1) & (ordered[:, 1:] == 0).all(1) & (logits.shape[1] > 1)
    return int((is_flat.cpu().numpy() & right).sum())


def classify(logits: Tensor) -> npt.NDArray[np.int64]:
    """Return the class (N,) of the highest of logits (N, classes), negative where they are not numbers."""
    classes: npt.NDArray[np.int64] = predict_classes(logits).cpu().numpy()
    return classes


@torch.no_grad()
def ask(model: WrappedModel, images: Tensor, preprocess: Preprocess) -> Tensor:
    """Return the logits of images (N, C, H, W) behind another preprocessing."""
    own_preprocess = model.preprocess
    model.preprocess = preprocess
    try:
        return torch.cat([model(batch) for batch in torch.split(images, BATCH_SIZE)])
    finally:
        model.preprocess = own_preprocess
