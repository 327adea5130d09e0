"""Maps by any attribution method of captum, of the loss with respect to pixels.

A method is given the cross-entropy where captum's own examples give it a logit, so that a map has the sign of our
gradients: positive where a pixel raises the loss. What a method asks for beyond that is the same for all: where it
needs baselines it gets uniform noise, which depends on the image's index and not on its batch; where it disturbs
features one by one, these are squares of an eighth of the image's side over all colors, since single pixels would
take thousands of passes.
"""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import captum.attr
import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.attacks.pgd import cross_entropy
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.plugins import first_words
from interpret_robust.models import Classifier

PREFIX = "captum:"

BASELINES = 8
"""Images of noise for a method that needs examples to compare with."""

CELLS = 8
"""Squares along a side of an image, each a feature of methods that disturb features."""

OF_ACTIVATIONS = ("DeepLift", "DeepLiftShap", "GuidedBackprop", "Deconvolution", "GuidedGradCam")
"""Methods that give activation layers a gradient of their own, and do nothing where there are none."""

SLOPES = ("Saliency", "GuidedBackprop", "Deconvolution", "GuidedGradCam")
"""Methods whose maps are slopes, loss per pixel value; those of all others are contributions to the loss."""

LEFT_OUT = ("FeaturePermutation", "ShapleyValues", "LRP")
"""The first exchanges images of a batch, so that an image's map would depend on the others; the second takes a pass for
every order of all features; the third has rules for few kinds of layers, and none for a loss."""


def names() -> list[str]:
    """Return the methods there are: those of captum that attribute to the input."""
    methods = []
    for name in captum.attr.__all__:
        kind: Any = getattr(captum.attr, name)
        if not (inspect.isclass(kind) and issubclass(kind, captum.attr.Attribution)) or name in LEFT_OUT:
            continue
        if name.startswith(("Layer", "Neuron", "Internal")) or "attribute" not in vars(kind):
            continue
        if _requirements(kind.__init__) <= {"self", "model", "forward_func", "layer"}:
            methods.append(name)
    return methods


def _requirements(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind.name[:3] != "VAR"
    }


def check_method(name: str) -> str:
    """Return the name of a method. Raises UserError where there is none of this name."""
    if name not in names():
        raise unknown("attribution of captum", name, names())
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


def attribution(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]
) -> Tensor:
    """Return a map (N, C, H, W) of each image's cross-entropy by the method called `name`.

    `of_image` are the images' random numbers. Raises UserError where the method does not suit the network.
    """
    if name in OF_ACTIVATIONS and not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise UserError(f"captum's {name} changes what ReLU layers do, and this network has none that are modules.")
    kind = getattr(captum.attr, name)
    parameters = inspect.signature(kind.attribute).parameters
    # What draws random numbers, or takes baselines as examples for all images, sees one image at a time.
    needs_baselines = "baselines" in _requirements(kind.attribute)
    size = 1 if "n_samples" in parameters or needs_baselines else len(images)
    seeds = [int(stream.integers(2**31)) for stream in of_image]
    attributions = []
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        options = {key: value for key, value in _options(images).items() if key in parameters}
        if needs_baselines:
            noise = of_image[start].random((BASELINES, *images.shape[1:]), dtype=np.float32)
            options["baselines"] = torch.from_numpy(noise).to(images.device)
        with _quietly(seeds[start]):
            attributions.append(_attribute(kind, name, model, images[part], labels[part], options))
    return torch.cat(attributions)


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


def _attribute(
    kind: Any, name: str, model: nn.Module, images: Tensor, labels: Tensor, options: dict[str, Any]
) -> Tensor:
    loss = Loss(model, labels)
    layer = [local_module(model)] if "layer" in inspect.signature(kind.__init__).parameters else []
    try:
        with torch.enable_grad():
            method = kind(loss, *layer)
            attribution = method.attribute(images.detach().clone(memory_format=torch.contiguous_format), **options)
    except Exception as error:  # each method has its own way to fail
        raise UserError(f"captum's {name} does not go through this network ({first_words(error)}).") from error
    if not isinstance(attribution, Tensor) or attribution.shape != images.shape:
        raise UserError(f"captum's {name} gives no map of an image's pixels.")
    return attribution.detach()


def local_module(model: nn.Module) -> nn.Module:
    """Return the layer whose output are a model's local features. Raises UserError for a model without."""
    if not isinstance(model, Classifier):
        raise UserError("the model has no local features.")
    return model.local_module()


@contextmanager
def _quietly(seed: int) -> Iterator[None]:
    """Yield global random numbers follow `seed` inside and are left as found; captum does not say what it hooks."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)
