"""A trial of a model from elsewhere on a few images, before any question is asked of it.

What makes every answer meaningless is refused. What makes answers doubtful is one sentence each, with its remedy; these
sentences are kept in the files of all answers that rest on the model, and shown beside their numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.statistics import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.classifier import Classifier, predicted_classes
from interpret_robust.models.layers import Choice
from interpret_robust.models.preprocess import STATISTICS, Preprocess, Statistics
from interpret_robust.models.wrapped import WrappedModel

NORMALIZATION_IMAGES = 100
"""Images on which a model's normalization is tried out, of at most SMALL pixels; of larger ones a third."""

SMALL = 96 * 96

ANSWER_IMAGES = 8
"""Images on which answers and gradients are looked at."""

SIGNIFICANT = 0.01

TOLERANCE = 1e-4
"""Answers differ where they do by more than this share of the largest logit."""


class Trial(NamedTuple):
    """Natural accuracy of a model on a few test images, and what is doubtful about it, a sentence each."""

    accuracy: float
    images: int
    doubts: tuple[str, ...]


def try_out(
    model: WrappedModel,
    data: Dataset,
    label: str,
    normalize: str,
    layer: Choice | None,
    *,
    is_trained: bool = True,
) -> Trial:
    """Try a model on a few test images.

    Args:
        model: on the device on which it is tried.
        data: whose test images it sees: eight for its answers, at most NORMALIZATION_IMAGES for its normalization.
        label: what sentences call it.
        normalize: how its normalization is typed.
        layer: that its local features are taken from, None where it has none.
        is_trained: whether other normalizations are tried: without training none is right.

    Raises UserError where it gives no numbers at all, or where no gradient reaches the pixels: attacks and maps would
    mean nothing. The model's weights and the process's random numbers are left as found.

    Example:
        >>> try_out(wrapper, data, "timm:vit_tiny_patch16_224", "inception", None).doubts
        ()
    """
    device = model.preprocess.mean.device
    images = to_pixels(to_device(data.test.draw(ANSWER_IMAGES), device)[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        doubts = list(doubts_about_answers(model, images, label))
        if layer is not None and layer.is_doubtful:
            doubts.append(_of_layer(layer, label))
        accuracy, count, doubt = _of_normalization(model, data, label, normalize, STATISTICS if is_trained else {})
    return Trial(accuracy, count, (*doubts, *filter(None, [doubt])))


def doubts_about_answers(model: Classifier, images: Tensor, label: str) -> Iterator[str]:
    """Yield what is doubtful about the answers of any model to a few images (N, C, H, W), and about their gradients.

    Raises UserError as `try_out` does. Random numbers are drawn from seed 0.

    Example:
        >>> list(doubts_about_answers(build("small", "average", (3, 32, 32), 10, seed=0).eval(), images, "mine"))
        []
    """
    torch.manual_seed(0)
    for doubt in (*_of_answers(model, images), *_of_gradients(model, images, label)):
        yield f"{label} {doubt}"


def _of_answers(model: Classifier, images: Tensor) -> Iterator[str]:
    """Yield what is doubtful about the logits of a few images. Raises UserError where they are no numbers."""
    with torch.no_grad():
        logits = model(images)
        second, alone = model(images), torch.cat([model(image[None]) for image in images])
    size = logits.abs().max().clamp_min(1e-30)
    if not bool(logits.isfinite().any()):
        raise UserError(
            f"the network answers none of {len(images)} images with numbers: are its weights and --normalize right?"
        )
    if strange := int((~logits.isfinite()).any(1).sum()):
        yield f"answers {strange} of the first {len(images)} test images with logits that are not finite numbers."
        return
    if float((second - logits).abs().max()) > TOLERANCE * float(size):
        yield _randomness(model, second, logits)
    else:
        if draws := _draws(model):
            yield f"answers the same each time: --draws {draws} changes nothing."
        difference = float((alone - logits).abs().max() / size)
        if difference > TOLERANCE:
            yield (
                f"answers an image differently alone and in a batch (by {difference:.1%} of the largest logit): "
                "numbers depend on --batch-size. Does a layer use statistics of its batch?"
            )
    if bool(((logits >= 0) & (logits <= 1)).all()) and bool((logits != logits[0]).any()):
        sums = bool(((logits.sum(1) - 1).abs() < TOLERANCE).all())
        yield (
            f"answers with {'probabilities' if sums else 'numbers between 0 and 1'}, not with logits: gradients of the "
            "loss nearly vanish, attacks fail and robustness is overstated. Return what goes into its "
            f"{'softmax' if sums else 'last activation'}."
        )


def _draws(model: Classifier) -> int | None:
    return model.draws if isinstance(model, WrappedModel) else None


def _randomness(model: Classifier, second: Tensor, logits: Tensor) -> str:
    change_count = int((second.argmax(1) != logits.argmax(1)).sum())
    if draws := _draws(model):
        return (
            f"draws random numbers: answers are the expectation over {draws} draws of them, and two such "
            f"expectations decide {change_count} of {len(logits)} images differently. More --draws are steadier."
        )
    return (
        f"answers an image differently each time ({change_count} of {len(logits)} decisions changed): each number is "
        "one draw of many, and attacks are too weak. --draws 20 asks for the expectation over 20 draws."
    )


def _of_gradients(model: Classifier, images: Tensor, label: str) -> Iterator[str]:
    """Yield what is doubtful about gradients of the loss. Raises UserError where none reaches the pixels."""
    with torch.enable_grad():
        pixels = images.clone().requires_grad_()
        logits = model(pixels)
        gradient = None
        if logits.requires_grad:
            labels = logits.argmax(1)
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, pixels, allow_unused=True, retain_graph=True)
            (slope,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), pixels, allow_unused=True)
    if gradient is None or slope is None:
        raise UserError(
            f"{label}: no gradient of the answer reaches the pixels, so that attacks and maps would mean nothing: does "
            "its forward use torch.no_grad, detach, or a step through NumPy?"
        )
    if bool((slope == 0).all()):
        if bool((logits == logits[0]).all()):
            yield f"answers all of the first {len(images)} test images alike, as an untrained network may."
            return
        raise UserError(
            f"{label}: the gradient of the answer is zero in every pixel of {len(images)} images, though their answers "
            "differ, so that attacks and maps would mean nothing: does its forward round the pixels?"
        )
    if strange := int((~gradient.isfinite()).flatten(1).any(1).sum()):
        yield f"has gradients that are not numbers on {strange} of the first {len(images)} test images."
        return
    zero_count = int((gradient.flatten(1) == 0).all(1).sum())
    if zero_count > len(images) // 2:
        yield (
            f"has a cross-entropy without any gradient on {zero_count} of the first {len(images)} test images, though "
            "its logits have one: they are so large that the loss is zero in float32, and attacks by it fail. "
            "Trust the margin's (CW) and APGD-T, and see `irt flags`."
        )
    if (count := _false_gradients(model, images, logits, slope)) > len(images) // 2:
        yield (
            f"has gradients that are not those of its answers: along them the answer of {count} of the first "
            f"{len(images)} test images changes by less than half, or more than twice, of what they say. Attacks may "
            "be too weak, and maps those of another network: does its forward round, detach, or replace gradients? "
            "`irt analyze masking` also asks without gradients."
        )


