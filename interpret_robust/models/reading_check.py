"""Whether a model is right on more images where they are asked, or its answers read, in another way."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor

from interpret_robust.core.random_numbers import generator_states
from interpret_robust.core.statistics import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.datasets.pictures import PictureArray
from interpret_robust.models.answer_checks import SMALL
from interpret_robust.models.classifier import predicted_classes
from interpret_robust.models.normalization import Statistics
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.recalibrate import use_batch_statistics
from interpret_robust.models.wrapper import WrappedModel

NORMALIZATION_IMAGES = 100
"""Images on which a model's normalization is tried out, of at most SMALL pixels; of larger ones a third."""

MOST_NAMES = 3
"""Normalizations that a sentence names, the most accurate ones."""

BATCH_SIZE = 25
"""Images that are asked at once there."""

SIGNIFICANT = 0.01

MOSTLY_SAME = 0.7
"""Share of classes with a wrong image whose other image has to be called the same, for their order to be in doubt."""

UNEVEN = 1.5
"""Times its fair share of a split from which on the largest class makes guessing easier."""

LEAST_WRONG = 8
"""The fewest images, all right under one normalization and wrong under another, that McNemar's test at 0.01 tells."""

FEW_CLASSES = 4
"""Images for each class from which on the best order of classes is looked for; of more classes single ones are."""

ORDER_IMAGES = 500
"""Images on which the order of the classes is looked for and confirmed, where those of the trial hint at another."""

LEAST_GAIN = 0.05
"""Share of images that have to be right in another order, and wrong in this one, for more to be asked."""

LARGEST = 128
"""The largest size that smaller images are tried in."""

LEAST_ORDERED = 0.35
"""Share of images that have to be right in another order of the classes.

Of 100 images of CIFAR-10, bad models (untrained, or asked about dimmed, transposed or inverted images) were right on at
most 0.32 in another order. No file was kept of this.
"""

Right = npt.NDArray[np.bool_]
"""Which images (N,) are right."""


class Judgment(NamedTuple):
    """Images (N, C, H, W) and labels (N,) that a model was asked, and which it has right.

    `guesses` is the share that is right without looking at images.
    """

    images: Tensor
    labels: Labels
    right: Right
    guesses: float

    @property
    def accuracy(self) -> float:
        """Return the share of images that are right."""
        return float(self.right.mean())

    def is_better_than_guessing(self) -> bool:
        """Return whether that cannot be luck: an exact binomial test at SIGNIFICANT."""
        return _is_above(self.right, self.guesses)


