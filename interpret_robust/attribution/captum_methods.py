"""Maps by any attribution method of captum, of the loss with respect to pixels.

A method is given the cross-entropy where captum's own examples give it a logit, so that a map has the sign of our
gradients: positive where a pixel raises the loss. What a method asks for beyond that is the same for all: where it
needs baselines it gets uniform noise, which depends on the image's index and not on its batch; where it disturbs
features one by one, these are squares of an eighth of the image's side over all colors, since single pixels would
take thousands of passes.

Methods with rules for layers are only as good as what they see of a network: one that they would pass by in part is
refused (`attribution.steps`). DeepLift has no rule for a loss, and would take its gradient at the image, not its
change: it is given the mean gradient on the way from the baseline's logits to the image's, so that a map sums to the
change of the loss, and is refused where it does not.
"""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.attribution.layer_rules import OF_CHANGES, OF_RELU, check_steps, list_layers_with_rule
from interpret_robust.attribution.steps import copy_inputs
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.plugins import quote_error
from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.models import Classifier
from interpret_robust.models.losses import cross_entropy

PREFIX = "captum:"

BASELINES = 8
"""Images of noise for a method that needs examples to compare with."""

CELLS = 8
"""Squares along a side of an image, each a feature of methods that disturb features."""

OF_ACTIVATIONS = (*OF_CHANGES, *OF_RELU)
"""Methods that give activation layers a gradient of their own, and do nothing where there are none."""

COMPLETE = (*OF_CHANGES, "IntegratedGradients", "GradientShap")
"""Methods whose maps promise to sum to the loss of the image minus the mean loss of its baselines."""

STEPS = 256
"""Points on the way from one image's logits to another's."""

TOLERANCE = 0.01
"""Share of the change of the loss that a map of DeepLift may miss."""

ROUNDING = 1e-3
"""What it may miss beyond that, as a share of the sum of its |entries|, and of a hundredth of a unit of loss."""

SLOPES = ("Saliency", "GuidedBackprop", "Deconvolution", "GuidedGradCam")
"""Methods whose maps are slopes, loss per pixel value; those of all others are contributions to the loss."""

LEFT_OUT = ("FeaturePermutation", "ShapleyValues", "LRP")
"""The first exchanges images of a batch, so that an image's map would depend on the others; the second takes a pass for
every order of all features; the third has rules for few kinds of layers, and none for a loss."""


def list_names() -> list[str]:
    """Return the methods there are: those of captum that attribute to the input."""
    methods = []
    library = _library()
    for name in library.__all__:
        kind: Any = getattr(library, name)
        if not (inspect.isclass(kind) and issubclass(kind, library.Attribution)) or name in LEFT_OUT:
            continue
        if name.startswith(("Layer", "Neuron", "Internal")) or "attribute" not in vars(kind):
            continue
        if _requirements(kind.__init__) <= {"self", "model", "forward_func", "layer"}:
            methods.append(name)
    return methods


def _library() -> Any:
    """Return captum's methods, which take as long to load as all of ours, and are loaded where one is asked for."""
    import captum.attr

    return captum.attr


def _requirements(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind.name[:3] != "VAR"
    }


def check_method(name: str) -> str:
    """Return the name of a method. Raises UserError where there is none of this name."""
    if name not in list_names():
        raise unknown("attribution of captum", name, list_names())
    return name


