"""Maps of what a decision rests on: of pixels, and weights of positions.

Maps keep their sign, are of the cross-entropy with respect to pixels in [0, 1] (normalization is inside the model), and
one image's map does not depend on its batch. A model in eval mode is left as found: its mode, its parameters, its
hooks, and the global random state.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.attacks.targets import draw_others
from interpret_robust.attribution import captum_methods
from interpret_robust.attribution.token_maps import RULES, compute_token_map, compute_token_weights, is_rule
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import NotFiniteError, UserError, unknown
from interpret_robust.core.plugins import import_object, is_reference
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import Features, measure_positions
from interpret_robust.models.losses import cross_entropy, loss_gradient
from interpret_robust.models.subject import Subject
from interpret_robust.models.variants import has_attention
from interpret_robust.models.wrapper import as_weights

SOURCES = ("gradient", "smooth-gradient", "integrated-gradients")
SOURCE_HELP = (
    f"How maps are computed: {', '.join(SOURCES)}, captum:NAME such as captum:DeepLift, or, for a transformer, "
    f"{', '.join(RULES)}."
)
SPATIAL_WEIGHTS = ("attention", "grad-cam", "feature-norm")
SPATIAL_WEIGHT_HELP = (
    f"Weights of positions: {', '.join(SPATIAL_WEIGHTS)}; for a transformer {', '.join(RULES)}; a function "
    "package.module:name of model and images; or auto for attention if the model has any, else grad-cam."
)

TARGETS = 3
"""The purpose of random numbers that choose targets, apart from those that disturb images."""

SAMPLES = 32
"""Noisy copies of an image in a smooth gradient; steps of an integrated gradient."""

SIGMA = 0.1
"""Deviation of the noise in a smooth gradient, in pixels in [0, 1]; the copies may leave that range."""


def compute_map(
    source: str, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int], seed: int = 0
) -> Tensor:
    """Return a signed map (N, C, H, W) of the cross-entropy of `labels` (N,).

    `gradient`: its gradient (Simonyan et al. 2013), in units of loss per pixel value. `smooth-gradient`: the mean
    gradient of SAMPLES copies with normal noise of deviation SIGMA (Smilkov et al. 2017), in the same units.
    `integrated-gradients`: the mean gradient on the way from an image of uniform noise, times the way (Sundararajan
    et al. 2017), in units of loss; a map sums to the loss of the image minus that of the noise, up to the error of
    SAMPLES Gauss-Legendre steps. The way does not begin at black, because a network that standardizes each image is
    constant on the way from any image without contrast: the map would be gradient times image, and sum to zero.
    `captum:NAME`: see `captum_methods`; `rollout`, `relevance` and `head:BLOCK.HEAD`: see `token_maps`.

    Noise is a function of `seed` and of `indices`, those of the images. Raises UserError where a map has entries
    that are not numbers.
    """
    match source:
        case "gradient":
            attribution = loss_gradient(model, images, labels)
        case "smooth-gradient":
            attribution = _smooth(model, images, labels, make_streams(seed, indices))
        case "integrated-gradients":
            attribution = _integrate(model, images, labels, make_streams(seed, indices))
        case _ if is_rule(source):
            attribution = compute_token_map(source, model, images, labels)
        case _:
            name = source.removeprefix(captum_methods.PREFIX)
            attribution = captum_methods.compute_attribution(name, model, images, labels, make_streams(seed, indices))
    _check_numbers(attribution)
    return attribution


def map_promise(
    source: str, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int], seed: int = 0
) -> Tensor:
    """Return what the maps of `compute_map` promise to sum to (N,): the loss minus the mean loss of the baselines.

    NaN for a source without this promise (completeness, Sundararajan et al. 2017). GradientShap keeps it in
    expectation, over its random points.
    """
    if source == "integrated-gradients":
        baselines = _noise_images(images, make_streams(seed, indices))
        with torch.no_grad():
            return cross_entropy(model(images), labels) - cross_entropy(model(baselines), labels)
    name = source.removeprefix(captum_methods.PREFIX)
    return captum_methods.compute_promise(name, model, images, labels, make_streams(seed, indices))


def measure_completeness_gap(
    source: str, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int], seed: int = 0
) -> float:
    """Return by how much the maps of `compute_map` miss what they promise to sum to, see `measure_relative_gap`."""
    promise = map_promise(source, model, images, labels, indices, seed)
    if bool(promise.isnan().any()):
        return float("nan")
    sums = compute_map(source, model, images, labels, indices, seed).double().flatten(1).sum(1)
    return measure_relative_gap(*(values.cpu().numpy() for values in (sums - promise, promise)))


def measure_relative_gap(gap: AnyArray, promise: AnyArray) -> float:
    """Return by how much maps miss what they promise to sum to, all images together; NaN where nothing is promised."""
    total_gap, whole = (float(np.abs(values.astype(np.float64)).sum()) for values in (gap, promise))
    return total_gap / whole if whole > 0 else np.nan


def draw_targets(labels: Tensor, indices: Sequence[int], classes: int, seed: int) -> Tensor:
    """Return for each image a class (N,) other than its label, all others being as likely: a function of seed and
    index.
    """
    return draw_others(labels, indices, classes, seed, TARGETS)


def check_source(source: str) -> str:
    """Return the name of a source of maps. Raises UserError where there is none of this name."""
    if source.startswith(captum_methods.PREFIX):
        return captum_methods.PREFIX + captum_methods.check_method(source.removeprefix(captum_methods.PREFIX))
    if source not in SOURCES and not is_rule(source):
        raise unknown("source of maps", source, (*SOURCES, f"{captum_methods.PREFIX}NAME", *RULES))
    return source


def compute_position_weights(
    model: Classifier, images: Tensor, weight: str, features: Features | None = None
) -> Tensor:
    """Return weights (N, H*W) over positions of the local features, summing to one; NaN for an image that has none.

    `features` are those of the model for the images, where they have been computed already.

    `attention`: the model's own. `grad-cam`: those of Grad-CAM (Selvaraju et al. 2017) for the predicted class, at the
    local features; an image whose class is supported by no position has none. `feature-norm`: the L2 norm of each
    local feature. `rollout`, `relevance` (of the predicted class) and `head:BLOCK.HEAD`: those of a transformer's
    self-attention, see `token_maps`. `package.module:name`: what this function gives for the model and the images, see
    `models.wrapper.as_weights`. Raises UserError where what it rests on is not numbers.
    """
    if features is None:
        with torch.no_grad():
            features = model.features(images)
    _check_numbers(features.pooled)
    match weight:
        case "attention":
            assert features.attention is not None
            return features.attention
        case "grad-cam":
            weights = _grad_cam(model, images, features.local)
        case "feature-norm":
            weights = measure_positions(features.local)
        case _ if is_rule(weight):
            weights = compute_token_weights(weight, model, images).flatten(1)
        case _:
            count, _, height, width = features.local.shape
            return as_weights(import_object(weight)(model, images), (count, height, width), weight)
    _check_numbers(weights)
    return weights / weights.sum(1, keepdim=True)


def _grad_cam(model: Classifier, images: Tensor, local: Tensor) -> Tensor:
    """Return the positive part (N, H*W) of the channels' sum, weighted by the mean gradient of the predicted class's
    logit.
    """
    with torch.enable_grad():
        features = local.detach().requires_grad_()
        logits = model.rest(images, features)
        (gradient,) = torch.autograd.grad(logits.amax(1).sum(), features)
    return (gradient.mean((2, 3), keepdim=True) * local).sum(1).clamp_min(0).flatten(1)


def resolve_weight(choice: str, job: Mapping[str, Any]) -> str:
    """Return whose weights stand for attention: the model's own where its job has one, else those of Grad-CAM.

    Raises UserError for attention of a model without, and for a name that is none.
    """
    if choice == "auto":
        return "attention" if has_attention(job) else "grad-cam"
    if choice == "attention" and not has_attention(job):
        raise UserError(f"'{job['variant']}' has no attention: use --spatial-weight grad-cam.")
    if choice not in SPATIAL_WEIGHTS and not is_rule(choice) and not is_reference(choice):
        raise unknown("spatial weight", choice, ("auto", *SPATIAL_WEIGHTS, *RULES, "package.module:function"))
    return choice


def choose_weight(choice: str, subject: Subject) -> str | None:
    """Return whose weights are laid over a model's images, see `resolve_weight`; None for one without positions.

    Raises UserError also where others than `auto` are asked of a model without positions.
    """
    if subject.local_shape()[0]:
        return resolve_weight(choice, subject.job)
    if choice != "auto":
        raise UserError(f"{subject.location} has no features at several positions: leave --spatial-weight out.")
    return None


def _smooth(model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]) -> Tensor:
    total = torch.zeros_like(images)
    for _ in range(SAMPLES):
        noise = np.stack([stream.standard_normal(images.shape[1:], dtype=np.float32) for stream in of_image])
        total += loss_gradient(model, images + SIGMA * torch.from_numpy(noise).to(images.device), labels)
    return total / SAMPLES


def _integrate(model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]) -> Tensor:
    def loss(pixels: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(model(pixels), targets)

    from captum.attr import IntegratedGradients  # which takes long to load

    attribution: Tensor = IntegratedGradients(loss).attribute(
        images.detach(),
        baselines=_noise_images(images, of_image),
        additional_forward_args=(labels,),
        n_steps=SAMPLES,
        internal_batch_size=len(images),  # a step at a time: memory is that of one gradient
    )
    return attribution.detach()


def _noise_images(images: Tensor, of_image: Sequence[np.random.Generator]) -> Tensor:
    noise = np.stack([stream.random(images.shape[1:], dtype=np.float32) for stream in of_image])
    return torch.from_numpy(noise).to(images.device)


def _check_numbers(values: Tensor) -> None:
    (places,) = (~values.isfinite()).flatten(1).any(1).nonzero(as_tuple=True)
    if len(places):
        raise NotFiniteError("answers or their gradients", places.tolist())