def check_reading(
    model: WrappedModel, data: Dataset, normalize: str, alternatives: Mapping[str, Statistics]
) -> tuple[Judgment, str | None]:
    """Return how a model does on a few test images, and a doubt about how these are asked or its answers read, or None.

    In doubt is a model that is right on more images if it is asked otherwise (McNemar's exact test at SIGNIFICANT), and
    one that is not better than always giving the most frequent class (an exact binomial test). Few images tell neither.
    Without alternatives, as with random weights, only the second is tried. Sentences begin with a verb, to be read
    behind the model's name.

    Args:
        model, data: what is asked, and whose test images: NORMALIZATION_IMAGES at most, and ORDER_IMAGES where these
            hint at another order of the classes.
        normalize: how its normalization is typed.
        alternatives: other normalizations by name.

    Example:
        >>> judgment, doubt = check_reading(model, data, "none", STATISTICS)
    """
    side = model.preprocess.size or max(data.image_shape[1:])
    split = data.test.draw(NORMALIZATION_IMAGES if side * side <= SMALL else NORMALIZATION_IMAGES // 3)
    images = to_pixels(to_device(split, model.preprocess.mean.device)[0])
    logits = _answers(model, images, model.preprocess)
    chance, largest = 1 / len(data.class_names), float(np.bincount(data.test.labels).max() / len(data.test))
    is_even = largest <= UNEVEN * chance
    judgment = Judgment(images, split.labels, _classes(logits) == split.labels, chance if is_even else largest)
    summary = f"is right on {judgment.accuracy:.0%} of {len(split)} test images"
    # Of fewer wrong images no other way could be significantly better.
    if (
        alternatives
        and int((~judgment.right).sum()) >= LEAST_WRONG
        and _is_steady(model, images[:BATCH_SIZE], logits[:BATCH_SIZE])
    ):
        doubts = chain(
            _doubt_about_normalization(model, judgment, normalize, alternatives),
            _doubt_about_reading(model, judgment, logits),
            _doubt_about_size(model, judgment, _own_side(data)),
            _doubt_about_statistics(model, judgment),
            _doubt_about_order(model, judgment, logits, data),
            _doubt_about_few(model, judgment, logits, data),
        )
        for doubt in islice(doubts, 1):
            return judgment, summary + doubt
    if not judgment.is_better_than_guessing() and judgment.guesses ** len(split) <= SIGNIFICANT:
        guess = "guessing" if is_even else "always naming the most frequent class"
        remedy = (
            "are its normalization and the order of its classes right?" if alternatives else "its weights are random."
        )
        return judgment, f"{summary}, hardly more than {guess} ({judgment.guesses:.0%}): {remedy}"
    return judgment, None


def _is_steady(model: WrappedModel, images: Tensor, logits: Tensor) -> bool:
    """Return whether images get these logits (N, classes) again, and no random numbers that differ by call."""
    is_equal = torch.equal(_answers(model, images, model.preprocess), logits)
    states = []
    for _ in range(2):  # equal ones where each call sets the seed
        _answers(model, images[:1], model.preprocess)
        states.append(generator_states(images.device))
    return is_equal and states[0] == states[1]


def _is_better(other: Right, judgment: Judgment) -> bool:
    """Return whether more images are right in another way, more than by luck, and better than by guessing."""
    is_more = other.mean() > judgment.accuracy and mcnemar(other, judgment.right).p_value < SIGNIFICANT
    return is_more and _is_above(other, judgment.guesses)


def _doubt_about_normalization(
    model: WrappedModel, judgment: Judgment, normalize: str, alternatives: Mapping[str, Statistics]
) -> Iterator[str]:
    """Yield the end of a sentence where more images are right under other normalizations."""
    rights = _judge_normalizations(model, judgment.images, judgment.labels, alternatives)
    better = {name: float(other.mean()) for name, other in rights.items() if _is_better(other, judgment)}
    if better:
        names = sorted(better, key=better.__getitem__)[: -MOST_NAMES - 1 : -1]
        listing = ", ".join(f"{better[name]:.0%} with {name}" for name in names)
        yield f" with --normalize {normalize}, and on {listing}: give --normalize as the network was trained."


def _doubt_about_reading(model: WrappedModel, judgment: Judgment, logits: Tensor) -> Iterator[str]:
    """Yield the end of a sentence where more images are right if answers (N, classes) are read otherwise: the best."""
    readings = [
        (float(other.mean()), condition)
        for other, condition in _try_other_readings(model, judgment.images, judgment.labels, logits)
        if _is_better(other, judgment)
    ]
    if readings:
        accuracy, condition = max(readings, key=itemgetter(0))
        yield f", and on {accuracy:.0%} {condition}"


def _own_side(data: Dataset) -> int | None:
    """Return the shorter side of the first test picture before it is resized; None for arrays."""
    images: Any = data.test.images
    return min(images.own_size) if isinstance(images, PictureArray) and images.framing is not None else None


def _doubt_about_size(model: WrappedModel, judgment: Judgment, own_side: int | None) -> Iterator[str]:
    """Yield the end of a sentence where more images are right at another size: the best of half and of larger ones.

    Pictures that are enlarged are also tried about as small as they are.
    """
    height, width = judgment.images.shape[2:]
    side = model.preprocess.size or height
    if model.preprocess.size is None and height != width:
        return
    mean, deviation = (tuple(numbers.flatten().tolist()) for numbers in model.preprocess.buffers())
    trials: list[tuple[float, int, Judgment]] = []
    for size, count in _other_sizes(side, len(judgment.labels), own_side):
        part = Judgment(judgment.images[:count], judgment.labels[:count], judgment.right[:count], judgment.guesses)
        other = Preprocess(mean, deviation, size).to(part.images.device)
        with suppress(Exception):  # many networks take one size
            right = _classes(_answers(model, part.images, other)) == part.labels
            if _is_better(right, part):
                trials.append((float(right.mean()), size, part))
    if trials:
        accuracy, size, part = max(trials, key=lambda trial: trial[0] - trial[2].accuracy)
        images_tried = "" if len(part.labels) == len(judgment.labels) else f" of {len(part.labels)} of them"
        remedy = (
            f"pictures of that size are enlarged to {side}, and --size {size} keeps them as they are."
            if size == own_side
            else "give --resize as the network was trained."
        )
        yield f", and with --resize {size} on {accuracy:.0%}{images_tried}: {remedy}"


@torch.no_grad()
def _doubt_about_statistics(model: WrappedModel, judgment: Judgment) -> Iterator[str]:
    """Yield the end of a sentence where more images are right by batch norms with these images' statistics.

    What enters these layers is then not what it was in training, whatever the reason.
    """
    right = judgment.right
    with use_batch_statistics(model.backbone) as has_norms, suppress(Exception):  # some read the statistics themselves
        if has_norms:
            right = _classes(model(judgment.images)) == judgment.labels
    if _is_better(right, judgment):
        yield (
            f", and on {right.mean():.0%} where its batch norms use the mean and variance of these images instead of "
            "those of its training: are its layers (activations, padding, pooling) and its statistics those that it "
            "was trained with, and its images prepared alike?"
        )


def _other_sizes(side: int, count: int, own_side: int | None) -> Iterator[tuple[int, int]]:
    """Yield other sizes of images, and how many of `count` are asked in them: fewer where they are much larger."""
    if own_side is not None and own_side < side and own_side != side // 2:
        yield own_side, count
    yield side // 2, count
    yield from ((factor * side, 4 * count // factor**2) for factor in (2, 4) if factor * side <= LARGEST)


def _doubt_about_order(model: WrappedModel, judgment: Judgment, logits: Tensor, data: Dataset) -> Iterator[str]:
    """Yield the end of a sentence where single classes seem to be in another order than the labels."""
    if not len(judgment.labels) // FEW_CLASSES < logits.shape[1] <= len(judgment.labels):
        return
    pairs = _pairs(judgment.labels, ~judgment.right, data.test.labels)
    if len(pairs) >= LEAST_WRONG:
        moves = _moves(model, data, _classes(logits), pairs, judgment.labels[judgment.right])
        yield from (f". {move}" for move in filter(None, [moves]))


def _doubt_about_few(model: WrappedModel, judgment: Judgment, logits: Tensor, data: Dataset) -> Iterator[str]:
    """Yield the end of a sentence where a few classes seem to be in another order, which more images have to confirm.

    The best order for the images that were tried is a guess, and other images judge it.
    """
    count, classes = len(judgment.labels), logits.shape[1]
    others = data.test.draw(ORDER_IMAGES).take(slice(count, None))
    if classes > count // FEW_CLASSES or len(others) < count:
        return
    predicted = _classes(logits)
    order = _best_order(predicted, judgment.labels, classes)
    gain = (order[judgment.labels] == predicted).mean() - judgment.accuracy
    if gain < LEAST_GAIN:
        return
    images = to_pixels(to_device(others, model.preprocess.mean.device)[0])
    predicted = _classes(_answers(model, images, model.preprocess))
    confirmation = Judgment(images, others.labels, predicted == others.labels, judgment.guesses)
    right = order[others.labels] == predicted
    if right.mean() > LEAST_ORDERED and _is_better(right, confirmation):
        yield (
            f". Of {len(others)} others it is right on {confirmation.accuracy:.0%}, and on {right.mean():.0%} if its "
            f"classes are read in another order ({_describe(order.tolist())}): give them the order of the data's "
            "labels."
        )


def _describe(order: list[int]) -> str:
    """Return which class stands for each label that has another than its own."""
    return ", ".join(f"{label} as {place}" for label, place in enumerate(order) if label != place)


def _is_above(right: Right, chance: float) -> bool:
    return bool(scipy.special.bdtrc(right.sum() - 1, len(right), chance) <= SIGNIFICANT)


def _classes(logits: Tensor) -> npt.NDArray[np.int64]:
    classes: npt.NDArray[np.int64] = predicted_classes(logits).cpu().numpy()
    return classes


@torch.no_grad()
def _answers(model: WrappedModel, images: Tensor, preprocess: Preprocess) -> Tensor:
    """Return the logits of images (N, C, H, W) behind another preprocessing."""
    own_preprocess = model.preprocess
    model.preprocess = preprocess
    try:
        return torch.cat([model(batch) for batch in torch.split(images, BATCH_SIZE)])
    finally:
        model.preprocess = own_preprocess


def _judge_normalizations(
    model: WrappedModel, images: Tensor, labels: Labels, alternatives: Mapping[str, Statistics]
) -> dict[str, Right]:
    """Return which images are right under each normalization that is another than the model's."""
    rights = {}
    for name, (mean, deviation) in alternatives.items():
        other = Preprocess(mean, deviation, model.preprocess.size).to(images.device)
        if len(mean) in (1, images.shape[1]) and not other.is_like(model.preprocess):
            rights[name] = _classes(_answers(model, images, other)) == labels
    return rights


def _try_other_readings(
    model: WrappedModel, images: Tensor, labels: Labels, logits: Tensor
) -> Iterator[tuple[Right, str]]:
    """Yield which images are right where the model is asked or read otherwise, and how, as the end of a sentence."""
    yield (
        _classes(-logits) == labels,
        "if the smallest number counts: does it answer with distances? Return their negative.",
    )
    if images.shape[1] > 1:
        yield (
            _classes(_answers(model, images.flip(1), model.preprocess)) == labels,
            "with the colors in reverse order: was it trained on BGR? Let its forward flip the channels.",
        )
    predicted, classes = _classes(logits), logits.shape[1]
    if classes <= len(labels) // FEW_CLASSES:
        right, order = _judge_order(predicted, labels, classes)
        moves = _describe(order)
        if right.mean() > LEAST_ORDERED:
            yield (
                right,
                f"if its classes are read in another order ({moves}): give them the order of the data's labels.",
            )
    for rearranged_images, condition in _rearrange(images):
        yield _classes(_answers(model, rearranged_images, model.preprocess)) == labels, condition


def _rearrange(images: Tensor) -> Iterator[tuple[Tensor, str]]:
    """Yield images (N, C, H, W) with other brightness or other places of pixels, and how, as the end of a sentence."""
    yield 1 - images, "with bright and dark exchanged: was it trained on such images? Let its forward take 1 - pixels."
    yield (
        images.flip(2),
        "upside down, as formats have them whose first row is the lowest: were the images of its training, or are "
        "these? Turn them in the data, or in its forward.",
    )
    if images.shape[2] == images.shape[3]:
        yield (
            images.transpose(2, 3),
            "with rows and columns exchanged, as files of MATLAB have them: were the images of its training, or are "
            "these? Exchange them in the data, or in its forward.",
        )
    count, channels, height, width = images.shape
    if channels > 1:
        for other_images in (
            images.permute(0, 2, 3, 1).reshape(images.shape),
            images.reshape(count, height, width, channels).permute(0, 3, 1, 2),
        ):
            yield (
                other_images,
                "with the numbers of an image read in another order of its axes: were the images of its training, or "
                "these, reshaped from channels first to channels last, or back? Move the axes, as numpy.moveaxis does.",
            )


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
    predicted: npt.NDArray[np.int64],
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
    second = _classes(_answers(model, images, model.preprocess))
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


def _is_moved(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], right_labels: Labels) -> Right:
    """Return which classes (N,) have two images that are called alike, and as no other class is, right or wrong."""
    names, counts = np.unique(first, return_counts=True)
    is_only = np.isin(first, names[counts == 1]) & ~np.isin(first, right_labels)
    is_moved: Right = (second == first) & is_only & (first >= 0)
    return is_moved


def _judge_order(predicted: npt.NDArray[np.int64], labels: Labels, classes: int) -> tuple[Right, list[int]]:
    """Return which images are right in the order of classes that suits the others best, and the order of all.

    Each half of the images of a class is judged by the order that suits the other half.
    """
    half = np.array([(labels[:place] == label).sum() % 2 for place, label in enumerate(labels)])
    right = np.zeros(len(labels), np.bool_)
    for part in (0, 1):
        order = _best_order(predicted[half != part], labels[half != part], classes)
        right[half == part] = order[labels[half == part]] == predicted[half == part]
    return right, _best_order(predicted, labels, classes).tolist()


def _best_order(predicted: npt.NDArray[np.int64], labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Return the class (classes,) that stands for each label where most images are right, its own where as many are."""
    counts = 0.5 * np.eye(classes)
    np.add.at(counts, (labels[predicted >= 0], predicted[predicted >= 0]), 1)
    order: npt.NDArray[np.int64] = scipy.optimize.linear_sum_assignment(counts, maximize=True)[1]
    return order
