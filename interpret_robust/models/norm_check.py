"""Whether what enters the batch norms of a network is what entered them in training."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interpret_robust.models.judgment import LEAST_WRONG, Judgment
from interpret_robust.models.wrapper import WrappedModel

LARGEST_DISTANCE = 0.35
"""From which distance on a batch norm is in doubt.

None of 19 networks trained here reaches 0.2 on 100 images as it is (benchmarks/norm_check.py). Networks that see other
images in training than in tests, such as mixtures or crops with wide borders, come nearer.
"""

LEAST_IMAGES = 30
"""Fewer images say too little of a distribution."""


@torch.no_grad()
def doubt_about_norms(model: WrappedModel, judgment: Judgment) -> str | None:
    """Return a doubt where what enters a batch norm, of the images of a judgment, is not what did in training, or None.

    The farthest batch norm is named. Images of another kind already show in the first one; behind a first one that
    fits, it is layers that differ. A model that is right on nearly all images is not doubted.

    Example:
        >>> doubt_about_norms(model, judgment)
    """
    if len(judgment.images) < LEAST_IMAGES or int((~judgment.right).sum()) < LEAST_WRONG:
        return None
    with watch_norms(model.backbone) as distances, suppress(Exception):  # some take batches of one size
        model(judgment.images)
    # A batch norm that runs several times keeps one statistic of all its inputs.
    singles = {name: runs[0] for name, runs in distances.items() if len(runs) == 1}
    farthest = max(singles, key=lambda name: singles[name], default=None)
    if farthest is None or singles[farthest] < LARGEST_DISTANCE:
        return None
    is_first_near = singles.get(next(iter(distances)), 0.0) < LARGEST_DISTANCE
    question = (
        "are the layers before it (activations, padding, pooling) those that it was trained with, and the images of "
        "the same kind?"
        if is_first_near
        else "are these images of the kind that it was trained on, and prepared alike (colors, brightness, scale)?"
    )
    return (
        f"{judgment.summary}, and what enters its batch norm '{farthest}' lies {singles[farthest]:.1f} deviations from "
        f"what it keeps of its training: {question} Strong augmentation in training, statistics that lag behind the "
        "weights (a large last learning rate), and frozen norms look the same."
    )


def measure_distance(norm: _BatchNorm, values: Tensor) -> float:
    """Return how far values (N, C, ...) lie from the statistics of a batch norm, in deviations, 0 or more.

    Of each channel, it is the distance of two normal distributions (Fréchet's: the root of the squared differences of
    means and of deviations) divided by the kept deviation, at most 1; the result is the root of the mean of their
    squares. What two halves of the values differ by is sampling, and is taken off.

    Example:
        >>> norm = nn.BatchNorm2d(3)
        >>> round(measure_distance(norm, torch.randn(100, 3, 8, 8) + 0.5), 1)
        0.5
    """
    assert norm.running_mean is not None and norm.running_var is not None
    values = values.detach().double()
    mean, deviation = norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt()
    halves = [_moments(half) for half in values.tensor_split(2)]
    noise = sum((one - other).square() for one, other in zip(*halves, strict=True)) / 4
    own_mean, own_deviation = _moments(values)
    squares = ((own_mean - mean).square() + (own_deviation - deviation).square() - noise) / deviation.square()
    square = squares.clamp(max=1).mean()
    return float(square.clamp_min(0).sqrt())


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation by channel of values (N, C, ...)."""
    by_channel = values.transpose(0, 1).flatten(1)
    return by_channel.mean(1), by_channel.std(1, correction=0)


def _has_statistics(norm: _BatchNorm) -> bool:
    """Return whether a batch norm keeps statistics of a training, and not those that it began with."""
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not (bool((mean == 0).all()) and bool((variance == 1).all()))


@contextmanager
def watch_norms(network: nn.Module) -> Iterator[dict[str, list[float]]]:
    """Yield how far what enters each batch norm of a network lies from its statistics, by the norm's name.

    It is filled by the forward passes of the block, a distance (see `measure_distance`) for each run of a batch norm
    that keeps statistics, and in the order in which these run.

    Example:
        >>> with watch_norms(network) as distances:
        ...     logits = network(images)
        >>> list(distances)[0]
        'bn1'
    """
    distances: dict[str, list[float]] = {}

    def see(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        distances.setdefault(name, []).append(measure_distance(norm, inputs[0]))

    hooks = [
        layer.register_forward_pre_hook(partial(see, name))
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm) and _has_statistics(layer)
    ]
    try:
        yield distances
    finally:
        for hook in hooks:
            hook.remove()