STEP = 1e-3
"""The largest change of a pixel, in [0, 1], by which gradients are compared with differences: a quarter of 1/255."""


@torch.no_grad()
def _false_gradients(model: Classifier, images: Tensor, logits: Tensor, slope: Tensor) -> int:
    """Return on how many images (N, C, H, W) the winning logit does not change along its gradient as that says.

    It is compared with a central difference over STEP; images whose logit would not change by 1e-4 of its size, which
    float32 hides, do not count, and none of a network that draws random numbers.
    """
    if not torch.allclose(model(images), logits, rtol=TOLERANCE, atol=TOLERANCE * float(logits.abs().max())):
        return 0
    size = slope.abs().flatten(1).amax(1).clamp_min(1e-30)
    move = STEP * slope / size[:, None, None, None]
    labels = logits.argmax(1, keepdim=True)
    ahead, behind = ((model(images + sign * move).gather(1, labels))[:, 0] for sign in (1, -1))
    expected = 2 * (move * slope).flatten(1).sum(1)
    ratio = (ahead - behind) / expected.clamp_min(1e-30)
    is_measurable = expected > 1e-4 * logits.abs().amax(1)
    return int((is_measurable & ((ratio < 0.5) | (ratio > 2))).sum())


def _of_layer(layer: Choice, label: str) -> str:
    return (
        f"{label}: a position of layer '{layer.name}' depends more on its own pixels than on {layer.locality:.0%} of "
        f"the others, where {layer.threshold:.0%} are expected: maps and ranks by position may lie elsewhere. "
        "--local-layer names another."
    )


