"""A trial of a model from elsewhere on a few images, before any question is asked of it.

What makes every answer meaningless is refused. What makes answers doubtful is one sentence each, with its remedy; these
sentences are kept in the files of all answers that rest on the model, and shown beside their numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.checks.answers import SMALL, list_logit_doubts
from interpret_robust.models.checks.attention import list_attention_doubts
from interpret_robust.models.checks.file_accuracy import doubt_about_accuracy
from interpret_robust.models.checks.first_answers import FirstAnswers
from interpret_robust.models.checks.gradients import FLAT, describe_flat, list_gradient_doubts
from interpret_robust.models.checks.images import list_image_doubts
from interpret_robust.models.checks.judgment import Judgment
from interpret_robust.models.checks.losses import doubt_about_loss
from interpret_robust.models.checks.memory import Memory
from interpret_robust.models.checks.norms import doubt_about_norms
from interpret_robust.models.checks.positions import list_position_doubts
from interpret_robust.models.checks.reading import check_reading
from interpret_robust.models.checks.steps import doubt_about_steps
from interpret_robust.models.classifier import Classifier
from interpret_robust.models.layers.choice import Choice
from interpret_robust.models.normalization import STATISTICS
from interpret_robust.models.wrapper import WrappedModel

LOSS_IMAGES = 16
"""Right images on which two losses are compared, of at most SMALL pixels; of larger ones a quarter."""

ANSWER_IMAGES = 8
"""Images on which answers and gradients are looked at."""

LEAST_FLAT = 0.03
"""Share of the images of a judgment, right and without a gradient of the cross-entropy, that are told of."""

MOST_ALIKE = 0.3
"""Share of images of one class up to which batch norms are asked though classes are uneven.

What enters those of three shipped networks of CIFAR-10 then lies up to 0.22 deviations away, as where classes are even,
and up to 0.36 where half of the images are of one class. No file was kept of this.
"""


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
    weight_file: Path | None = None,
) -> Trial:
    """Try a model on a few test images.

    Args:
        model: on the device on which it is tried.
        data: whose test images it sees: eight for its answers (where there is one, that one also upside down), at most
            NORMALIZATION_IMAGES for its normalization.
        label: what sentences call it.
        normalize: how its normalization is typed.
        layer: that its local features are taken from, None where it has none.
        memory: what the network kept before it was first called, None where that is not known.
        is_trained: whether other normalizations are tried: without training none is right.
        weight_file: that may say how accurate the model is.

    Raises UserError where it gives no numbers at all, or where no gradient reaches the pixels: attacks and maps would
    mean nothing. The model's weights and the process's random numbers are left as found.

    Example:
        >>> try_out(wrapper, data, "timm:vit_tiny_patch16_224", "inception", None).doubts
        ()
    """
    device = model.preprocess.mean.device
    images = to_pixels(to_device(data.test.draw(ANSWER_IMAGES), device)[0])
    if len(images) == 1:  # one answer tells neither what is the same in all, nor what others change
        images = torch.cat([images, images.flip(2)])
    with preserve_random_numbers(device):
        doubts = list(list_answer_doubts(model, images, label))
        if memory is not None and (doubt := memory.doubt(model, images)):
            doubts.append(f"{label} {doubt}")
        if layer is not None:
            doubts += list_position_doubts(model, images, layer, label)
            if model.attention_layer is not None:
                doubts += list_attention_doubts(model, images[:1], label)
        judgment, doubt = check_reading(model, data, normalize, STATISTICS if is_trained else {})
        if judgment.flat_count >= LEAST_FLAT * len(judgment.labels) and not any(FLAT in text for text in doubts):
            doubts.append(f"{label} {describe_flat(judgment.flat_count, len(judgment.labels))}")
        if doubt is None and weight_file is not None:
            doubt = doubt_about_accuracy(weight_file, judgment)
        about_attacks = _doubt_about_attacks(model, judgment, is_read_right=doubt is None)
        is_mixed = _are_mixed(judgment, len(data.class_names))
        if doubt is None and is_trained and is_mixed and judgment.is_better_than_guessing():
            doubt = doubt_about_norms(model, judgment)
        doubts += [f"{label} {sentence}" for sentence in (doubt, about_attacks) if sentence is not None]
        about_images = list_image_doubts(judgment.images, judgment.labels, data.test)
        doubts += [f"{label}: {sentence}" for sentence in about_images]
        model.follow_answers = FirstAnswers(model, images).follow
    return Trial(judgment.accuracy, len(judgment.labels), tuple(doubts))


def _are_mixed(judgment: Judgment, classes: int) -> bool:
    """Return whether the images are of many classes: batch norms see other things in those of a single one."""
    largest = float(np.bincount(judgment.labels).max() / len(judgment.labels))
    return judgment.guesses * classes <= 1 or largest <= MOST_ALIKE


def _doubt_about_attacks(model: WrappedModel, judgment: Judgment, *, is_read_right: bool) -> str | None:
    """Return what is doubtful about attacks by gradients on images that are right; of large ones fewer are asked.

    Losses are compared only where images and answers are read as they should be.
    """
    if not judgment.is_better_than_guessing():
        return None
    side = model.preprocess.size or max(judgment.images.shape[2:])
    count = LOSS_IMAGES if side * side <= SMALL else LOSS_IMAGES // 4
    images, labels = _choose_right(judgment, 4 * count)
    doubt = doubt_about_steps(model, images, labels, count)
    return doubt_about_loss(model, images, labels, count) if doubt is None and is_read_right else doubt


def _choose_right(judgment: Judgment, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` images (N, C, H, W) that are right, and their labels (N,)."""
    places = np.flatnonzero(judgment.right)[:count]
    labels = torch.from_numpy(judgment.labels[places])
    return judgment.images[torch.from_numpy(places).to(judgment.images.device)], labels.to(judgment.images.device)


def list_answer_doubts(model: Classifier, images: Tensor, label: str) -> Iterator[str]:
    """Yield what is doubtful about the answers of any model to a few images (N, C, H, W), and about their gradients.

    Raises UserError as `try_out` does. Random numbers are drawn from seed 0.

    Example:
        >>> list(list_answer_doubts(build("small", "average", (3, 32, 32), 10, seed=0).eval(), images, "mine"))
        []
    """
    torch.manual_seed(0)
    try:
        for doubt in (*list_logit_doubts(model, images), *list_gradient_doubts(model, images)):
            yield f"{label} {doubt}"
    except UserError as error:
        raise UserError(f"{label}: {error}") from error
