"""Maps of what a decision rests on, through captum: gradients of pixels, and weights of positions.

Everything that touches captum is here. Gradients keep their sign, are of the cross-entropy with respect to
pixels in [0, 1] (normalisation is inside the model), and one image's gradient does not depend on its batch.
A model in eval mode is left as found: its mode, its parameters, its hooks, and the global random state.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from torch import Tensor, nn

from interpret_robust.attacks import cross_entropy
from interpret_robust.errors import UserError
from interpret_robust.models import Classifier
from interpret_robust.streams import streams
from interpret_robust.variants import variant

Source = Literal["gradient", "smooth-gradient", "integrated-gradients"]
WeightsOf = Literal["attention", "grad-cam"]
WeightsChoice = Literal["auto", "attention", "grad-cam"]
WEIGHTS_HELP = "Weights of positions: attention, grad-cam, or auto for attention where the model has it."

TARGETS = 3
"""The purpose of random numbers that choose targets, apart from those that disturb images."""

SAMPLES = 32
"""Noisy copies of an image in a smooth gradient; steps of an integrated gradient."""

SIGMA = 0.1
"""Deviation of the noise in a smooth gradient, in pixels in [0, 1]; the copies may leave that range."""


def gradient_map(
    source: Source, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int], seed: int = 0
) -> Tensor:
    """A signed map (N, C, H, W) of the cross-entropy of `labels` (N,).

    `gradient`: its gradient (Simonyan et al. 2013), in units of loss per pixel value. `smooth-gradient`: the mean
    gradient of SAMPLES copies with normal noise of deviation SIGMA (Smilkov et al. 2017), in the same units.
    `integrated-gradients`: the mean gradient on the way from an image of uniform noise, times the way (Sundararajan
    et al. 2017), in units of loss; a map sums to the loss of the image minus that of the noise, up to the error of
    SAMPLES Gauss-Legendre steps. The way does not begin at black, because a network that standardises each image is
    constant on the way from any image without contrast: the map would be gradient times image, and sum to zero.

    Noise is a function of `seed` and of `indices`, those of the images. Raises UserError where a map has entries
    that are not numbers.
    """
    match source:
        case "gradient":
            found = loss_gradient(model, images, labels)
        case "smooth-gradient":
            found = _smooth(model, images, labels, streams(seed, indices))
        case "integrated-gradients":
            found = _integrated(model, images, labels, streams(seed, indices))
    _check_numbers(found)
    return found


def random_targets(labels: Tensor, indices: Sequence[int], classes: int, seed: int) -> Tensor:
    """For each image a class (N,) other than its label, all others being as likely: a function of seed and index."""
    steps = [int(stream.integers(1, classes)) for stream in streams(seed, indices, TARGETS)]
    return (labels + torch.tensor(steps, device=labels.device)) % classes


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of each image's cross-entropy with respect to its pixels."""
    return input_gradient(lambda pixels: cross_entropy(model(pixels), labels), images)


def input_gradient(scores: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of a score (N,) of each image with respect to its pixels.

    Captum's Saliency finds the same, and takes a third longer: it differentiates each image's score apart.
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        (found,) = torch.autograd.grad(scores(pixels).sum(), pixels)
    return found


def position_weights(model: Classifier, images: Tensor, of: WeightsOf) -> Tensor:
    """Weights (N, H*W) over positions of the local features, summing to one; NaN for an image that has none.

    `attention`: the head's. `grad-cam`: those of Grad-CAM (Selvaraju et al. 2017) for the predicted class, at the
    local features, by captum; an image whose class is supported by no position has none. Raises UserError where
    the model's answers are not numbers.
    """
    with torch.no_grad():
        features = model.features(images)
    if of == "attention":
        assert features.attention is not None
        _check_numbers(features.attention)
        return features.attention
    predicted = model.classifier(features.pooled).argmax(1)
    found = LayerGradCam(model, model.backbone).attribute(images, target=predicted, relu_attributions=True)
    weights: Tensor = found.detach().flatten(1)
    _check_numbers(weights)
    return weights / weights.sum(1, keepdim=True)


def resolve_weights(choice: WeightsChoice, job: Mapping[str, Any]) -> WeightsOf:
    """Whose weights stand for attention: the head's where a checkpoint's job has one, else those of Grad-CAM.

    Raises UserError for attention of a model without.
    """
    has_attention = variant(job["variant"]).head != "average"
    if choice == "attention" and not has_attention:
        raise UserError(f"'{job['variant']}' has no attention: use --weights grad-cam.")
    return choice if choice != "auto" else "attention" if has_attention else "grad-cam"


def _smooth(model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]) -> Tensor:
    total = torch.zeros_like(images)
    for _ in range(SAMPLES):
        noise = np.stack([stream.standard_normal(images.shape[1:], dtype=np.float32) for stream in of_image])
        total += loss_gradient(model, images + SIGMA * torch.from_numpy(noise).to(images.device), labels)
    return total / SAMPLES


def _integrated(model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]) -> Tensor:
    def loss(pixels: Tensor, of: Tensor) -> Tensor:
        return cross_entropy(model(pixels), of)

    noise = np.stack([stream.random(images.shape[1:], dtype=np.float32) for stream in of_image])
    found: Tensor = IntegratedGradients(loss).attribute(
        images.detach(),
        baselines=torch.from_numpy(noise).to(images.device),
        additional_forward_args=(labels,),
        n_steps=SAMPLES,
        internal_batch_size=len(images),  # a step at a time: memory is that of one gradient
    )
    return found.detach()


def _check_numbers(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise UserError("the model's answers or their gradients are not numbers: its weights have diverged.")
