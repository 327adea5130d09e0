"""A trial of a model from elsewhere on a few images, before any question is asked of it.

What makes every answer meaningless is refused. What makes answers doubtful is one sentence each, with its remedy; these
sentences are kept in the files of all answers that rest on the model, and shown beside their numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
import torch
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.core.statistics import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.answer_checks import SMALL, doubts_about_gradients, doubts_about_logits, is_same
from interpret_robust.models.classifier import Classifier, predicted_classes
from interpret_robust.models.layers import LEAST_OF_FEW, Choice
from interpret_robust.models.loss_check import doubt_about_loss
from interpret_robust.models.memory import Memory
from interpret_robust.models.normalization import STATISTICS, Statistics
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel

MOST_CELLS = 0.6
"""How far a position may lie from its place: a convolution of stride 2 that pads both sides alike moves it by 1/2."""

MANY_SKIPPED = 3
"""Layers behind the one that is taken from which on a sentence says so: one may be a change of shape."""

NORMALIZATION_IMAGES = 100
"""Images on which a model's normalization is tried out, of at most SMALL pixels; of larger ones a third."""

MOST_NAMES = 3
"""Normalizations that a sentence names, the most accurate ones."""

BATCH_SIZE = 25
"""Images that are asked at once there."""

LOSS_IMAGES = 16
"""Right images on which two losses are compared, of at most SMALL pixels; of larger ones a quarter."""

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
    memory: Memory | None = None,
    is_trained: bool = True,
) -> Trial:
    """Try a model on a few test images.

    Args:
        model: on the device on which it is tried.
        data: whose test images it sees: eight for its answers, at most NORMALIZATION_IMAGES for its normalization.
        label: what sentences call it.
        normalize: how its normalization is typed.
        layer: that its local features are taken from, None where it has none.
        memory: what the network kept before it was first called, None where that is not known.
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
        if memory is not None and (doubt := memory.doubt(model, images)):
            doubts.append(f"{label} {doubt}")
        if layer is not None:
            doubts += _check_layer(layer, label)
        accuracy, count, doubt = _check_normalization(model, data, label, normalize, STATISTICS if is_trained else {})
        model.ask_again = doubt_about_change(model, images)
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


def doubt_about_change(model: WrappedModel, images: Tensor) -> Callable[[], str | None]:
    """Ask a model a few images (N, C, H, W), and return what asks it again later and says whether its answers changed.

    None is said of a model whose answers differ at once, which the trial tells of. Sentences begin with a verb, to be
    read behind the model's name. Random numbers are left as found.

    Example:
        >>> ask_again = doubt_about_change(model, images)
        >>> ask_again()
    """

    @torch.no_grad()
    def ask() -> Tensor:
        device = model.preprocess.mean.device
        with preserve_random_numbers(device):
            logits: Tensor = model(images.to(device)).cpu()
            return logits

    first_answers = ask()
    is_steady = is_same(first_answers, ask())

    def ask_again() -> str | None:
        last_answers = ask()
        if not is_steady or is_same(first_answers, last_answers):
            return None
        count = int((predicted_classes(first_answers) != predicted_classes(last_answers)).sum())
        return (
            f"answered {len(images)} images differently after this analysis than when it was loaded ({count} "
            "decisions changed): its answers change from call to call, so these numbers cannot be repeated. Does it "
            "count its passes, or remember earlier images?"
        )

    return ask_again


def _check_layer(layer: Choice, label: str) -> Iterator[str]:
    if not layer.sees_all:
        yield (
            f"{label}: no layer with positions sees all that its answer rests on. Local features are those of layer "
            f"'{layer.name}', on which a part of it rests: ranks and maps by position are of that part. --local-layer "
            "names another."
        )
    if layer.stretch_cells > MOST_CELLS:
        yield (
            f"{label}: positions at the edge of layer '{layer.name}' lie {layer.stretch_cells:.1f} cells away from "
            "where a grid over the whole image has them, since its forward pads or crops the image, or its "
            "convolutions do not pad: maps by position are shifted there. --local-layer names another."
        )
    if layer.skip_count >= MANY_SKIPPED:
        yield (
            f"{label}: local features are those of layer '{layer.name}', since the positions of {layer.skip_count} "
            "layers behind it are not in the order of the image. --local-layer names another."
        )
    if layer.is_copied:
        yield (
            f"{label}: {layer.copy_share:.0%} of the positions of layer '{layer.name}' are copies of others, as an "
            "adaptive pool makes them of fewer: maps and ranks by position count these several times. --local-layer "
            "names another."
        )
    if not layer.locality < layer.threshold:
        return
    if layer.threshold == LEAST_OF_FEW:
        yield (
            f"{label}: {1 - layer.locality:.0%} of the positions of layer '{layer.name}' depend more on the pixels of "
            "another position than on their own, as where the forward mirrors, turns or shuffles them: maps and ranks "
            "by position lie elsewhere. --local-layer names another."
        )
        return
    yield (
        f"{label}: a position of layer '{layer.name}' depends more on its own pixels than on {layer.locality:.0%} of "
        f"the others, where {layer.threshold:.0%} are expected: maps and ranks by position may lie elsewhere. "
        "--local-layer names another."
    )


def _check_normalization(
    model: WrappedModel, data: Dataset, label: str, normalize: str, alternatives: Mapping[str, Statistics]
) -> tuple[float, int, str | None]:
    """Return the share of a few test images that are right, how many, and a doubt about how they are asked, or None.

    In doubt is a model that is right on more images if it is asked otherwise (McNemar's exact test at SIGNIFICANT), and
    one that is not better than always giving the most frequent class (an exact binomial test). Few images tell neither.
    Without alternatives only the second is tried.
    """
    own_preprocess, device = model.preprocess, model.preprocess.mean.device
    side = own_preprocess.size or max(data.image_shape[1:])
    split = data.test.draw(NORMALIZATION_IMAGES if side * side <= SMALL else NORMALIZATION_IMAGES // 3)
    images = to_pixels(to_device(split, device)[0])
    logits, count = _answers(model, images, own_preprocess), len(split)
    right = _classes(logits) == split.labels
    accuracy = float(right.mean())
    chance, largest = 1 / len(data.class_names), float(np.bincount(data.test.labels).max() / len(data.test))
    guess = "guessing"
    if largest > UNEVEN * chance:
        chance, guess = largest, "always naming the most frequent class"
    summary = f"{label} is right on {accuracy:.0%} of {count} test images"

    def is_better(other: Right) -> bool:
        is_more = other.mean() > accuracy and mcnemar(other, right).p_value < SIGNIFICANT
        return is_more and _is_above(other, chance)

    # Of fewer wrong images no other way could be significantly better.
    if (
        alternatives
        and int((~right).sum()) >= LEAST_WRONG
        and torch.equal(_answers(model, images[:BATCH_SIZE], own_preprocess), logits[:BATCH_SIZE])
    ):
        other_rights = _judge_normalizations(model, images, split.labels, alternatives)
        better = {name: float(other.mean()) for name, other in other_rights.items() if is_better(other)}
        if better:
            listing = ", ".join(
                f"{better[name]:.0%} with {name}"
                for name in sorted(better, key=better.__getitem__)[: -MOST_NAMES - 1 : -1]
            )
            remedy = "give --normalize as the network was trained."
            return accuracy, count, f"{summary} with --normalize {normalize}, and on {listing}: {remedy}"
        for other, condition in _try_other_readings(model, images, split.labels, logits):
            if is_better(other):
                return accuracy, count, f"{summary}, and on {other.mean():.0%} {condition}"
        if count // FEW_CLASSES < logits.shape[1] <= count:
            pairs = _pairs(split.labels, ~right, data.test.labels)
            if len(pairs) >= LEAST_WRONG and (
                moves := _moves(model, data, _classes(logits), pairs, split.labels[right])
            ):
                return accuracy, count, f"{summary}. {moves}"
    if not _is_above(right, chance) and chance**count <= SIGNIFICANT:
        return (
            accuracy,
            count,
            f"{summary}, hardly more than {guess} ({chance:.0%}): are its normalization and the order of its "
            "classes right?",
        )
    if _is_above(right, chance):
        chosen = torch.from_numpy(np.flatnonzero(right)[: LOSS_IMAGES if side * side <= SMALL else LOSS_IMAGES // 4])
        chosen_labels = torch.from_numpy(split.labels)[chosen].to(device)
        if doubt := doubt_about_loss(model, images[chosen.to(device)], chosen_labels):
            return accuracy, count, f"{label} {doubt}"
    return accuracy, count, None


MOSTLY_SAME = 0.7
"""Share of classes with a wrong image whose other image has to be called the same, for their order to be in doubt."""

UNEVEN = 1.5
"""Times its fair share of a split from which on the largest class makes guessing easier."""

LEAST_WRONG = 8
"""The fewest images, all right under one normalization and wrong under another, that McNemar's test at 0.01 tells."""

FEW_CLASSES = 4
"""Images for each class from which on the best order of classes is looked for; of more classes single ones are."""

Right = npt.NDArray[np.bool_]
"""Which images (N,) are right."""


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
        moves = ", ".join(f"{label} as {place}" for label, place in enumerate(order) if label != place)
        if right.mean() > 0.5:
            yield (
                right,
                f"if its classes are read in another order ({moves}): give them the order of the data's labels.",
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