class Loss(nn.Module):
    """Each image's cross-entropy (N,), as a module, in which a method can take hold of the network's layers.

    A method may put several versions of all images one after the other: the labels repeat.
    """

    def __init__(self, model: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.model, self.labels = model, labels

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of images (N, C, H, W)."""
        return cross_entropy(self.model(images), self.labels.repeat(len(images) // len(self.labels)))


class ChangeOfLoss(Loss):
    """What DeepLift is given for the loss of images that are followed by as many baselines, (2N,).

    It is linear in the logits, by the mean gradient of the loss from a baseline's logits to its image's: between the
    two it changes as the loss does.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the linear stand-in of the loss of images (2N, C, H, W)."""
        logits: Tensor = self.model(images)
        image, baseline = logits.detach().chunk(2)
        return (_mean_slope(image, baseline, self.labels).repeat(2, 1) * logits).sum(1)


def _mean_slope(end: Tensor, start: Tensor, labels: Tensor) -> Tensor:
    """Return the loss's mean gradient (N, K) on the straight way between logits: times the way, it is the change."""
    way = end.double() - start.double()
    times = (torch.arange(STEPS, device=way.device) + 0.5) / STEPS
    with torch.enable_grad():
        points = (start + times[:, None, None] * way).requires_grad_()
        losses = cross_entropy(points.flatten(0, 1), labels.repeat(STEPS))
        slope = torch.autograd.grad(losses.sum(), points)[0].mean(0)
    change = cross_entropy(end.double(), labels) - cross_entropy(start.double(), labels)
    rest = (change - (slope * way).sum(1)) / way.square().sum(1).clamp_min(torch.finfo(way.dtype).tiny)
    return (slope + rest[:, None] * way).to(end.dtype)  # what the finite number of points leaves lies along the way


def compute_attribution(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]
) -> Tensor:
    """Return a map (N, C, H, W) of each image's cross-entropy by the method called `name`.

    `of_image` are the images' random numbers. Raises UserError where the method does not suit the network.
    """
    if name not in OF_ACTIVATIONS:
        return _attribute_parts(name, model, images, labels, of_image)
    with copy_inputs(list_layers_with_rule(name, model).values()):
        try:
            check_steps(name, model, images[:1])
            if name == "GuidedGradCam":
                _check_axes(model, images[:1])
        except UserError:
            raise
        except Exception as error:  # each network has its own way to fail
            raise _failure(name, error) from error
        if name in OF_CHANGES:
            return _attribute_changes(name, model, images, labels, of_image)
        return _attribute_parts(name, model, images, labels, of_image)


def _attribute_parts(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]
) -> Tensor:
    """Return maps of all images together; what draws random numbers, or takes examples, sees one at a time."""
    kind = getattr(_library(), name)
    parameters = inspect.signature(kind.attribute).parameters
    needs_baselines = "baselines" in _requirements(kind.attribute)
    size = 1 if "n_samples" in parameters or needs_baselines else len(images)
    maps = []
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        options = {key: value for key, value in _options(images).items() if key in parameters}
        seed, baselines = _draw(name, images[start], of_image[start])
        if needs_baselines:
            options["baselines"] = baselines
        with _quietly(seed):
            maps.append(_attribute(kind, name, Loss(model, labels[part]), images[part], options))
    return torch.cat(maps)


def _attribute_changes(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    of_image: Sequence[np.random.Generator],
) -> Tensor:
    """Return maps by DeepLift, the mean over baselines: one pair at a time, since rules may look over a batch."""
    maps = []
    for image, label, stream in zip(torch.split(images, 1), torch.split(labels, 1), of_image, strict=True):
        seed, baselines = _draw(name, image[0], stream)
        with _quietly(seed):
            of_baselines = [
                _attribute(_library().DeepLift, name, ChangeOfLoss(model, label), image, {"baselines": baseline})
                for baseline in torch.split(baselines, 1)
            ]
        maps.append(torch.cat(of_baselines).mean(0, keepdim=True))
        _check_complete(name, maps[-1], _change(model, image, label, baselines))
    return torch.cat(maps)


def _draw(name: str, image: Tensor, stream: np.random.Generator) -> tuple[int, Tensor]:
    """Return the seed and the baselines (B, C, H, W) of an image: noise where a method needs some, else black."""
    seed = int(stream.integers(2**31))
    if "baselines" not in _requirements(getattr(_library(), name).attribute):
        return seed, torch.zeros_like(image[None])
    noise = stream.random((BASELINES, *image.shape), dtype=np.float32)
    return seed, torch.from_numpy(noise).to(image.device)


