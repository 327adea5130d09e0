"""A trial of a model from elsewhere on a few images, before any question is asked of it.

What makes every answer meaningless is refused. What makes answers doubtful is one sentence each, with its remedy; these
sentences are kept in the files of all answers that rest on the model, and shown beside their numbers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers, seed_all
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.checks.answers import (
    FLAT,
    SMALL,
    describe_flat,
    doubts_about_gradients,
    doubts_about_logits,
    is_same,
)
from interpret_robust.models.checks.attention import doubts_about_attention
from interpret_robust.models.checks.file_accuracy import doubt_about_accuracy
from interpret_robust.models.checks.images import doubts_about_images
from interpret_robust.models.checks.judgment import Judgment
from interpret_robust.models.checks.losses import doubt_about_loss
from interpret_robust.models.checks.memory import Memory
from interpret_robust.models.checks.norms import doubt_about_norms
from interpret_robust.models.checks.own_numbers import list_changes, sum_up
from interpret_robust.models.checks.reading import check_reading
from interpret_robust.models.checks.steps import doubt_about_steps
from interpret_robust.models.classifier import Classifier, predicted_classes
from interpret_robust.models.layers.choice import Choice
from interpret_robust.models.layers.dependence import LEAST_OF_FEW, count_turned
from interpret_robust.models.layers.hooks import count_beyond, use_part
from interpret_robust.models.normalization import STATISTICS
from interpret_robust.models.wrapper import WrappedModel

MOST_CELLS = 0.6
"""How far a position may lie from its place: a convolution of stride 2 that pads both sides alike moves it by 1/2."""

MANY_SKIPPED = 3
"""Layers behind the one that is taken from which on a sentence says so: one may be a change of shape."""

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
        doubts = list(doubts_about_answers(model, images, label))
        if memory is not None and (doubt := memory.doubt(model, images)):
            doubts.append(f"{label} {doubt}")
        if layer is not None:
            doubts += _check_layer(layer, label)
            doubts += _check_frames(model, images, layer, label)
            if model.attention_layer is not None:
                doubts += doubts_about_attention(model, images[:1], label)
            with use_part(model.backbone, model.part):
                count = count_beyond(model.backbone, layer.name, model.preprocess, images) if layer.sees_all else 0
            if count:
                doubts.append(
                    f"{label}: on {count} of {len(images)} test images the answer does not rest on layer "
                    f"'{layer.name}' alone, as where some images leave a network early: ranks and maps by position are "
                    "of a part of it. --local-layer names another."
                )
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
        about_images = doubts_about_images(judgment.images, judgment.labels, data.test)
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


class FirstAnswers:
    """What a model answers to a few images (N, C, H, W) when it is tried, to tell later whether that has changed.

    A copy of the model asks the copy: this is no function that would go on asking the original. Random numbers are
    seed 0's, and those of the process left as found.
    """

    def __init__(self, model: WrappedModel, images: Tensor) -> None:
        self._model, self._images = model, images
        self._answers = self._ask()
        self._is_steady, self._sums = is_same(self._answers, self._ask()), sum_up(model.backbone)

    @torch.no_grad()
    def _ask(self) -> Tensor:
        device = self._model.preprocess.mean.device
        with preserve_random_numbers(device):
            seed_all(0, 0)
            self._model.restart_draws(0)
            logits: Tensor = self._model(self._images.to(device)).cpu()
            return logits

    def follow(self) -> Callable[[], str | None]:
        """Ask again before an analysis, and return what asks once more after it and gives a sentence, or None.

        None is said of a model whose answers differ at once, which the trial tells of. Sentences begin with a verb, to
        be read behind the model's name.

        Example:
            >>> finish = FirstAnswers(model, images).follow()
            >>> finish()
        """
        answers_before = self._ask()
        return lambda: self._compare(answers_before)

    def _compare(self, answers_before: Tensor) -> str | None:
        last_answers = self._ask()
        if not self._is_steady or is_same(self._answers, last_answers):
            return None
        count = int((predicted_classes(self._answers) != predicted_classes(last_answers)).sum())
        difference = (
            f"answered {len(self._images)} images differently after this analysis than when it was loaded ({count} "
            "decisions changed)"
        )
        changes = list_changes(self._sums, sum_up(self._model.backbone))
        if is_same(answers_before, last_answers):
            return (
                f"{difference}, and before it as after it: it was changed since{changes and f' ({changes})'}, or "
                "it counts its passes. These numbers are of the network as it is now, which was not tried: "
                "ir.load(network, data) tries it anew."
            )
        if changes:
            return (
                f"{difference}: its forward changes its own numbers ({changes}), so that these numbers cannot be "
                "repeated. Let it leave its weights and buffers as they are."
            )
        return (
            f"{difference}: its answers change from call to call, so these numbers cannot be repeated. Does it "
            "count its passes, or remember earlier images?"
        )


def _check_frames(model: WrappedModel, images: Tensor, layer: Choice, label: str) -> Iterator[str]:
    """Yield a sentence where positions lie elsewhere on some of images (N, C, H, W), and not on the first of all."""
    if layer.is_doubtful:
        return
    if count := count_turned(lambda images: model.features(images).local, images):
        yield (
            f"{label}: on {count} of {len(images)} test images the positions of layer '{layer.name}' depend on pixels "
            "elsewhere, as where a network turns, mirrors or shifts each image by what it shows: maps and ranks by "
            "position lie elsewhere there. Do that to the images before, and ask of the network behind it."
        )


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
    if layer.other_grid is not None:
        rows, columns = layer.other_grid
        yield (
            f"{label}: the tokens of layer '{layer.name}' lie as in a grid of {rows}x{columns}, which has not the "
            "shape of the images, as where patches are not square or the forward merges tokens: maps and ranks by "
            "position lie elsewhere. --local-layer names another."
        )
        return
    if not layer.locality < layer.threshold:
        if layer.is_astray:
            yield (
                f"{label}: {layer.astray_share:.0%} of the positions of layer '{layer.name}' depend more on the pixels "
                "of most other positions than on their own, as where the forward mirrors every second row or merges "
                "tokens: maps and ranks by position lie elsewhere there. --local-layer names another."
            )
        return
    if layer.threshold == LEAST_OF_FEW:
        yield (
            f"{label}: {1 - layer.locality:.0%} of the positions of layer '{layer.name}' depend more on the pixels of "
            "another position than on their own, as where the forward mirrors, turns or shuffles them: maps and ranks "
            "by position lie elsewhere. --local-layer names another."
        )
        return
    yield (
        f"{label}: only {layer.locality:.0%} of the other cells of the image matter less to a position of layer "
        f"'{layer.name}' than its own cell does, where {layer.threshold:.0%} are expected: maps and ranks by position "
        "may lie elsewhere. "
        "--local-layer names another."
    )
