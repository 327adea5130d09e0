"""A model: a backbone that gives local features, a head that pools them, a linear classifier."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """What a model sees before it decides.

    local (N, C, H, W); attention (N, H*W), summing to one, or None; pooled (N, C'), the classifier's input.
    """

    local: Tensor
    attention: Tensor | None
    pooled: Tensor


class Classifier(nn.Module):
    """`model(images)` gives logits (N, classes); images are pixels in [0, 1], NCHW, any normalization is inside."""

    classifier: Any
    """From pooled features to logits: linear, of a network of ours."""

    is_folded = False
    """Whether it is what `models.folding.fold` gives, for evaluation only."""

    answers_alone = True
    """Whether an image's logits depend on that image alone, not on its batch: false where that is not known."""

    draws: int | None = None
    """How many passes stand for the expectation of a network that draws random numbers; None for one pass."""

    def __init__(self, backbone: nn.Module, head: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head, self.classifier = backbone, head, classifier

    def features(self, images: Tensor) -> Features:
        """Return local features, attention and pooled features of images (N, C, H, W) in [0, 1]."""
        local = self.backbone(images)
        attention, pooled = self.head(local)
        return Features(local, attention, pooled)

    def rest(self, images: Tensor, local: Tensor) -> Tensor:  # noqa: ARG002
        """Return the logits of `images` (N, C, H, W) if their local features were `local` (N, C', H', W')."""
        _, pooled = self.head(local)
        logits: Tensor = self.classifier(pooled)
        return logits

    def local_module(self) -> nn.Module:
        """Return the layer whose output is the local features."""
        return self.backbone

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).pooled)
        return logits


def list_precisions(model: nn.Module) -> set[torch.dtype]:
    """Return in which precisions the weights of a model are, those of whole numbers left out.

    Example:
        >>> list_precisions(torch.nn.Linear(2, 3).double())
        {torch.float64}
    """
    return {weights.dtype for weights in model.parameters() if weights.is_floating_point()}


def answers_repeat(model: nn.Module, image: Tensor) -> bool:
    """Return whether a model answers an image the same each time and by itself, as far as one can tell cheaply.

    That is known of our own networks only; one that draws random numbers for `image` (1, C, H, W) is none of them.
    """
    if not (isinstance(model, Classifier) and model.answers_alone):
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        state = torch.get_rng_state()
        model(image)
        return torch.equal(state, torch.get_rng_state())


NO_CLASS = -1
"""The class of an image whose logits are not numbers: it is that of no label, so that it is never right."""


def predict_classes(logits: Tensor) -> Tensor:
    """Return the class of the largest logit (N,) of logits (N, classes), NO_CLASS where one of them is NaN.

    Of equal logits the first counts.

    Example:
        >>> predict_classes(torch.tensor([[0.0, 2.0], [torch.nan, 1.0]]))
        tensor([ 1, -1])
    """
    return torch.where(logits.isnan().any(1), NO_CLASS, logits.argmax(1))


def measure_positions(local: Tensor) -> Tensor:
    """Return the L2 norm over the channels of local features (N, C, H, W), positions row-major: (N, H*W)."""
    norm: Tensor = torch.linalg.vector_norm(local, dim=1)
    return norm.flatten(1)
