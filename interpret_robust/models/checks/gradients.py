"""What is doubtful about the gradients of a model's answers to a few images: a sentence each.

Sentences begin with a verb, to be read behind the model's name.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from interpret_robust.core.errors import UserError
from interpret_robust.models.checks.answers import SMALL, choose_tried_batch, is_coarse, is_same
from interpret_robust.models.checks.losses import STEPS, attack_briefly
from interpret_robust.models.classifier import Classifier, list_precisions, predict_classes
from interpret_robust.models.losses import loss_gradient

FLOAT32_STEP, FLOAT64_STEP = 1e-4, 1e-6
"""Typical changes of a pixel, in [0, 1], by which gradients are compared with differences; 1/255 is 4e-3."""

JITTER = 2e-3
"""How far from the images gradients are compared: at least this from 0 and 1, at most thrice this from each pixel."""

ROUNDINGS = 30
"""Rounding errors of an answer, in units of its last digit: a slope that they may hide is not judged."""

MEDIAN = 0.6745
"""The median of the size of a standard normal number."""

LEAST_MISSING, FLOAT32_MISSING = 0.05, 0.5
"""A gradient that leaves out this share of itself is doubted; the larger share where float64 cannot be used."""

FLAT = "has a cross-entropy without any gradient"
"""What is said of a model whose attacks by it stand still."""

BLIND_SHARE = 0.05
"""Share of a side that strides may cut off."""


class Gradients(NamedTuple):
    """What a model answers to images (N, C, H, W): logits (N, classes), and the gradient of their projection.

    `slope` is as large as the images, and None where none reaches the pixels.
    """

    images: Tensor
    logits: Tensor
    slope: Tensor | None

    def has_slope(self) -> Tensor:
        """Return which images (N,) have a gradient of the projection."""
        if self.slope is None:
            return torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
        return (self.slope.flatten(1) != 0).any(1)


@torch.enable_grad()
def differentiate(model: Classifier, images: Tensor) -> Gradients:
    """Return what a model answers to images (N, C, H, W), and its gradient.

    Example:
        >>> differentiate(model, images).has_slope().all()
        tensor(True)
    """
    pixels = images.clone().requires_grad_()
    logits = model(pixels)
    if not logits.requires_grad:
        return Gradients(images, logits, None)
    (slope,) = torch.autograd.grad(_project(logits).sum(), pixels, allow_unused=True)
    return Gradients(images, logits, slope)


def list_gradient_doubts(model: Classifier, images: Tensor) -> Iterator[str]:
    """Yield what is doubtful about gradients with respect to the pixels of images (N, C, H, W).

    Raises UserError where none reaches them.
    """
    with torch.no_grad():
        plain_logits = model(images)
    gradients = differentiate(model, images)
    logits, slope = gradients.logits, gradients.slope
    if slope is None:
        _refuse_kept_answers(model, images, logits)
        raise UserError(
            "no gradient of the answer reaches the pixels, so that attacks and maps would mean nothing: does the "
            "network's forward use torch.no_grad, detach, a step through NumPy, or layers of integers?"
        )
    if not is_same(plain_logits, logits) and not is_coarse(model, logits):
        yield from _doubt_about_modes(model, images)
    if bool((slope == 0).all()):
        if bool((logits == logits[0]).all()):
            yield f"answers all of {len(images)} test images alike, as an untrained network may."
            return
        raise UserError(
            f"the gradient of the answer is zero in every pixel of {len(images)} images, though their answers differ, "
            "so that attacks and maps would mean nothing: does the network's forward round the pixels?"
        )
    gradient = loss_gradient(model, images, logits.argmax(1))
    if count := int((~gradient.isfinite()).flatten(1).any(1).sum()):
        yield f"has gradients that are not numbers on {count} of {len(images)} test images."
        return
    has_slope = gradients.has_slope()
    zero_count = int(((gradient.flatten(1) == 0).all(1) & has_slope).sum())
    if logits.shape[1] == 1:
        yield "has one class: every image is right, attacked or not, whatever it answers. Give images of two or more."
    elif zero_count:
        yield describe_flat(zero_count, len(images))
    yield from _doubt_about_batches(model, images[has_slope][:1])
    if border := _blind_border(model, images):
        yield (
            f"does not see the outer pixels of an image ({border}): its positions are laid over the whole image, and "
            "lie elsewhere where its forward crops. Crop the images of the data instead."
        )
    if doubts := list(_doubt_about_slopes(model, gradients, "test images")):
        yield from doubts
        return
    count = _attack_count(images)
    adversarial = attack_briefly(model, images[:count], logits[:count].argmax(1))
    yield from _doubt_about_slopes(model, differentiate(model, adversarial), f"images after {STEPS} steps of PGD")


def describe_flat(count: int, images: int) -> str:
    """Return a sentence that begins with FLAT, on so many of some images without a gradient of the cross-entropy.

    Example:
        >>> describe_flat(5, 8).split(",")[0]
        'has a cross-entropy without any gradient on 5 of 8 test images'
    """
    return (
        f"{FLAT} on {count} of {images} test images, though its logits have one, as where they are so large that the "
        "loss is zero in float32: attacks by it fail. Trust the margin's (CW) and APGD-T, and see `irt flags`."
    )


def _attack_count(images: Tensor) -> int:
    """Return how many of images (N, C, H, W) are attacked: half of them, of large ones a quarter, and at least one."""
    return max(len(images) // (2 if images[0, 0].numel() <= SMALL else 4), 1)


def _doubt_about_slopes(model: Classifier, gradients: Gradients, kind: str) -> Iterator[str]:
    """Yield a sentence where gradients are none, or not those of the answers, on images of a kind.

    A network whose answers differ each time, or depend on the batch, is not judged.
    """
    images = gradients.images
    half = (len(images) + 1) // 2
    with torch.no_grad():
        repeated_logits = model(images[:half])
    if not is_same(repeated_logits, gradients.logits[:half]) and not is_coarse(model, gradients.logits):
        return
    count = count_blind(model, images[~gradients.has_slope()])
    if count:
        yield (
            f"has no gradient on {count} of {len(images)} {kind}, though its answers change beside them: attacks "
            "may fail there. Does its forward detach answers, or round?"
        )
    if 2 * count < len(images) and (share := _missing_share(model, images, gradients.logits)):
        yield (
            "has gradients that are not those of its answers: along a random direction the answer to the median of the "
            f"{kind} changes otherwise than they say, by {_percent(share)} of such a change. Attacks may be "
            "too weak, and maps those of another network: does its forward round, detach, or replace gradients? "
            "`irt analyze masking` also asks without gradients."
        )


def _refuse_kept_answers(model: Classifier, images: Tensor, logits: Tensor) -> None:
    """Raise UserError where logits (N, classes) have no gradient because they were kept from an earlier call."""
    other = differentiate(model, 1 - images)
    if torch.equal(logits, other.logits):
        raise UserError(
            "other images are answered exactly as the first ones were, and without a gradient: does the network keep "
            "its answers between calls? Let its forward compute each answer anew."
        )
    if other.slope is not None:
        raise UserError(
            "images that were asked before are answered without a gradient, and new ones with one, since the network "
            "keeps its answers between calls: attacks and maps would fail. Let its forward compute each answer anew."
        )


def _doubt_about_modes(model: Classifier, images: Tensor) -> Iterator[str]:
    """Yield a sentence where the answers to images (N, C, H, W) are others as soon as their gradient is asked for."""

    def ask(*, has_gradient: bool) -> Tensor:
        with torch.set_grad_enabled(has_gradient):
            answers: Tensor = model(images.clone().requires_grad_(has_gradient)).detach()
        return answers

    (logits, repeated_logits), (graph_logits, repeated_graph_logits) = (
        [ask(has_gradient=has_gradient) for _ in range(2)] for has_gradient in (False, True)
    )
    if (
        is_same(logits, repeated_logits)
        and is_same(graph_logits, repeated_graph_logits)
        and not is_same(logits, graph_logits)
    ):
        count = int((predict_classes(logits) != predict_classes(graph_logits)).sum())
        yield (
            f"answers an image differently where its gradient is asked for ({count} of {len(images)} decisions "
            "changed): attacks and maps follow another network than the one that answers. Does its forward ask for "
            "torch.is_grad_enabled() or requires_grad? Let it compute the same in both cases."
        )


def _nearby(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return pixels in [JITTER, 1 - JITTER] a little beside those of images, no two of which are equal.

    Maxima and rectifiers have kinks where they are, and a network may refuse pixels outside of [0, 1].
    """
    return (1 - 3 * JITTER) * images + JITTER * (1 + torch.rand(images.shape, generator=generator).to(images))


