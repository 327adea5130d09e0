"""Whether a model is right on more images where they are asked, or its answers read, in another way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interpret_robust.core.random_numbers import read_generator_states
from interpret_robust.core.significance import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.datasets.pictures import PictureArray
from interpret_robust.models.checks.answers import SMALL
from interpret_robust.models.checks.image_forms import Change, list_colors, list_forms, list_standardized
from interpret_robust.models.checks.judgment import (
    BATCH_SIZE,
    LEAST_WRONG,
    SIGNIFICANT,
    Judgment,
    Right,
    ask,
    classify,
    count_flat,
    is_better,
)
from interpret_robust.models.checks.order import LEAST_GAIN, describe_order, doubt_about_order, draw_more, reorder
from interpret_robust.models.normalization import Statistics
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

HINT = 0.1
"""The p of McNemar's test up to which another way that gains LEAST_GAIN is asked of more images."""

Answer = Callable[[Tensor], Tensor]
"""Gives logits (N, classes) of images (N, C, H, W)."""


class Way(NamedTuple):
    """Which images (N,) are right if they are asked or read in another way.

    `end` says how, as the end of a sentence, behind a `name` where it is a normalization. `answer` gives the logits of
    other images asked so; it is None for another way to read answers.
    """

    right: Right
    end: str
    name: str = ""
    answer: Answer | None = None

    def accuracy(self) -> float:
        """Return the share of images that are right."""
        return float(self.right.mean())


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
    right = classify(logits) == split.labels
    judgment = Judgment(images, split.labels, right, chance if is_even else largest, count_flat(logits, right))
    # Of fewer wrong images no other way could be significantly better.
    if (
        alternatives
        and int((~judgment.right).sum()) >= LEAST_WRONG
        and _is_steady(model, images[:BATCH_SIZE], logits[:BATCH_SIZE])
    ):
        normalizations = list(_judge_normalizations(model, judgment, alternatives))
        readings = list(_judge_readings(model, judgment, logits))
        doubts = chain(
            _doubt_about_reading(model, judgment, logits, data, normalize, normalizations, readings),
            _doubt_about_size(model, judgment, _own_side(data)),
            _doubt_about_statistics(model, judgment),
            _doubt_about_hints(model, judgment, data, [*normalizations, *readings]),
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
        states.append(read_generator_states(images.device))
    return is_equal and states[0] == states[1]


def _doubt_about_reading(
    model: WrappedModel,
    judgment: Judgment,
    logits: Tensor,
    data: Dataset,
    normalize: str,
    normalizations: Sequence[Way],
    readings: Sequence[Way],
) -> Iterator[str]:
    """Yield the end of a sentence where more images are right if they are asked, or their logits read, otherwise.

    The best way is named: a normalization, unless another way is significantly better than all of these.
    """
    ways = [way for way in normalizations if is_better(way.right, judgment)]
    best = max(ways, key=Way.accuracy, default=None)
    rival = judgment if best is None else judgment._replace(right=best.right)
    other_ways = [way for way in readings if is_better(way.right, rival)]
    if other_ways:
        way = max(other_ways, key=Way.accuracy)
        yield f", and on {way.accuracy():.0%} {way.end or describe_order(model, judgment, logits, data)}"
    elif best is not None:
        yield f" with --normalize {normalize}, and on {_list_normalizations(ways, data.name)}"


def _doubt_about_hints(model: WrappedModel, judgment: Judgment, data: Dataset, ways: Sequence[Way]) -> Iterator[str]:
    """Yield the end of a sentence where the images that were tried hint at another way, and more confirm it."""
    hints = [way for way in ways if way.answer is not None and _is_hint(way, judgment)]
    best = max(hints, key=Way.accuracy, default=None)
    if best is None or best.answer is None or len(data.test) < 2 * len(judgment.labels):
        return
    images, labels = draw_more(model, judgment, data)
    confirmation = judgment._replace(right=classify(ask(model, images, model.preprocess)) == labels, labels=labels)
    right = classify(best.answer(images)) == labels
    if is_better(right, confirmation):
        how = f"with {best.name}: {best.end}." if best.name else best.end
        yield f". Of {len(labels)} others it is right on {confirmation.accuracy:.0%}, and on {right.mean():.0%} {how}"


def _is_hint(way: Way, judgment: Judgment) -> bool:
    """Return whether another way may be better, though the images are too few to tell."""
    is_more = way.accuracy() - judgment.accuracy >= LEAST_GAIN
    return is_more and mcnemar(way.right, judgment.right).p_value < HINT


def _list_normalizations(ways: list[Way], data_name: str) -> str:
    """Return the best normalizations, that of the data, and one of each remedy among equally good ones."""
    ranking = sorted(ways, key=Way.accuracy, reverse=True)
    equals = {way.end: way for way in reversed(ranking) if way.accuracy() == ranking[0].accuracy()}
    best_ways = [way for place, way in enumerate(ranking) if place < MOST_NAMES or way.name == data_name]
    names = dict.fromkeys((way.accuracy(), way.name) for way in (*best_ways, *equals.values()))
    listing = ", ".join(f"{accuracy:.0%} with {name}" for accuracy, name in names)
    return f"{listing}: {', or '.join(sorted(equals))}."


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
    model: WrappedModel, judgment: Judgment, alternatives: Mapping[str, Statistics]
) -> Iterator[Way]:
    """Yield each normalization that is another than the model's, and each image's own."""
    images = judgment.images
    for name, (mean, deviation) in alternatives.items():
        other = Preprocess(mean, deviation, model.preprocess.size).to(images.device)
        if len(mean) in (1, images.shape[1]) and not other.is_like(model.preprocess):
            answer = _compose(model, Tensor.clone, other)
            yield Way(_judge(judgment, answer), "give --normalize as the network was trained", name, answer)
    plain = Preprocess((0.0,), (1.0,), model.preprocess.size).to(images.device)
    for change, name in list_standardized():
        answer = _compose(model, change, plain)
        yield Way(
            _judge(judgment, answer), "let its forward standardize each image, with --normalize none", name, answer
        )


