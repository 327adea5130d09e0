"""Whether what enters the batch norms of a network is what entered them in training."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interpret_robust.models.checks.judgment import BATCH_SIZE, LEAST_WRONG, Judgment
from interpret_robust.models.layers.hooks import is_inside
from interpret_robust.models.moments import Moments
from interpret_robust.models.wrapper import WrappedModel

LARGEST_DISTANCE = 0.35
"""From which distance on a batch norm is in doubt.

None of 25 networks trained here reaches 0.2 on 100 images as it is (benchmarks/norm_check.py). Networks that see other
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
    distances = measure_norms(model, model.backbone, judgment.images)
    farthest = max(distances, key=distances.__getitem__, default=None)
    if farthest is None or distances[farthest] < LARGEST_DISTANCE:
        return None
    is_first_near = next(iter(distances.values())) < LARGEST_DISTANCE
    question = (
        "are the layers before it (activations, padding, pooling) those that it was trained with, and the images of "
        "the same kind?"
        if is_first_near
        else "are these images of the kind that it was trained on, and prepared alike (colors, brightness, scale)?"
    )
    return (
        f"{judgment.summary}, and what enters its batch norm '{farthest}' lies {distances[farthest]:.1f} deviations "
        f"from what it keeps of its training: {question} Strong augmentation in training, statistics that lag behind "
        "the weights (a large last learning rate), and frozen norms look the same."
    )


@torch.no_grad()
def measure_norms(model: nn.Module, network: nn.Module, images: Tensor) -> dict[str, float]:
    """Return how far what enters each batch norm lies from its statistics (see `measure_distance`), by the norm's name.

    Batch norms that keep statistics of a training are there, in the order in which they first run.

    Args:
        model: what is asked, in batches of BATCH_SIZE, of which every second one belongs to one half.
        network: the part of it that has the batch norms.
        images: (N, C, H, W), more than BATCH_SIZE.

    Example:
        >>> list(measure_norms(resnet18, resnet18, images))[0]
        'bn1'
    """
    norms = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm) and _has_statistics(layer)
    }
    batches = torch.split(images, BATCH_SIZE)
    first, second = (_watch(model, norms, half) for half in (batches[::2], batches[1::2]))
    return {
        name: measure_distance(norms[name], runs, second[name])
        for name, runs in first.items()
        if len(second.get(name, [])) == len(runs)
    }


def measure_distance(norm: _BatchNorm, first: Sequence[Moments], second: Sequence[Moments]) -> float:
    """Return how far what enters a batch norm lies from its statistics, in deviations, 0 to 1.

    Of each channel, it is the distance of two normal distributions (Fréchet's: the root of the squared differences of
    means and of deviations) divided by the kept deviation, at most 1; the result is the root of the mean of their
    squares. By what two halves of the values differ is sampling, and is taken off.

    Args:
        norm: keeps statistics, which are moving averages over its runs.
        first, second: what enters it for each run in a pass, of two halves of the images.

    Example:
        >>> halves = [Moments(), Moments()]
        >>> for moments in halves:
        ...     moments.add(torch.randn(50, 3, 8, 8) + 0.5)
        >>> round(measure_distance(nn.BatchNorm2d(3), halves[:1], halves[1:]), 1)
        0.5
    """
    assert norm.running_mean is not None and norm.running_var is not None
    mean, deviation = norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt()
    (first_mean, first_deviation), (second_mean, second_deviation) = (_average(runs) for runs in (first, second))
    share = first[0].count / (first[0].count + second[0].count)
    noise = share * (1 - share) * ((first_mean - second_mean).square() + (first_deviation - second_deviation).square())
    own_mean, own_deviation = _average([sum(pair, Moments()) for pair in zip(first, second, strict=True)])
    squares = ((own_mean - mean).square() + (own_deviation - deviation).square() - noise) / deviation.square()
    square = squares.clamp(max=1).mean()
    return float(square.clamp_min(0).sqrt())


def _average(runs: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (C,), as statistics keep them of a batch norm that runs several times in a pass."""
    means = torch.stack([moments.mean for moments in runs])
    variances = torch.stack([moments.variance for moments in runs])
    return means.mean(0), variances.mean(0).sqrt()


def _has_statistics(norm: _BatchNorm) -> bool:
    """Return whether a batch norm keeps statistics of a training, and not those that it began with."""
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not (bool((mean == 0).all()) and bool((variance == 1).all()))


def _watch(model: nn.Module, norms: dict[str, _BatchNorm], batches: Sequence[Tensor]) -> dict[str, list[Moments]]:
    """Return what enters each batch norm, for each of its runs in a pass over a batch of images.

    One that sees other rows than those of the images, as where a network fills its batch with zeros, is left out, and
    one that runs inside of torch.func.vmap.
    """
    moments: dict[str, list[Moments]] = {}
    runs: Counter[str] = Counter()
    others: set[str] = set()

    def see(name: str, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        values = args[0] if args else kwargs["input"]
        if is_inside(values) or len(values) % len(images):
            others.add(name)
            return
        own_moments = moments.setdefault(name, [])
        if runs[name] == len(own_moments):
            own_moments.append(Moments())
        own_moments[runs[name]].add(values)
        runs[name] += 1

    hooks = [norm.register_forward_pre_hook(partial(see, name), with_kwargs=True) for name, norm in norms.items()]
    try:
        for images in batches:
            runs.clear()
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: own_moments for name, own_moments in moments.items() if name not in others}