@torch.no_grad()
def count_blind(model: Classifier, images: Tensor) -> int:
    """Return how many images (N, C, H, W) without a gradient are answered otherwise when slightly changed."""
    if len(images) == 0:
        return 0
    logits, nearby_logits = model(images), model(_nearby(images, torch.Generator().manual_seed(0)))
    return sum(not is_same(first[None], second[None]) for first, second in zip(logits, nearby_logits, strict=True))


def _doubt_about_batches(model: Classifier, image: Tensor) -> Iterator[str]:
    """Yield a sentence where the gradient of an image (1, C, H, W), if there is one, is another among its copies.

    Answers that differ there, or each time, or are of half precision are told of by other checks.
    """
    if len(image) == 0:
        return
    single, copies = (differentiate(model, image.repeat(count, 1, 1, 1)) for count in (1, choose_tried_batch(image)))
    if single.slope is None or copies.slope is None or is_coarse(model, single.logits):
        return
    if not is_same(copies.logits, single.logits.expand_as(copies.logits)):
        return
    if count := int(differs_in_slope(copies.slope, single.slope).sum()):
        yield (
            f"has gradients that depend on the batch: on {count} of {len(copies.images)} copies of one image they are "
            "others than on the image alone. Attacks are weaker or stronger with --batch-size. Does a part of its "
            "forward or backward pass ask for the number of images, or leave some without gradients?"
        )