def compute_promise(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]
) -> Tensor:
    """Return what each map promises to sum to (N,), NaN for a method that promises nothing; see `COMPLETE`."""
    if name not in COMPLETE:
        return torch.full_like(images[:, 0, 0, 0], torch.nan)
    return torch.cat(
        [
            _change(model, image, label, _draw(name, image[0], stream)[1])
            for image, label, stream in zip(torch.split(images, 1), torch.split(labels, 1), of_image, strict=True)
        ]
    )


def _change(model: nn.Module, image: Tensor, label: Tensor, baselines: Tensor) -> Tensor:
    """Return the loss of an image (1, C, H, W) minus the mean loss of its baselines (B, C, H, W): (1,)."""
    with torch.no_grad():
        baseline_losses = cross_entropy(model(baselines), label.expand(len(baselines)))
        return cross_entropy(model(image), label) - baseline_losses.mean()


def _check_complete(name: str, signed_map: Tensor, change: Tensor) -> None:
    """Raise UserError where a map does not sum to the change of the loss."""
    gap = float((signed_map.sum() - change).abs())
    if gap > TOLERANCE * float(change.abs()) + ROUNDING * (1e-2 + float(signed_map.abs().sum())):
        raise UserError(
            f"captum's {name} misses {gap:.2g} of a change of the loss by {float(change):.2g} in this network, which "
            "has a nonlinear step without a rule: use captum:IntegratedGradients."
        )


def _check_axes(model: nn.Module, image: Tensor) -> None:
    """Raise UserError where the local features do not lie in their layer's output as captum reads it."""
    outputs: list[Any] = []
    layer = find_local_module(model)
    assert isinstance(model, Classifier)
    handle = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        with torch.no_grad():
            local = model.features(image).local
    finally:
        handle.remove()
    shape = tuple(outputs[0].shape)
    if shape != tuple(local.shape) or getattr(model, "is_last", False):
        raise UserError(
            f"captum's GuidedGradCam takes a layer's second axis for its channels, and the layer of the local features "
            f"gives {shape} of one image: name a layer of (N, C, H, W) by --local-layer."
        )


def _options(images: Tensor) -> dict[str, Any]:
    """Return arguments beyond the images, by name: each method takes those that it has."""
    channels, height, width = images.shape[1:]
    cell = (max(1, height // CELLS), max(1, width // CELLS))
    rows, columns = torch.arange(height) // cell[0], torch.arange(width) // cell[1]
    cells_across = int(columns.max()) + 1
    mask = (rows[:, None] * cells_across + columns).to(images.device)
    return {
        "abs": False,
        "feature_mask": mask.repeat(1, channels, 1, 1),
        "sliding_window_shapes": (channels, *cell),
        "strides": (channels, *cell),
    }


def _attribute(kind: Any, name: str, loss: Loss, images: Tensor, options: dict[str, Any]) -> Tensor:
    layer = [find_local_module(loss.model)] if "layer" in inspect.signature(kind.__init__).parameters else []
    try:
        with torch.enable_grad():
            method = kind(loss, *layer)
            attribution = method.attribute(images.detach().clone(memory_format=torch.contiguous_format), **options)
    except Exception as error:  # each method has its own way to fail
        raise _failure(name, error) from error
    if not isinstance(attribution, Tensor) or attribution.shape != images.shape:
        raise UserError(f"captum's {name} gives no map of an image's pixels.")
    return attribution.detach()


def _failure(name: str, error: Exception) -> UserError:
    return UserError(f"captum's {name} fails in this network ({quote_error(error)}).")


def find_local_module(model: nn.Module) -> nn.Module:
    """Return the layer whose output is a model's local features. Raises UserError for a model without."""
    if not isinstance(model, Classifier):
        raise UserError("the model has no local features.")
    return model.local_module()


@contextmanager
def _quietly(seed: int) -> Iterator[None]:
    """Let global random numbers follow `seed` inside, and restore them afterwards; silence captum about hooks."""
    with preserve_random_numbers(torch.device("cpu")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        yield
