"""A trial of a model from elsewhere on a few images, before any question is asked of it.

What makes every answer meaningless is refused. What makes answers doubtful is one sentence each, with its remedy; these
sentences are kept in the files of all answers that rest on the model, and shown beside their numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.core.statistics import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.answer_checks import SMALL, doubts_about_gradients, doubts_about_logits
from interpret_robust.models.classifier import Classifier, predicted_classes
from interpret_robust.models.layers import Choice
from interpret_robust.models.preprocess import STATISTICS, Preprocess, Statistics
from interpret_robust.models.wrapped import WrappedModel

MANY_SKIPPED = 3
"""Layers behind the one that is taken from which on a sentence says so: one may be a change of shape."""

NORMALIZATION_IMAGES = 100
"""Images on which a model's normalization is tried out, of at most SMALL pixels; of larger ones a third."""


ANSWER_IMAGES = 8
"""Images on which answers and gradients are looked at."""

SIGNIFICANT = 0.01


class Trial(NamedTuple):
    """Natural accuracy of a model on a few test images, and what is doubtful about it, a sentence each."""

    accuracy: float
    images: int
    doubts: tuple[str, ...]


def try_out(
    model: WrappedModel,
    data: Dataset,
    label: str,
    normalize: str,
    layer: Choice | None,
    *,
    is_trained: bool = True,
) -> Trial:
    """Try a model on a few test images.

    Args:
        model: on the device on which it is tried.
        data: whose test images it sees: eight for its answers, at most NORMALIZATION_IMAGES for its normalization.
        label: what sentences call it.
        normalize: how its normalization is typed.
        layer: that its local features are taken from, None where it has none.
        is_trained: whether other normalizations are tried: without training none is right.

    Raises UserError where it gives no numbers at all, or where no gradient reaches the pixels: attacks and maps would
    mean nothing. The model's weights and the process's random numbers are left as found.

    Example:
        >>> try_out(wrapper, data, "timm:vit_tiny_patch16_224", "inception", None).doubts
        ()
    """
    device = model.preprocess.mean.device
    images = to_pixels(to_device(data.test.draw(ANSWER_IMAGES), device)[0])
    with preserve_random_numbers(device):
        doubts = list(doubts_about_answers(model, images, label))
        if layer is not None:
            doubts += _of_layer(layer, label)
        accuracy, count, doubt = _of_normalization(model, data, label, normalize, STATISTICS if is_trained else {})
    return Trial(accuracy, count, (*doubts, *filter(None, [doubt])))


def doubts_about_answers(model: Classifier, images: Tensor, label: str) -> Iterator[str]:
    """Yield what is doubtful about the answers of any model to a few images (N, C, H, W), and about their gradients.

    Raises UserError as `try_out` does. Random numbers are drawn from seed 0.

    Example:
        >>> list(doubts_about_answers(build("small", "average", (3, 32, 32), 10, seed=0).eval(), images, "mine"))
        []
    """
    torch.manual_seed(0)
    try:
        for doubt in (*doubts_about_logits(model, images), *doubts_about_gradients(model, images)):
            yield f"{label} {doubt}"
    except UserError as error:
        raise UserError(f"{label}: {error}") from error


def _of_layer(layer: Choice, label: str) -> Iterator[str]:
    if layer.skip_count >= MANY_SKIPPED:
        yield (
            f"{label}: local features are those of layer '{layer.name}', since the positions of {layer.skip_count} "
            "layers behind it are not in the order of the image. --local-layer names another."
        )
    if not layer.is_doubtful:
        return
    yield (
        f"{label}: a position of layer '{layer.name}' depends more on its own pixels than on {layer.locality:.0%} of "
        f"the others, where {layer.threshold:.0%} are expected: maps and ranks by position may lie elsewhere. "
        "--local-layer names another."
    )


def _of_normalization(
    model: WrappedModel, data: Dataset, label: str, normalize: str, alternatives: Mapping[str, Statistics]
) -> tuple[float, int, str | None]:
    """Return the share of a few test images that are right, how many, and a doubt about the normalization, or None.

    In doubt is a model that is right on more images under another one (McNemar's exact test at SIGNIFICANT), and one
    that is not better than always giving the most frequent class (an exact binomial test). Few images tell neither.
    """
    own_preprocess, device = model.preprocess, model.preprocess.mean.device
    side = own_preprocess.size or max(data.image_shape[1:])
    split = data.test.draw(NORMALIZATION_IMAGES if side * side <= SMALL else NORMALIZATION_IMAGES // 3)
    pixels, labels = to_device(split, device)
    right = _judge(model, to_pixels(pixels), labels)
    declared_right, count, channels = right(own_preprocess), len(split), data.image_shape[0]
    accuracy = float(declared_right.mean())
    chance, largest = 1 / len(data.class_names), float(np.bincount(data.test.labels).max() / len(data.test))
    guess = "guessing"
    if largest > UNEVEN * chance:
        chance, guess = largest, "always naming the most frequent class"
    summary = f"{label} is right on {accuracy:.0%} of the first {count} test images"
    better: dict[str, float] = {}
    # Of fewer wrong images no other normalization could be significantly better.
    if int((~declared_right).sum()) >= LEAST_WRONG and np.array_equal(right(own_preprocess), declared_right):
        for name, (mean, deviation) in alternatives.items():
            other = Preprocess(mean, deviation, own_preprocess.size).to(device)
            if len(mean) in (1, channels) and not other.is_like(own_preprocess):
                other_right = right(other)
                is_better = other_right.mean() > accuracy
                if is_better and mcnemar(other_right, declared_right).p_value < SIGNIFICANT:
                    better[name] = float(other_right.mean())
    if better:
        listing = ", ".join(f"{better[name]:.0%} with {name}" for name in sorted(better, key=better.__getitem__)[::-1])
        doubt = (
            f"{summary} with --normalize {normalize}, and on {listing}: give --normalize as the network was trained."
        )
    elif binomtest(int(declared_right.sum()), count, chance, "greater").pvalue > SIGNIFICANT >= chance**count:
        doubt = (
            f"{summary}, hardly more than {guess} ({chance:.0%}): are its normalization and the order of its "
            "classes right?"
        )
    else:
        doubt = None
    return accuracy, count, doubt


UNEVEN = 1.5
"""Times its fair share of a split from which on the largest class makes guessing easier."""

LEAST_WRONG = 8
"""The fewest images, all right under one normalization and wrong under another, that McNemar's test at 0.01 tells."""


def _judge(model: WrappedModel, images: Tensor, labels: Tensor) -> Callable[[Preprocess], Any]:
    """Return a function from a normalization to which images (N,) are right under it."""

    @torch.no_grad()
    def right(preprocess: Preprocess) -> Any:
        own_preprocess = model.preprocess
        model.preprocess = preprocess
        try:
            predicted = [predicted_classes(model(batch)) for batch in torch.split(images, 25)]
        finally:
            model.preprocess = own_preprocess
        return (torch.cat(predicted) == labels).cpu().numpy()

    return right
