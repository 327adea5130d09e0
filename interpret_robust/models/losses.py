"""What attacks climb: a loss of each image that grows as its label becomes less likely, and its gradient."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, classes) and labels (N,) to a number of each image (N,)."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each image, (N,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the best other logit minus the true one, (N,): positive where the image is misclassified."""
    true = logits.gather(1, labels[:, None])
    rival = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return rival - true[:, 0]


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin_loss}
"""By the names that people type."""


def loss_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the gradient (N, C, H, W) of each image's loss with respect to its pixels.

    Example:
        >>> loss_gradient(model, images, labels).shape == images.shape
        True
    """
    return input_gradient(lambda pixels: loss(model(pixels).float(), labels), images)


def input_gradient(scores: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the gradient (N, C, H, W) of a score (N,) of each image with respect to its pixels.

    Captum's Saliency finds the same, and takes a third longer: it differentiates each image's score apart.
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(scores(pixels).sum(), pixels)
    return gradient
