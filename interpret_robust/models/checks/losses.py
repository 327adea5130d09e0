"""Whether the cross-entropy of a model's answers leads an attack about as far as their margin does."""

import torch
from torch import Tensor

from interpret_robust.models.classifier import Classifier
from interpret_robust.models.losses import Loss, cross_entropy, loss_gradient, margin_loss

STEPS, STEP = 5, 2 / 255
"""Steps of an attack, and how far each moves a pixel in [0, 1]."""

LEAST_MEDIAN, LEAST_QUARTILE = 0.82, 0.6
"""Shares of the margin's way below which the cross-entropy is in doubt, of the median image and of the lower quartile.

None of 25 networks trained here is below either, and 20 are with tanh behind their logits (benchmarks/loss_check.py).
"""


def attack_briefly(model: Classifier, images: Tensor, labels: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] after STEPS steps of PGD from labels (N,), without a ball around them.

    Example:
        >>> (attack_briefly(model, images, labels) - images).abs().max() <= 10.01 / 255
        tensor(True)
    """
    adversarial = images
    for _ in range(STEPS):
        adversarial = (adversarial + STEP * loss_gradient(model, adversarial, labels, loss).sign()).clamp(0, 1)
    return adversarial


@torch.no_grad()
def measure_ways(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Return how far PGD by the cross-entropy moves the margin of each image, in shares of PGD by the margin, (M,).

    Images (N, C, H, W) whose margin the second does not move, or moves without end, are left out.

    Example:
        >>> measure_ways(model, images, labels).median()
        tensor(0.9650, dtype=torch.float64)
    """
    start = margin_loss(model(images), labels)
    by_loss, by_margin = (
        margin_loss(model(attack_briefly(model, images, labels, loss)), labels) - start
        for loss in (cross_entropy, margin_loss)
    )
    return (by_loss / by_margin)[(by_margin > 0) & by_loss.isfinite() & by_margin.isfinite()].double()


def doubt_about_loss(model: Classifier, images: Tensor, labels: Tensor, first: int) -> str | None:
    """Return a doubt where attacks by the cross-entropy are weak on images (N, C, H, W) that are right, or None.

    As where logits are bounded or small: the cross-entropy weighs all wrong classes nearly alike then, and it also
    climbs where it only lowers classes that are wrong and far. With two classes both losses lead the same way. All
    images are asked only where the `first` of them are in doubt.

    Example:
        >>> doubt_about_loss(model, images, labels, 16)
    """
    doubt = _compare_losses(model, images[:first], labels[:first])
    return doubt if len(images) <= first else doubt and _compare_losses(model, images, labels)


def _compare_losses(model: Classifier, images: Tensor, labels: Tensor) -> str | None:
    """Return a doubt where the cross-entropy leads less far than the margin, or None."""
    shares = measure_ways(model, images, labels)
    if len(shares) == 0:
        return None
    lower, median = (float(shares.quantile(share)) for share in (0.25, 0.5))
    if lower >= LEAST_QUARTILE and median >= LEAST_MEDIAN:
        return None
    return (
        f"is attacked less well by PGD on the cross-entropy than by PGD on the margin (CW): {STEPS} steps of the first "
        f"change the margin of {len(shares)} images by {median:.0%} of what the second does (the median image; "
        f"{lower:.0%} at the lower quartile). PGD alone may overstate robustness: trust CW and APGD-T. If a layer such "
        "as tanh, or a temperature, makes the logits small or bounded, return what goes into it."
    )
