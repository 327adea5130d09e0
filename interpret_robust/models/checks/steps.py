"""Whether a short step along a gradient changes a model's answer by as much as the gradient says."""

import torch
from torch import Tensor

from interpret_robust.models.checks.answers import is_coarse, is_same
from interpret_robust.models.classifier import Classifier
from interpret_robust.models.losses import loss_gradient, margin_loss

STEP = 0.25 / 255
"""How far a step moves each pixel in [0, 1]: an eighth of a usual step of an attack."""

LARGEST_ERROR = 0.4
"""Share of the change that is said by which the median image's change may differ from it.

It is at most 0.1 for 25 networks trained here (benchmarks/step_check.py).
"""

LEAST_CHANGE = 1e-4
"""The least change that is said, in shares of the largest logit: a smaller one is lost in rounding."""


@torch.no_grad()
def measure_gains(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Return how far the margin of each image moves in a step, in shares of what its gradient says, (M,) in float64.

    Images (N, C, H, W) whose gradient promises next to nothing are left out.

    Example:
        >>> measure_gains(model, images, labels).median()
        tensor(0.9820, dtype=torch.float64)
    """
    gradient = loss_gradient(model, images, labels, margin_loss)
    moved_images = (images + STEP * gradient.sign()).clamp(0, 1)
    promise = (gradient.double() * (moved_images - images)).flatten(1).sum(1)
    logits = model(images)
    gain = margin_loss(model(moved_images), labels).double() - margin_loss(logits, labels)
    is_clear = promise.abs() > LEAST_CHANGE * logits.abs().amax(1)
    return (gain / promise)[is_clear & gain.isfinite()]


def doubt_about_steps(model: Classifier, images: Tensor, labels: Tensor, first: int) -> str | None:
    """Return a doubt where steps along gradients do not do what these say on images (N, C, H, W), or None.

    As where a forward pass adds fast waves to its input or its answer, or moves its input by an optimization of its
    own. A model that answers differently each time, or in half precision, is not judged. All images are asked only
    where the `first` of them are in doubt.

    Example:
        >>> doubt_about_steps(model, images, labels, 16)
    """
    with torch.no_grad():
        logits, repeated_logits = (model(images[:first]) for _ in range(2))
    if not is_same(logits, repeated_logits) or is_coarse(model, logits):
        return None
    doubt = _judge(measure_gains(model, images[:first], labels[:first]))
    return doubt if len(images) <= first else doubt and _judge(measure_gains(model, images, labels))


def _judge(gains: Tensor) -> str | None:
    """Return a doubt about gains in shares of what was said (N,), or None."""
    if len(gains) == 0 or float((gains - 1).abs().median()) < LARGEST_ERROR:
        return None
    lower, upper = (float(gains.quantile(share)) for share in (0.25, 0.75))
    return (
        f"does not follow its gradients: a step of {255 * STEP:g}/255 along them moves the margin of the middle half "
        f"of {len(gains)} images by {lower:.0%} to {upper:.0%} of what they say. Attacks by gradients, CW and APGD "
        "too, may be far too weak: does its forward add waves, count units by their rank, or optimize its input (a "
        "defense at test time)? Attack the network behind that, and see `irt analyze masking`."
    )