def _judge_readings(model: WrappedModel, judgment: Judgment, logits: Tensor) -> Iterator[Way]:
    """Yield each other form of images, and each way to read the answers to them (N, classes).

    That of another order of the classes has an empty end: more images are needed to name it.
    """
    yield Way(
        classify(-logits) == judgment.labels,
        "if the smallest number counts: does it answer with distances? Return their negative.",
    )
    shape = judgment.images.shape[1:]
    for change, condition in list_colors(shape[0]):
        answer = _compose(model, change, model.preprocess)
        yield Way(_judge(judgment, answer), condition, answer=answer)
    yield from (Way(right, "") for right in reorder(logits, judgment.labels))
    for change, condition in list_forms(shape):
        answer = _compose(model, change, model.preprocess)
        yield Way(_judge(judgment, answer), condition, answer=answer)


def _compose(model: WrappedModel, change: Change, preprocess: Preprocess) -> Answer:
    """Return what answers images in another form and behind another preprocessing."""
    return lambda images: ask(model, change(images), preprocess)


def _judge(judgment: Judgment, answer: Answer) -> Right:
    """Return which images (N,) are right by other answers.

    Where the first half has fewer right than the model as it is, the second is not asked, and counts as wrong; so does
    what a model refuses, as numbers outside of [0, 1].
    """
    images, labels = judgment.images, judgment.labels
    half, right = (len(images) + 1) // 2, np.zeros(len(images), np.bool_)
    with suppress(Exception):
        for part in (slice(0, half), slice(half, None)):
            right[part] = classify(answer(images[part])) == labels[part]
            if right[:half].sum() < judgment.right[:half].sum():
                break
    return right
