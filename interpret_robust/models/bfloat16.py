"""A copy of a network that computes in bfloat16, for gradients of images that need few digits: those of an attack.

A processor that multiplies bfloat16 reads half the bytes and does twice the sums. Eight bits of a pixel are too few for
a step of an attack, so that images come in float32 and are standardized in it; logits are to be made float32 again.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interpret_robust.models.classifier import Classifier
from interpret_robust.models.folding import freeze


class Rounding(nn.Module):
    """Numbers of any type to bfloat16, and their gradients back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16()


@torch.no_grad()
def copy_in_bfloat16(model: Classifier) -> Classifier:
    """Return a copy of `model`, folded or not, in bfloat16 with its numbers of this moment, for gradients of images.

    Batch norm that is not folded stays in float32: in train mode the copy updates the running statistics of `model`.
    Images of a network that standardizes them are rounded after that, those of another network before its first layer.
    """
    network = freeze(model)
    for module in network.modules():
        if not isinstance(module, _BatchNorm):
            _round(module)
    standardize = getattr(network.backbone, "standardize", None)
    if isinstance(standardize, nn.Module):
        network.backbone.standardize = nn.Sequential(standardize, Rounding())
    else:
        network.backbone = nn.Sequential(Rounding(), network.backbone)
    network.is_folded = True  # there is nothing to fold any more
    network.answers_alone = False  # how sums of bfloat16 are rounded may depend on the batch
    return network


def _round(module: nn.Module) -> None:
    """Put bfloat16 in the place of a module's own weights and buffers, without those of modules below it."""
    for name, weights in module._parameters.items():
        if weights is not None:
            module._parameters[name] = nn.Parameter(weights.bfloat16(), requires_grad=False)
    for name, values in module._buffers.items():
        if values is not None and values.is_floating_point():
            module._buffers[name] = values.bfloat16()
