"""Whether a model is right on more images where they are asked, or its answers read, in another way."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpret_robust.core.random_numbers import generator_states
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.datasets.pictures import PictureArray
from interpret_robust.models.answer_checks import SMALL
from interpret_robust.models.judgment import (
    BATCH_SIZE,
    LEAST_WRONG,
    SIGNIFICANT,
    Judgment,
    Right,
    ask,
    classify,
    is_better,
)
from interpret_robust.models.normalization import Statistics
from interpret_robust.models.order_check import doubt_about_order, reorder
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.recalibrate import use_batch_statistics
from interpret_robust.models.wrapper import WrappedModel

NORMALIZATION_IMAGES = 100
"""Images on which a model's normalization is tried out, of at most SMALL pixels; of larger ones a third."""

MOST_NAMES = 3
"""Normalizations that a sentence names, the most accurate ones."""

UNEVEN = 1.5
"""Times its fair share of a split from which on the largest class makes guessing easier."""

LARGEST = 128
"""The largest size that smaller images are tried in."""


def check_reading(
    model: WrappedModel, data: Dataset, normalize: str, alternatives: Mapping[str, Statistics]
) -> tuple[Judgment, str | None]:
    """Return how a model does on a few test images, and a doubt about how these are asked or its answers read, or None.

    In doubt is a model that is right on more images if it is asked otherwise (McNemar's exact test at SIGNIFICANT), and
    one that is not better than always giving the most frequent class (an exact binomial test). Few images tell neither.
    Without alternatives, as with random weights, only the second is tried. Sentences begin with a verb, to be read
    behind the model's name.

    Args:
        model, data: what is asked, and whose test images: NORMALIZATION_IMAGES at most, and more where these hint
            at another order of the classes.
        normalize: how its normalization is typed.
        alternatives: other normalizations by name.

    Example:
        >>> judgment, doubt = check_reading(model, data, "none", STATISTICS)
    """
    side = model.preprocess.size or max(data.image_shape[1:])
    split = data.test.draw(NORMALIZATION_IMAGES if side * side <= SMALL else NORMALIZATION_IMAGES // 3)
    images = to_pixels(to_device(split, model.preprocess.mean.device)[0])
    logits = ask(model, images, model.preprocess)
    chance, largest = 1 / len(data.class_names), float(np.bincount(data.test.labels).max() / len(data.test))
    is_even = largest <= UNEVEN * chance
    judgment = Judgment(images, split.labels, classify(logits) == split.labels, chance if is_even else largest)
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
            doubt_about_order(model, judgment, logits, data),
        )
        for doubt in islice(doubts, 1):
            return judgment, judgment.summary + doubt
    if not judgment.is_better_than_guessing() and judgment.guesses ** len(split) <= SIGNIFICANT:
        guess = "guessing" if is_even else "always naming the most frequent class"
        remedy = (
            "are its normalization and the order of its classes right, and its weights those of its training?"
            if alternatives
            else "its weights are random."
        )
        more = "hardly more" if judgment.accuracy >= judgment.guesses else "no more"
        return judgment, f"{judgment.summary}, {more} than {guess} ({judgment.guesses:.0%}): {remedy}"
    return judgment, None


def _is_steady(model: WrappedModel, images: Tensor, logits: Tensor) -> bool:
    """Return whether images get these logits (N, classes) again, and no random numbers that differ by call."""
    is_equal = torch.equal(ask(model, images, model.preprocess), logits)
    states = []
    for _ in range(2):  # equal ones where each call sets the seed
        ask(model, images[:1], model.preprocess)
        states.append(generator_states(images.device))
    return is_equal and states[0] == states[1]


def _doubt_about_normalization(
    model: WrappedModel, judgment: Judgment, normalize: str, alternatives: Mapping[str, Statistics]
) -> Iterator[str]:
    """Yield the end of a sentence where more images are right under other normalizations."""
    rights = _judge_normalizations(model, judgment.images, judgment.labels, alternatives)
    better = {name: float(other.mean()) for name, other in rights.items() if is_better(other, judgment)}
    if better:
        names = sorted(better, key=better.__getitem__)[: -MOST_NAMES - 1 : -1]
        listing = ", ".join(f"{better[name]:.0%} with {name}" for name in names)
        yield f" with --normalize {normalize}, and on {listing}: give --normalize as the network was trained."


def _doubt_about_reading(model: WrappedModel, judgment: Judgment, logits: Tensor) -> Iterator[str]:
    """Yield the end of a sentence where more images are right if answers (N, classes) are read otherwise: the best."""
    readings = [
        (float(other.mean()), condition)
        for other, condition in _try_other_readings(model, judgment.images, judgment.labels, logits)
        if is_better(other, judgment)
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
            right = classify(ask(model, part.images, other)) == part.labels
            if is_better(right, part):
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
            right = classify(model(judgment.images)) == judgment.labels
    if is_better(right, judgment):
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


def _judge_normalizations(
    model: WrappedModel, images: Tensor, labels: Labels, alternatives: Mapping[str, Statistics]
) -> dict[str, Right]:
    """Return which images are right under each normalization that is another than the model's."""
    rights = {}
    for name, (mean, deviation) in alternatives.items():
        other = Preprocess(mean, deviation, model.preprocess.size).to(images.device)
        if len(mean) in (1, images.shape[1]) and not other.is_like(model.preprocess):
            rights[name] = classify(ask(model, images, other)) == labels
    return rights


def _try_other_readings(
    model: WrappedModel, images: Tensor, labels: Labels, logits: Tensor
) -> Iterator[tuple[Right, str]]:
    """Yield which images are right where the model is asked or read otherwise, and how, as the end of a sentence."""
    yield (
        classify(-logits) == labels,
        "if the smallest number counts: does it answer with distances? Return their negative.",
    )
    if images.shape[1] > 1:
        yield (
            classify(ask(model, images.flip(1), model.preprocess)) == labels,
            "with the colors in reverse order: was it trained on BGR? Let its forward flip the channels.",
        )
    yield from reorder(logits, labels)
    for rearranged_images, condition in _rearrange(images):
        yield classify(ask(model, rearranged_images, model.preprocess)) == labels, condition


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