def _of_normalization(
    model: WrappedModel, data: Dataset, label: str, normalize: str, alternatives: Mapping[str, Statistics]
) -> tuple[float, int, str | None]:
    """Return the share of a few test images that are right, how many, and a doubt about the normalization, or None.

    In doubt is a model that is right on more images under another one (McNemar's exact test at SIGNIFICANT), and one
    that cannot be told from guessing (an exact binomial test).
    """
    own_preprocess, device = model.preprocess, model.preprocess.mean.device
    side = own_preprocess.size or max(data.image_shape[1:])
    split = data.test.draw(NORMALIZATION_IMAGES if side * side <= SMALL else NORMALIZATION_IMAGES // 3)
    pixels, labels = to_device(split, device)
    right = _judge(model, to_pixels(pixels), labels)
    declared_right, count, channels = right(own_preprocess), len(split), data.image_shape[0]
    accuracy, chance = float(declared_right.mean()), 1 / len(data.class_names)
    summary = f"{label} is right on {accuracy:.0%} of the first {count} test images"
    better, better_right = normalize, declared_right
    # Of fewer wrong images no other normalization could be significantly better.
    if int((~declared_right).sum()) >= LEAST_WRONG:
        for name, (mean, deviation) in alternatives.items():
            if len(mean) in (1, channels):
                other_right = right(Preprocess(mean, deviation, own_preprocess.size).to(device))
                if other_right.mean() > better_right.mean():
                    better, better_right = name, other_right
    if better_right.mean() > accuracy and mcnemar(better_right, declared_right).p_value < SIGNIFICANT:
        doubt = f"{summary} with --normalize {normalize}, and on {better_right.mean():.0%} with --normalize {better}."
    elif binomtest(int(declared_right.sum()), count, chance, "greater").pvalue > SIGNIFICANT:
        doubt = (
            f"{summary}, hardly more than guessing ({chance:.0%}): are its normalization and the order of its "
            "classes right?"
        )
    else:
        doubt = None
    return accuracy, count, doubt


LEAST_WRONG = 8
"""The fewest images, all right under one normalization and wrong under another, that McNemar's test at 0.01 tells."""


def _judge(model: WrappedModel, images: Tensor, labels: Tensor) -> Callable[[Preprocess], Any]:
    """Return a function from a normalization to which images (N,) are right under it."""

    @torch.no_grad()
    def right(preprocess: Preprocess) -> Any:
        own_preprocess = model.preprocess
        model.preprocess = preprocess
        try:
            predicted = [predicted_classes(model(batch)) for batch in torch.split(images, 25)]
        finally:
            model.preprocess = own_preprocess
        return (torch.cat(predicted) == labels).cpu().numpy()

    return right
