"""Whether a model answers images in the large batches of an analysis as it does a few of them: the trial asks few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.models.answer_checks import half_precision, is_same, tried_batch_size
from interpret_robust.models.classifier import Classifier, predicted_classes

ROWS = 4
"""Images at either end of a batch that are asked again."""


class _Batch(NamedTuple):
    """A few images (2 * ROWS, C, H, W) of a batch of `size`, and the logits that they had in it."""

    size: int
    images: Tensor
    logits: Tensor
    is_differentiated: bool


@contextmanager
def doubt_about_large_batches(model: Classifier) -> Iterator[Callable[[], str | None]]:
    """Watch the batches that a model is asked, and yield what says whether it answered the largest as it does few.

    Batches of no more images than the trial asks are not looked at, nor passes in which layers are watched or changed
    by hooks, as some maps do. None is said of a model whose answers differ each time, depend on any batch, or are of
    half precision, which the trial tells of. Sentences begin with a verb, to be read behind the model's name.

    Example:
        >>> with doubt_about_large_batches(model) as ask_again:
        ...     logits = model(images)
        ...     print(ask_again())
        None
    """
    largest: list[_Batch] = []
    usual_hooks = _count_hooks(model) + 1  # this one

    def look(module: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        size = len(inputs[0])
        size_to_beat = largest[-1].size if largest else tried_batch_size(inputs[0])
        # A copy of the model has the hook too.
        if size > size_to_beat and module is model and _count_hooks(model) == usual_hooks:
            images, answers = (torch.cat([rows[:ROWS], rows[-ROWS:]]).detach() for rows in (inputs[0], logits))
            largest[:] = [_Batch(size, images, answers, torch.is_grad_enabled() and inputs[0].requires_grad)]

    def ask_again() -> str | None:
        return _doubt(model, largest[-1]) if largest and not model.draws else None

    handle = model.register_forward_hook(look)
    try:
        yield ask_again
    finally:
        handle.remove()


def _count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def _doubt(model: Classifier, batch: _Batch) -> str | None:
    def ask(images: Tensor) -> Tensor:
        with torch.set_grad_enabled(batch.is_differentiated), preserve_random_numbers(images.device):
            answers: Tensor = model(images.clone().requires_grad_(batch.is_differentiated)).detach()
        return answers

    logits = ask(batch.images)
    if is_same(logits, batch.logits) or half_precision(logits) or not is_same(logits, ask(batch.images)):
        return None
    if not is_same(logits, torch.cat([ask(image[None]) for image in batch.images])):
        return None
    count = int((predicted_classes(logits) != predicted_classes(batch.logits)).sum())
    return (
        f"answers an image differently in a batch of {batch.size} and in one of {len(logits)} ({count} of "
        f"{len(logits)} decisions changed), and alike in smaller ones: numbers depend on --batch-size. Does its "
        f"forward ask for the number of images? --batch-size {tried_batch_size(batch.images)} is as large as was tried."
    )
