"""The same network with fresh weights, from the head down: what its maps show of training, and what of the rest.

Cascading randomization (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292) replaces what was learned stage by
stage, the classifier first. A map or a score that is not that of a random network by the last stage did not come
from the learned weights.

A layer is drawn again by its own `reset_parameters`, which every layer of torch has: batch norm without scale and
shift, convolutions and linear layers as torch initializes them. Weights that this leaves as they are, those of weight
normalization and of pruning among them, and weights that belong to no such layer, are drawn from the normal of their
own mean and deviation. Numbers that look like weights and are none, in buffers and attributes, are put in a random
order. This asks nothing of the architecture. `doubt_about_random` tells of what cannot be reached.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interpret_robust.models import Classifier

CALIBRATION_IMAGES = 500
"""Training images over which a random network's batch norm finds its statistics: enough for a per cent or so."""

_BATCH = 100

_POWER_ITERATIONS = 100
"""Steps to the largest singular value of a random matrix, by which spectral normalization divides."""

_LEAST_NUMBERS, _DISTINCT = 16, 0.9
"""Tensors of so many numbers, of which so large a share differ, look like weights: masks and filters repeat theirs."""


Stage = tuple[str, list[nn.Module]]
"""A name, and the layers that are drawn again together."""


def list_stages(model: Classifier) -> list[Stage]:
    """Return the parts of a model that have weights, from the classifier down to the first layer.

    A part is a child of the backbone, or each child of a sequence there; the head is one part. Weights that the
    backbone holds itself come last. Together they are all weights of the model.
    """
    from_below = [*_parts("", model.backbone), _part("head", model.head), _part("classifier", model.classifier)]
    return [(name, layers) for name, layers in reversed(from_below) if any(map(_own_numbers, layers))]


def randomize(model: Classifier, count: int, images: Tensor, seed: int) -> Classifier:
    """Return a copy of a model in eval mode whose first `count` stages, from the classifier down, are random.

    The weights of a stage depend on the seed and on the stages above it alone, so that each copy goes on from the
    one before it. Batch norm there takes its statistics from training `images` (N, C, H, W) in [0, 1]; below, where
    nothing changed, it keeps them. The model and the global random state are left as found.
    """
    device = next(model.parameters()).device
    random = copy.deepcopy(model).cpu()
    fresh = [layer for _, layers in list_stages(random)[:count] for layer in layers]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for layer in fresh:
            _redraw(layer)
        for layer in fresh:
            _normalize_spectra(layer)
    random = random.to(device).eval()
    _calibrate(random, fresh, images)
    return random


def randomize_network(model: Classifier, images: Tensor, seed: int) -> Classifier:
    """Return a model of the same architecture with no learned weight, its batch norm calibrated on `images` (N, C,
    H, W).
    """
    return randomize(model, len(list_stages(model)), images, seed)


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


def _own_numbers(layer: nn.Module) -> list[Tensor]:
    """Return a layer's parameters, and its buffers and attributes that look like weights."""
    return [*_own_parameters(layer), *_hidden_weights(layer)]


def _hidden_weights(layer: nn.Module) -> list[Tensor]:
    """Return a layer's own tensors outside of `parameters()` that look like weights: not what batch norm measures."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return []
    attributes = {name: value for name, value in vars(layer).items() if name not in ("_parameters", "_modules")}
    return list(filter(_looks_like_weights, tree_leaves(attributes)))


def _looks_like_weights(value: Any) -> bool:
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or not value.is_floating_point():
        return False
    count = value.numel()
    return count >= _LEAST_NUMBERS and len(torch.unique(value)) >= _DISTINCT * count


def _redraw(layer: nn.Module) -> None:
    originals = [weights.clone() for weights in _own_parameters(layer)]
    fresh: Callable[[], None] | None = getattr(layer, "reset_parameters", None)
    if fresh is not None:
        fresh()
    for weights, original in zip(_own_parameters(layer), originals, strict=True):
        if torch.equal(weights, original):
            weights.normal_(float(weights.mean()), float(weights.std(correction=0)))
    for tensor in _hidden_weights(layer):
        order = torch.randperm(tensor.numel()).to(tensor.device)
        tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))


def _normalize_spectra(layer: nn.Module) -> None:
    """Let spectral normalization find the largest singular value of new weights, which it remembers in eval mode."""
    layer.train()
    for _ in range(_POWER_ITERATIONS):
        if isinstance(layer, ParametrizationList):
            layer()
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                hook(layer, ())
    layer.eval()


class _Foreign(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the tensors that a pass uses, and that it neither made nor found in `tensors`."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.foreign: dict[int, Tensor] = {}

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and (place := value.untyped_storage().data_ptr()) not in self.places:
                self.foreign[place] = value
        result = function(*args, **(kwargs or {}))
        self.places |= {
            value.untyped_storage().data_ptr()
            for value in tree_leaves(result)
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in self.foreign
        }
        return result


def doubt_about_random(model: Classifier, images: Tensor) -> str | None:
    """Return a sentence where random networks keep numbers of the trained one, asked a few images (N, C, H, W).

    They keep what a pass uses that no layer holds: what a function remembers, a global, an array of NumPy. Sentences
    begin with a verb, to be read behind the model's name.
    """
    values = tree_leaves([vars(layer) for layer in model.modules()])
    pass_mode = _Foreign([images, *(value for value in values if isinstance(value, Tensor))])
    with torch.no_grad(), pass_mode:
        model(images)
    count = sum(tensor.numel() for tensor in pass_mode.foreign.values() if _looks_like_weights(tensor))
    if not count:
        return None
    return (
        f"uses {count} numbers that no layer holds as a parameter, buffer or attribute, such as those of a global, a "
        "closure or a NumPy array: networks with random weights keep them, and what they share with the trained one "
        "may come from there. Register them as parameters."
    )


def _calibrate(model: Classifier, layers: list[nn.Module], images: Tensor) -> None:
    """Give each batch norm among `layers` the average over batches of what passes it; it is left in eval mode."""
    norms = [layer for layer in layers if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
        norm.train()
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            model(images[start : start + _BATCH])
    for norm in norms:
        norm.eval()
