"""The paper's loss, Eq. 7: cross-entropy on the adversarial image plus a weighted feature distance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret_robust.models import Classifier


class Objective(NamedTuple):
    """`total` is what is minimized; the parts are detached means over the batch; logits (N, classes)."""

    total: Tensor
    cross_entropy: Tensor
    distance: Tensor
    logits: Tensor


def measure_feature_distance(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Return the L2 distance of each pair of rows, (N,). Its gradient at distance zero is zero, not NaN."""
    distance: Tensor = torch.linalg.vector_norm(clean - adversarial, dim=1)
    return distance


@dataclass(frozen=True)
class FeatureRegularization:
    """The paper's regularizer, to be added to any loss: `weight * mean(||G(x) - G(x')||_2)`.

    It is Eq. 6 of Liu & JaJa 2018 (https://arxiv.org/abs/1810.02424).

        loss = cross_entropy(adversarial_logits, labels) + FeatureRegularization(0.1)(clean, adversarial)

    Attributes:
        weight: lambda of Eq. 7; 0.1 for `at-reg` in the paper, 0.01 for `at-att-reg`.
        distance: of each pair of features (N, C), (N,).

    Example:
        >>> ir.FeatureRegularization(0.1)(torch.zeros(5, 4), torch.full((5, 4), 3.0))
        tensor(0.6000)
    """

    weight: float
    distance: Callable[[Tensor, Tensor], Tensor] = measure_feature_distance

    def mean_distance(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return the mean over the batch of the distance between features (N, C), in float32, without the weight."""
        return self.distance(clean.float(), adversarial.float()).mean()

    def __call__(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return the term of the loss, a scalar, of features (N, C) each; gradients flow through both."""
        return self.weight * self.mean_distance(clean, adversarial)


def compute_objective(
    model: Classifier, images: Tensor, adversarial: Tensor, labels: Tensor, regularization: FeatureRegularization
) -> Objective:
    """Return mean(CE(x', y)) + weight * mean(||G(x) - G(x')||_2), G the pooled features (Eqs. 6 and 7).

    The norm is not squared and gradients flow through both images. Without weight the clean image is not
    seen. Clean and adversarial images go through in two passes, so that batch norm never mixes them.
    """
    pooled = model.features(adversarial).pooled
    logits = model.classifier(pooled).float()
    cross_entropy = F.cross_entropy(logits, labels)
    if regularization.weight == 0:
        return Objective(cross_entropy, cross_entropy.detach(), torch.zeros_like(cross_entropy), logits.detach())
    clean = model.features(images).pooled
    distance = regularization.mean_distance(clean, pooled)
    total = cross_entropy + regularization.weight * distance
    return Objective(total, cross_entropy.detach(), distance.detach(), logits.detach())
