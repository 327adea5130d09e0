"""The paper's loss, Eq. 7: cross-entropy on the adversarial image plus a weighted feature distance."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret_robust.models import Classifier


class Objective(NamedTuple):
    """`total` is what is minimised; the parts are detached means over the batch; logits (N, classes)."""

    total: Tensor
    cross_entropy: Tensor
    distance: Tensor
    logits: Tensor


def objective(model: Classifier, images: Tensor, adversarial: Tensor, labels: Tensor, weight: float) -> Objective:
    """mean(CE(x', y)) + weight * mean(||G(x) - G(x')||_2), G the pooled features (Eqs. 6 and 7).

    The norm is not squared and gradients flow through both images. Without weight the clean image is not
    seen. Clean and adversarial images go through in two passes, so that batch norm never mixes them.
    """
    pooled = model.features(adversarial).pooled
    logits = model.classifier(pooled).float()
    cross_entropy = F.cross_entropy(logits, labels)
    if weight == 0:
        return Objective(cross_entropy, cross_entropy.detach(), torch.zeros_like(cross_entropy), logits.detach())
    clean = model.features(images).pooled
    distance = feature_distance(clean.float(), pooled.float()).mean()
    total = cross_entropy + weight * distance
    return Objective(total, cross_entropy.detach(), distance.detach(), logits.detach())


def feature_distance(clean: Tensor, adversarial: Tensor) -> Tensor:
    """L2 distance of each pair of rows, (N,). Its gradient at distance zero is zero, not NaN."""
    distance: Tensor = torch.linalg.vector_norm(clean - adversarial, dim=1)
    return distance
