"""The same network with fresh weights, from the head down: what its maps show of training, and what of the rest.

Cascading randomization (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292) replaces what was learned stage by
stage, the classifier first. A map or a score that is not that of a random network by the last stage did not come
from the learned weights.

A layer is drawn again by its own `reset_parameters`, which every layer of torch has: batch norm without scale and
shift, convolutions and linear layers as torch initializes them. Weights that this leaves as they are, those of weight
normalization and of pruning among them, and weights that belong to no such layer, are drawn from the normal of their
own mean and deviation. This asks nothing of the architecture.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from interpret_robust.models import Classifier

CALIBRATION_IMAGES = 500
"""Training images over which a random network's batch norm finds its statistics: enough for a per cent or so."""

_BATCH = 100


Stage = tuple[str, list[nn.Module]]
"""A name, and the layers that are drawn again together."""


def stages(model: Classifier) -> list[Stage]:
    """Return the parts of a model that have weights, from the classifier down to the first layer.

    A part is a child of the backbone, or each child of a sequence there; the head is one part. Weights that the
    backbone holds itself come last. Together they are all weights of the model.
    """
    from_below = [*_parts("", model.backbone), _part("head", model.head), _part("classifier", model.classifier)]
    return [(name, layers) for name, layers in reversed(from_below) if any(map(_own_parameters, layers))]


def randomize(model: Classifier, count: int, images: Tensor, seed: int) -> Classifier:
    """Return a copy of a model in eval mode whose first `count` stages, from the classifier down, are random.

    The weights of a stage depend on the seed and on the stages above it alone, so that each copy goes on from the
    one before it. Batch norm there takes its statistics from training `images` (N, C, H, W) in [0, 1]; below, where
    nothing changed, it keeps them. The model and the global random state are left as found.
    """
    device = next(model.parameters()).device
    random = copy.deepcopy(model).cpu()
    fresh = [layer for _, layers in stages(random)[:count] for layer in layers]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for layer in fresh:
            _redraw(layer)
    random = random.to(device).eval()
    _calibrate(random, fresh, images)
    return random


def random_network(model: Classifier, images: Tensor, seed: int) -> Classifier:
    """Return a model of the same architecture with no learned weight, its batch norm calibrated on `images` (N, C,
    H, W).
    """
    return randomize(model, len(stages(model)), images, seed)


def _parts(path: str, module: nn.Module) -> Iterator[Stage]:
    """Yield what a module holds itself, then its children from the input up, with those of a sequence in its place."""
    yield path or "backbone", [module]
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _parts(f"{path}{name}.", child)
        else:
            yield _part(f"{path}{name}", child)


def _part(name: str, module: nn.Module) -> Stage:
    return name, list(module.modules())


def _own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    return list(layer.parameters(recurse=False))


def _redraw(layer: nn.Module) -> None:
    originals = [weights.clone() for weights in _own_parameters(layer)]
    fresh: Callable[[], None] | None = getattr(layer, "reset_parameters", None)
    if fresh is not None:
        fresh()
    for weights, original in zip(_own_parameters(layer), originals, strict=True):
        if torch.equal(weights, original):
            weights.normal_(float(weights.mean()), float(weights.std(correction=0)))


def _calibrate(model: Classifier, layers: list[nn.Module], images: Tensor) -> None:
    """Give each batch norm among `layers` the average over batches of what passes it; it is left in eval mode."""
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
        norm.train()
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            model(images[start : start + _BATCH])
    for norm in norms:
        norm.eval()
