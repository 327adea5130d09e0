"""The architectures by name, ours and those of installed packages, and a fresh model of each.

An installed package adds one by an entry point of `interpret_robust.architectures`: a function of the number of image
channels that gives a backbone, a module from images (N, C, H, W) in [0, 1] to local features (N, C', H', W') with C' in
its attribute `local_channels`. The head of the variant and a linear classifier come after it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.plugins import list_entry_points, load_entry_point
from interpret_robust.models import cnn, resnet
from interpret_robust.models.attention import AveragePool, DenseHead, LinearAttention, NonlinearAttention
from interpret_robust.models.classifier import Classifier
from interpret_robust.models.variants import Head

ImageShape = tuple[int, int, int]
Builder = Callable[[Head, ImageShape, int], Classifier]
"""A function of the head, the image shape (channels, height, width) and the number of classes."""


def list_names() -> tuple[str, ...]:
    """Return the names of all architectures, without importing those of installed packages.

    Example:
        >>> list_names()[:2]
        ('small', 'small-wide3')
    """
    return (*ARCHITECTURES, *(name for name in list_entry_points("architectures") if name not in ARCHITECTURES))


def build(architecture: str, head: Head, image_shape: ImageShape, classes: int, *, seed: int) -> Classifier:
    """Return a fresh model whose weights depend on `seed` alone; the global random state is left as it was.

    Args:
        architecture: one of `names()`.
        head: how local features are pooled, see `models.variants`.
        image_shape: channels, height and width.
        classes: number of logits.
        seed: of the weights.

    Raises UserError for an unknown or broken architecture, or for images that are too small for it.

    Example:
        >>> build("small", "average", (3, 32, 32), 10, seed=0)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    builder = _builder(architecture)
    _, height, width = image_shape
    if min(height, width) < 16 or height % 4 or width % 4:
        raise UserError(f"images are {height}x{width}: sides must be multiples of 4 and at least 16.")
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed every CUDA device too.
        torch.default_generator.manual_seed(seed)
        return builder(head, image_shape, classes)


def _builder(architecture: str) -> Builder:
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    if architecture not in list_entry_points("architectures"):
        raise unknown("architecture", architecture, list_names())
    return partial(_build_own, architecture, load_entry_point("architectures", architecture))


def _build_own(name: str, backbone_of: Any, head: Head, image_shape: ImageShape, classes: int) -> Classifier:
    """Return a model of an installed package's backbone. Raises UserError for one that is not as the module says."""
    backbone = backbone_of(image_shape[0]) if callable(backbone_of) else None
    if not (isinstance(backbone, nn.Module) and isinstance(getattr(backbone, "local_channels", None), int)):
        raise UserError(
            f"the entry point '{name}' of interpret_robust.architectures gives no backbone: it must be a function of "
            "the number of image channels that gives a module with local_channels."
        )
    return _with_head(backbone, head, classes)


def _resnet(widths: tuple[int, int, int, int], units: int, stem_stride: int) -> Builder:
    def builder(head: Head, image_shape: ImageShape, classes: int) -> Classifier:
        return _with_head(resnet.ResNet(image_shape[0], widths, units=units, stem_stride=stem_stride), head, classes)

    return builder


def _with_head(backbone: Any, head: Head, classes: int) -> Classifier:
    pool = _attention_head(head, backbone.local_channels) or AveragePool()
    classifier = nn.Linear(backbone.local_channels, classes)
    resnet.initialize_classifier(classifier)
    return Classifier(backbone, pool, classifier)


def _cnn(head: Head, image_shape: ImageShape, classes: int) -> Classifier:
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
        own_head: nn.Module = head(channels)
        return own_head
    match head:
        case "nonlinear":
            return NonlinearAttention(channels)
        case "linear":
            return LinearAttention(channels)
        case "average":
            return None


NARROW, WIDE = (16, 16, 32, 64), (16, 48, 96, 192)
"""Channels of the stem and of the three stages, of the paper's networks."""

ARCHITECTURES: Mapping[str, Builder] = {
    "small": _resnet(NARROW, units=1, stem_stride=2),
    "small-wide3": _resnet(WIDE, units=1, stem_stride=2),
    "cnn": _cnn,
    "narrow": _resnet(NARROW, units=5, stem_stride=1),
    "wide3": _resnet(WIDE, units=5, stem_stride=1),
}
"""Those of this package: `narrow` and `wide3` are the paper's, `cnn` is that of the MNIST challenge."""