def differs_in_slope(slopes: Tensor, references: Tensor) -> Tensor:
    """Return which gradients (N, C, H, W) miss LEAST_MISSING or more of their references, of the same shape or of one.

    Example:
        >>> differs_in_slope(-slopes, slopes).all()
        tensor(True)
    """
    distances, lengths = (tensor.flatten(1).norm(dim=1) for tensor in (slopes - references, references))
    is_other: Tensor = distances > LEAST_MISSING * lengths
    return is_other


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 1 else "more than 100%"


def _project(logits: Tensor) -> Tensor:
    """Return a fixed random combination (N,) of the logits of each image: of all that are finite."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(logits.shape[1], generator=generator).to(logits)
    return (torch.where(logits.isfinite(), logits, 0) * factors).sum(1)


def _blind_border(model: Classifier, images: Tensor) -> str:
    """Return how many lines of pixels on each side have no effect on any answer, in words; empty for few.

    Noise of the images' size is asked: the dark border of an image has no effect on many networks.
    """
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images.device).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(_project(model(noise)).sum(), noise, allow_unused=True)
    if slope is None or not bool(slope.any()):
        return ""
    sides = []
    for axis, names in ((2, ("above", "below")), (3, ("left", "right"))):
        (lines,) = slope.abs().sum([dimension for dimension in range(4) if dimension != axis]).nonzero(as_tuple=True)
        length = slope.shape[axis]
        blind = (int(lines[0]), length - 1 - int(lines[-1]))
        if sum(blind) >= 2 and sum(blind) > BLIND_SHARE * length:
            sides += [f"{count} {name}" for count, name in zip(blind, names, strict=True) if count]
    return ", ".join(sides)


def _missing_share(model: Classifier, images: Tensor, logits: Tensor) -> float:
    """Return how large what gradients leave out is beside them, on the median image; 0 where they are right.

    An image on which rounding hides it does not count.

    Along a random direction v of independent pixels the answer's slope differs from g . v by a normal number, whose
    deviation is the length of what the gradient g leaves out, in units in which that of g . v is |g|. Where the slope
    in float32 does not agree with the gradient, that in float64 tells, where the network computes so. A network whose
    answers are of half precision, as its weights may be, is not judged.
    """
    if is_coarse(model, logits):
        return 0.0
    difference = _compare_slopes(model, images if images[0, 0].numel() <= SMALL else images[: len(images) // 2])
    if torch.float64 not in list_precisions(model):
        first = difference(torch.float32, FLOAT32_STEP)
        share = float(first.nanmedian()) / MEDIAN
        if share < LEAST_MISSING:
            return 0.0
    try:
        share = float(difference(torch.float64, FLOAT64_STEP).nanmedian()) / MEDIAN
    except Exception:  # the network insists on float32, and two steps have to agree
        second = difference(torch.float32, 3 * FLOAT32_STEP)
        share = float(torch.fmin(first, second).nanmedian()) / MEDIAN
        if share < FLOAT32_MISSING and float((first - second).abs().nanmedian()) > share / 4:
            return 0.0
    return share if share > LEAST_MISSING else 0.0


def _compare_slopes(model: Classifier, images: Tensor) -> Callable[[torch.dtype, float], Tensor]:
    """Return what gives, at a step, how far central differences lie from what gradients say, over their length (N,).

    NaN where rounding hides it, which it does not where the differences alone show that there is a slope.
    """
    generator = torch.Generator().manual_seed(0)
    nearby = _nearby(images, generator)
    direction = torch.randn(images.shape, generator=generator).to(images)
    with torch.enable_grad():
        pixels = nearby.clone().requires_grad_()
        center = _project(model(pixels))
        (gradient,) = torch.autograd.grad(center.sum(), pixels)
    size = center.detach().abs()
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
    slope = (gradient * direction).flatten(1).sum(1)

    @torch.no_grad()
    def difference(dtype: torch.dtype, step: float) -> Tensor:
        tensors = _tensors(model, dtype)
        middle, change = nearby.to(dtype), step * direction.to(dtype)
        ends = [
            _project(functional_call(model, tensors, (middle + side * change,), tie_weights=False)) for side in (1, -1)
        ]
        rounding = ROUNDINGS * torch.finfo(dtype).eps * size / (2 * step)
        measured_slope = (ends[0] - ends[1]) / (2 * step)
        is_visible = rounding < LEAST_MISSING * torch.maximum(length, measured_slope.abs())
        return torch.where(is_visible, (measured_slope - slope).abs() / length, torch.nan)

    return difference


def _tensors(model: Classifier, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the weights and buffers of a model by all their names, in another precision."""
    return {
        name: tensor.detach().to(dtype)
        for prefix, module in model.named_modules()  # a module of two names once, or these would stay in it
        for name, tensor in (
            *module.named_parameters(prefix, recurse=False, remove_duplicate=False),
            *module.named_buffers(prefix, recurse=False, remove_duplicate=False),
        )
        if tensor.is_floating_point()
    }
