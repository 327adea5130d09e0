"""A model: a backbone that gives local features, a head that pools them, a linear classifier."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.models import cnn, resnet
from interpret_robust.models.attention import AveragePool, DenseHead, LinearAttention, NonlinearAttention
from interpret_robust.models.variants import Head

ARCHITECTURES = ("small", "small-wide3", "cnn", "narrow", "wide3")


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
    """Whether it is what `models.folded.fold` gives, for evaluation only."""

    answers_alone = True
    """Whether an image's logits depend on that image alone, not on its batch: false where that is not known."""

    def __init__(self, backbone: nn.Module, head: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head, self.classifier = backbone, head, classifier

    def features(self, images: Tensor) -> Features:
        """Local features, attention and pooled features of images (N, C, H, W) in [0, 1]."""
        local = self.backbone(images)
        attention, pooled = self.head(local)
        return Features(local, attention, pooled)

    def rest(self, images: Tensor, local: Tensor) -> Tensor:  # noqa: ARG002
        """The logits of `images` (N, C, H, W) if their local features were `local` (N, C', H', W')."""
        _, pooled = self.head(local)
        logits: Tensor = self.classifier(pooled)
        return logits

    def local_module(self) -> nn.Module:
        """The layer whose output are the local features."""
        return self.backbone

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).pooled)
        return logits


def position_norm(local: Tensor) -> Tensor:
    """L2 norm over the channels of local features (N, C, H, W), positions row-major: (N, H*W)."""
    norm: Tensor = torch.linalg.vector_norm(local, dim=1)
    return norm.flatten(1)


def build(architecture: str, head: Head, image_shape: tuple[int, int, int], classes: int, *, seed: int) -> Classifier:
    """A fresh model whose weights depend on `seed` alone; the global random state is left as found.

    `image_shape` is (channels, height, width). Raises UserError for an unknown architecture or for images
    that are too small for it.
    """
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    channels, height, width = image_shape
    if min(height, width) < 16 or height % 4 or width % 4:
        raise UserError(f"images are {height}x{width}: sides must be multiples of 4 and at least 16.")
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed every CUDA device too.
        torch.default_generator.manual_seed(seed)
        if architecture == "cnn":
            return _build_cnn(head, image_shape, classes)
        return _build_resnet(architecture, head, channels, classes)


def _build_resnet(architecture: str, head: Head, channels: int, classes: int) -> Classifier:
    match architecture:
        case "small":
            backbone = resnet.ResNet(channels, (16, 16, 32, 64), units=1, stem_stride=2)
        case "small-wide3":
            backbone = resnet.ResNet(channels, (16, 48, 96, 192), units=1, stem_stride=2)
        case "narrow":
            backbone = resnet.ResNet(channels, (16, 16, 32, 64), units=5)
        case _:
            backbone = resnet.ResNet(channels, (16, 48, 96, 192), units=5)
    pool = _attention_head(head, backbone.local_channels) or AveragePool()
    classifier = nn.Linear(backbone.local_channels, classes)
    resnet.initialize_classifier(classifier)
    return Classifier(backbone, pool, classifier)


def _build_cnn(head: Head, image_shape: tuple[int, int, int], classes: int) -> Classifier:
    channels, height, width = image_shape
    backbone = cnn.CNN(channels)
    attention = _attention_head(head, backbone.local_channels)
    if attention is None:
        inputs = backbone.local_channels * (height // 4) * (width // 4)
        model = Classifier(backbone, DenseHead(inputs, cnn.DENSE_UNITS), nn.Linear(cnn.DENSE_UNITS, classes))
    else:
        model = Classifier(backbone, attention, nn.Linear(backbone.local_channels, classes))
    cnn.initialize(model)
    return model


def _attention_head(head: Head, channels: int) -> nn.Module | None:
    if callable(head):
        own: nn.Module = head(channels)
        return own
    match head:
        case "nonlinear":
            return NonlinearAttention(channels)
        case "linear":
            return LinearAttention(channels)
        case "average":
            return None
