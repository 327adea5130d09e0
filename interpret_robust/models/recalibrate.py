"""Batch-norm statistics measured anew on chosen images, so that models trained differently are asked alike."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers, seed_all
from interpret_robust.models.moments import Moments

Batches = Callable[[], Iterable[Tensor]]
"""Gives the same images (N, C, H, W) in [0, 1] at every call, in batches of any size."""


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Batches) -> Any:
    """Return a copy of `model` in eval mode whose batch norms hold the statistics of these images; `model` is kept.

    On these images the copy answers as `model` does in train mode with all of them in a single batch: each batch
    norm, in the order in which they are run, gets the exact mean and variance (sum of squares over n) of its inputs
    while those before it already use theirs. Nothing depends on the batch size, beyond rounding in float32. One pass
    over the images is made for each batch norm.

    Raises UserError for a model without batch norm that keeps running statistics, and where the promise does not hold,
    as where a batch norm runs several times in a pass, or a layer of another kind keeps statistics.

    Example:
        recalibrated = recalibrate(model, lambda: images.split(250))
    """
    _check_promise(model, next(iter(batches()))[:TRIED_IMAGES])
    network = copy.deepcopy(model).eval()
    _measure(network, batches)
    return network


@contextmanager
def use_batch_statistics(network: nn.Module) -> Iterator[bool]:
    """Make batch norms of a network in eval mode use statistics of each batch, and yield whether there are any.

    Those that keep statistics have them again afterwards.

    Example:
        >>> with use_batch_statistics(network):
        ...     logits = network(images)
    """
    norms = _list_keeping_norms(network)
    statistics = [(norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
        yield bool(norms)
    finally:
        for norm, (mean, variance) in zip(norms, statistics, strict=True):
            norm.running_mean, norm.running_var = mean, variance


def _list_keeping_norms(network: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


def _measure(network: nn.Module, batches: Batches) -> None:
    """Put the statistics of images into the batch norms of a network, one after the other."""
    for norm in _list_norms(network, batches):
        moments = Moments()
        hook = norm.register_forward_pre_hook(partial(_add_input, moments), with_kwargs=True)
        for images in batches():
            network(images)
        hook.remove()
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(moments.mean)
        norm.running_var.copy_(moments.variance)


def _add_input(moments: Moments, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
    """Add what enters a layer; behind its moments, a forward pre-hook."""
    moments.add(args[0] if args else kwargs["input"])


TRIED_IMAGES = 8
"""Images on which the promise of `recalibrate` is tried."""

MOST_DIFFERENCE = 0.01
"""By how much of their spread answers may differ there."""


def _check_promise(model: nn.Module, images: Tensor) -> None:
    """Raise UserError where statistics of images (N, C, H, W) do not give the answers of train mode.

    Only layers that keep statistics of images are in train mode there: others may draw random numbers in it.
    """
    if getattr(model, "draws", None) is not None:  # a pass of these is many
        return
    network, reference = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    _measure(network, lambda: [images])
    try:
        keepers = _list_keepers(reference, images)
        for layer in keepers:
            layer.training = True
        answer, expected = network(images), reference(images)
    except Exception:  # train mode may need more images, or labels
        return
    if float((answer - expected).abs().max()) <= MOST_DIFFERENCE * float(expected.std()):
        return
    other_layers = [
        f"'{path}' ({type(layer).__name__})"
        for path, layer in reference.named_modules()
        if layer in keepers and not isinstance(layer, _BatchNorm)
    ]
    reason = (
        f"layer {other_layers[0]} keeps statistics of its own"
        if other_layers
        else "does a batch norm run several times?"
    )
    raise UserError(
        f"with statistics measured on {len(images)} images the network answers these otherwise than in train mode, "
        f"where each layer uses those of its batch: {reason}. Such a network is not recalibrated."
    )


def _list_norms(model: nn.Module, batches: Batches) -> list[_BatchNorm]:
    """Return the batch norms that keep statistics and see the images, in the order of their first run."""
    order: dict[_BatchNorm, None] = {}
    norms = _list_keeping_norms(model)
    hooks = [norm.register_forward_pre_hook(lambda layer, _: order.setdefault(layer)) for norm in norms]
    model(next(iter(batches())))
    for hook in hooks:
        hook.remove()
    if not order:
        raise UserError("the model has no batch norm with running statistics: there is nothing to recalibrate.")
    return list(order)


def _list_keepers(network: nn.Module, images: Tensor) -> set[nn.Module]:
    """Return the layers that keep statistics of images: their buffers are others after another batch in train mode."""

    def buffers_after(batch: Tensor) -> dict[str, Tensor]:
        replica = copy.deepcopy(network).train()
        with preserve_random_numbers(batch.device):
            seed_all(0, 0)
            replica(batch)
        return dict(replica.named_buffers())

    first, second = buffers_after(images), buffers_after(1 - images)
    paths = {name.rpartition(".")[0] for name, buffer in first.items() if not torch.equal(buffer, second[name])}
    return {layer for path, layer in network.named_modules() if path in paths}
