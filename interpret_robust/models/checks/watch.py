"""What is doubtful about a model in the batches of an analysis, which the trial of a few images does not show.

Sentences begin with a verb, to be read behind the model's name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.models.checks.answers import choose_tried_batch, find_half_precision, is_same
from interpret_robust.models.checks.gradients import count_blind, differentiate, differs_in_slope
from interpret_robust.models.classifier import Classifier, predict_classes

ROWS = 4
"""Images at either end of a batch that are asked again."""


class _Batch(NamedTuple):
    """A few images (2 * ROWS, C, H, W) of a batch of `size`, and the logits that they had in it."""

    size: int
    images: Tensor
    logits: Tensor


class Watch:
    """What a model was asked: its largest batch without and with gradients, and the last one with gradients.

    Passes in which layers are watched or changed by hooks are not looked at, as some maps have them.
    """

    def __init__(self, model: Classifier) -> None:
        self._model, self._usual_hooks = model, _count_hooks(model) + 1  # that of this watch
        self._largest: dict[bool, _Batch] = {}
        self._last: Tensor | None = None

    def look(self, module: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """Keep what is asked again later: a forward hook of the model."""
        images = inputs[0]
        # A copy of the model has the hook too.
        if module is not self._model or _count_hooks(self._model) != self._usual_hooks:
            return
        has_gradient = torch.is_grad_enabled() and images.requires_grad
        if has_gradient:
            self._last = images.detach()
        size_to_beat = self._largest[has_gradient].size if has_gradient in self._largest else choose_tried_batch(images)
        if len(images) > size_to_beat:
            self._largest[has_gradient] = _Batch(len(images), _ends(images), _ends(logits))

    def doubts(self) -> Iterator[str]:
        """Yield what is doubtful about what was answered, a sentence each.

        Nothing is of a model whose answers differ each time, depend on any batch, or are of half precision, which the
        trial tells of.
        """
        if self._model.draws:
            return
        largest, last = [*self._largest.items()], self._last  # as they are now: the questions below are looked at too
        answers = (_doubt_about_answers(self._model, batch, has_gradient=kind) for kind, batch in largest)
        if doubt := next(filter(None, answers), None):
            yield doubt
        elif last is not None:
            with preserve_random_numbers(last.device):
                yield from _doubt_about_gradients(self._model, last)


@contextmanager
def watch(model: Classifier) -> Iterator[Callable[[], Iterator[str]]]:
    """Watch the batches that a model is asked, and yield what gives the doubts about them afterwards.

    Example:
        >>> with watch(model) as doubts:
        ...     logits = model(images)
        ...     print(list(doubts()))
        []
    """
    observer = Watch(model)
    handle = model.register_forward_hook(observer.look)
    try:
        yield observer.doubts
    finally:
        handle.remove()


def _ends(rows: Tensor) -> Tensor:
    """Return the first and the last rows."""
    return torch.cat([rows[:ROWS], rows[-ROWS:]]).detach()


def _count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def _doubt_about_answers(model: Classifier, batch: _Batch, *, has_gradient: bool) -> str | None:
    def ask(images: Tensor) -> Tensor:
        with torch.set_grad_enabled(has_gradient), preserve_random_numbers(images.device):
            answers: Tensor = model(images.clone().requires_grad_(has_gradient)).detach()
        return answers

    logits = ask(batch.images)
    if is_same(logits, batch.logits) or find_half_precision(logits) or not is_same(logits, ask(batch.images)):
        return None
    if not is_same(logits, torch.cat([ask(image[None]) for image in batch.images])):
        return None
    count = int((predict_classes(logits) != predict_classes(batch.logits)).sum())
    return (
        f"answers an image differently in a batch of {batch.size} and in one of {len(logits)} ({count} of "
        f"{len(logits)} decisions changed), and alike in smaller ones: numbers depend on --batch-size. Does its "
        f"forward ask for the number of images? --batch-size {choose_tried_batch(batch.images)} is as large as was "
        "tried."
    )


def _doubt_about_gradients(model: Classifier, images: Tensor) -> Iterator[str]:
    """Yield a sentence where images (N, C, H, W) of a batch have no gradient in it, or others than a few of them."""
    whole, part = differentiate(model, images), differentiate(model, _ends(images))
    if whole.slope is None or part.slope is None or not is_same(part.logits, _ends(whole.logits)):
        return
    is_large = len(images) > choose_tried_batch(images) and not find_half_precision(part.logits)
    if is_large and (count := int(differs_in_slope(_ends(whole.slope), part.slope).sum())):
        yield (
            f"has gradients that depend on the batch: on {count} of {len(part.images)} images they are others in a "
            f"batch of {len(images)} than in one of {len(part.images)}, and the answers are not. Attacks are weaker or "
            "stronger with --batch-size. Does a part of its forward or backward pass ask for the number of images, or "
            f"leave some without gradients? --batch-size {choose_tried_batch(images)} is as large as was tried."
        )
    elif count := count_blind(model, images[~whole.has_slope()]):
        yield (
            f"had no gradient on {count} of {len(images)} images, the last ones of this analysis that gradients were "
            "asked for, though its answers change beside them: attacks may have failed there. Does its forward detach "
            "answers, or round?"
        )
