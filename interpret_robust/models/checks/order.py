"""Whether a model has its classes in the order of the data's labels."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy
from torch import Tensor

from interpret_robust.core.significance import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.checks.judgment import LEAST_WRONG, SIGNIFICANT, Judgment, Right, ask, classify, is_better
from interpret_robust.models.wrapper import WrappedModel

Classes = npt.NDArray[np.int64]
"""A class for each image (N,) or for each label (classes,)."""

MOSTLY_SAME = 0.7
"""Share of classes with a wrong image whose other image has to be called the same, for their order to be in doubt."""

FEW_CLASSES = 4
"""Images for each class from which on the best order of classes is looked for; of more classes single ones are."""

MORE_IMAGES = 5
"""Times as many images are asked, those of the trial among them, where these hint at another order of few classes."""

LEAST_GAIN = 0.05
"""Share of images that have to be right in another order, and wrong in this one, for more to be asked."""

ORDER_REMEDY = (
    "give them the order of the data's labels; for pictures, --classes FILE names them in the network's order."
)

LEAST_ORDERED = 0.35
"""Share of images that have to be right in another order of the classes.

Of 100 images of CIFAR-10, bad models (untrained, or asked about dimmed, transposed or inverted images) were right on at
most 0.32 in another order. No file was kept of this.
"""


def reorder(logits: Tensor, labels: Labels) -> Iterator[Right]:
    """Yield which images are right if classes are read in the order that suits most images; nothing where images are
    few for the classes, or few are right in any order.

    Args:
        logits: answers to images, (N, classes).
        labels: theirs, (N,).

    Example:
        >>> [int(right.sum()) for right in reorder(torch.eye(3).flip(1).repeat(8, 1), np.arange(24) % 3)]
        [24]
    """
    if logits.shape[1] <= len(labels) // FEW_CLASSES:
        right = _judge_order(classify(logits), labels, logits.shape[1])
        if right.mean() > LEAST_ORDERED:
            yield right


def describe_order(model: WrappedModel, judgment: Judgment, logits: Tensor, data: Dataset) -> str:
    """Return the order of classes that suits most of MORE_IMAGES times as many images, as the end of a sentence.

    The images that were tried are too few to name each class of a model that is often wrong. Arguments are those of
    `doubt_about_order`.

    Example:
        >>> describe_order(model, judgment, logits, data)
        "if its classes are read in another order (0 as 1, 1 as 0): give them the order of the data's labels; ..."
    """
    images, labels = draw_more(model, judgment, data)
    predicted = [classify(logits), *([classify(ask(model, images, model.preprocess))] if len(images) else [])]
    order = _best_order(np.concatenate(predicted), np.concatenate([judgment.labels, labels]), logits.shape[1])
    return _describe(order, data.class_names)


def doubt_about_order(model: WrappedModel, judgment: Judgment, logits: Tensor, data: Dataset) -> Iterator[str]:
    """Yield the end of a sentence where classes seem to be in another order than the labels.

    Args:
        model, data: what was asked, and whose test images.
        judgment: the images that were tried, the first ones of these.
        logits: its answers to them, (N, classes).

    Example:
        >>> list(doubt_about_order(model, judgment, logits, data))
        []
    """
    if logits.shape[1] <= len(judgment.labels) // FEW_CLASSES:
        yield from _doubt_about_few(model, judgment, logits, data)
    elif logits.shape[1] <= len(judgment.labels):
        yield from _doubt_about_many(model, judgment, logits, data)


def _doubt_about_many(model: WrappedModel, judgment: Judgment, logits: Tensor, data: Dataset) -> Iterator[str]:
    """Yield the end of a sentence where single classes seem to be in another order."""
    pairs = _pairs(judgment.labels, ~judgment.right, data.test.labels)
    if len(pairs) >= LEAST_WRONG:
        moves = _moves(model, data, classify(logits), pairs, judgment.labels[judgment.right])
        yield from (f". {move}" for move in filter(None, [moves]))


def _doubt_about_few(model: WrappedModel, judgment: Judgment, logits: Tensor, data: Dataset) -> Iterator[str]:
    """Yield the end of a sentence where a few classes seem to be in another order, which more images have to confirm.

    The best order for the images that were tried is a guess, and other images judge it.
    """
    count, predicted = len(judgment.labels), classify(logits)
    order = _best_order(predicted, judgment.labels, logits.shape[1])
    gain = (order[judgment.labels] == predicted).mean() - judgment.accuracy
    if gain < LEAST_GAIN or len(data.test) < 2 * count:
        return
    images, labels = draw_more(model, judgment, data)
    predicted = classify(ask(model, images, model.preprocess))
    confirmation = judgment._replace(right=predicted == labels, labels=labels)
    right = order[labels] == predicted
    if right.mean() > LEAST_ORDERED and is_better(right, confirmation):
        yield (
            f". Of {len(labels)} others it is right on {confirmation.accuracy:.0%}, and on {right.mean():.0%} "
            f"{_describe(order, data.class_names)}"
        )


def draw_more(model: WrappedModel, judgment: Judgment, data: Dataset) -> tuple[Tensor, Labels]:
    """Return test images (N, C, H, W) that were not tried, MORE_IMAGES times as many with these, and labels (N,).

    Example:
        >>> images, labels = draw_more(model, judgment, data)
    """
    count = len(judgment.labels)
    split = data.test.take(data.test.drawing_order[count : MORE_IMAGES * count])
    if len(split) == 0:
        return judgment.images[:0], split.labels
    return to_pixels(to_device(split, model.preprocess.mean.device)[0]), split.labels


def _describe(order: Classes, names: Sequence[str]) -> str:
    """Return the end of a sentence: which class stands for each label that has another than its own, and a remedy.

    Labels have their names beside them where these do not end in their numbers.
    """
    numbers = [int(match[0]) if (match := re.search(r"\d+$", name)) else None for name in names]
    texts = [
        str(label) if number == label else f"{label} ('{name}')"
        for label, (name, number) in enumerate(zip(names, numbers, strict=True))
    ]
    moves = ", ".join(f"{texts[label]} as {place}" for label, place in enumerate(order) if label != place)
    is_text_order = list(names) == sorted(names) and 10 in numbers and numbers.index(10) != 10
    sorting = " Names sorted as text have '10' before '2'." if is_text_order else ""
    return f"if its classes are read in another order ({moves}): {ORDER_REMEDY}{sorting}"


def _pairs(labels: Labels, is_wrong: Right, all_labels: Labels) -> list[tuple[int, int]]:
    """Return an image that is wrong and the place in the split of another image of its class, for each such class.

    `labels` (N,) are those of the images that were tried, `all_labels` those of the split. A class without another
    image is left out.
    """
    pairs = []
    for label in np.unique(labels[is_wrong]):
        image = int(np.flatnonzero(is_wrong & (labels == label))[0])
        rank = int((labels[:image] == label).sum())
        places = np.delete(np.flatnonzero(all_labels == label), rank)
        if len(places):
            pairs.append((image, int(places[-1])))
    return pairs


def _moves(
    model: WrappedModel,
    data: Dataset,
    predicted: Classes,
    pairs: list[tuple[int, int]],
    right_labels: Labels,
) -> str | None:
    """Return a sentence where another image of a class is called what the first was called, and seldom by its label.

    For each class that one image of was wrong there is one other image, so that classes are independent. A wrong class
    counts for the only label that was called so: many labels that are called alike are no order. Nor is it one where
    images of that class are right, those of `right_labels`.
    """
    split = data.test.take(np.array([place for _, place in pairs]))
    images = to_pixels(to_device(split, model.preprocess.mean.device)[0])
    second = classify(ask(model, images, model.preprocess))
    first = predicted[[image for image, _ in pairs]]
    is_moved, is_right = _is_moved(first, second, right_labels), second == split.labels
    if is_moved.mean() <= MOSTLY_SAME or mcnemar(is_moved, is_right).p_value >= SIGNIFICANT:
        return None
    moves = ", ".join(
        f"{label} as {place}" for label, place in zip(split.labels[is_moved], first[is_moved], strict=True)
    )
    return (
        f"Of {len(pairs)} classes of which an image was wrong, another image is called the same wrong class in "
        f"{is_moved.sum()} and its own in {is_right.sum()} ({moves}): are its classes in the order of the data's "
        "labels?"
    )


def _is_moved(first: Classes, second: Classes, right_labels: Labels) -> Right:
    """Return which classes (N,) have two images that are called alike, and as no other class is, right or wrong."""
    names, counts = np.unique(first, return_counts=True)
    is_only = np.isin(first, names[counts == 1]) & ~np.isin(first, right_labels)
    is_moved: Right = (second == first) & is_only & (first >= 0)
    return is_moved


def _judge_order(predicted: Classes, labels: Labels, classes: int) -> Right:
    """Return which images are right in the order of classes that suits the others best.

    Each half of the images of a class is judged by the order that suits the other half.
    """
    half = np.array([(labels[:place] == label).sum() % 2 for place, label in enumerate(labels)])
    right = np.zeros(len(labels), np.bool_)
    for part in (0, 1):
        order = _best_order(predicted[half != part], labels[half != part], classes)
        right[half == part] = order[labels[half == part]] == predicted[half == part]
    return right


def _best_order(predicted: Classes, labels: Labels, classes: int) -> Classes:
    """Return the class (classes,) that stands for each label where most images are right, its own where as many are."""
    counts = 0.5 * np.eye(classes)
    np.add.at(counts, (labels[predicted >= 0], predicted[predicted >= 0]), 1)
    order: Classes = scipy.optimize.linear_sum_assignment(counts, maximize=True)[1]
    return order
