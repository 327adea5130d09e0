"""What an attack is given by a caller: images, labels, and whether they fit the model."""

import torch
from torch import Tensor, nn

from interpret_robust.attacks.network import switch_batch_norm
from interpret_robust.attacks.norms import TOLERANCE
from interpret_robust.core.errors import UserError


def check_tensors(images: Tensor, labels: Tensor) -> None:
    """Raise UserError unless images are a tensor (N, C, H, W) and labels one of a class from 0 on for each."""
    for name, values in (("images", images), ("labels", labels)):
        if not isinstance(values, Tensor):
            raise UserError(f"{name} are of type {type(values).__name__}: give a tensor, as torch.as_tensor makes it.")
    if images.ndim != 4:
        raise UserError(f"images have shape {tuple(images.shape)}: give (N, C, H, W), gray ones with C 1.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels are of type {labels.dtype}: give integers.")
    if labels.numel() != len(images):
        raise UserError(f"there are {labels.numel()} labels for {len(images)} images: give one for each.")
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"a label is {int(labels.min())}: classes count from 0.")


def check_pixels(images: Tensor) -> None:
    """Raise UserError unless all pixels lie in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise UserError(f"pixels lie in {low:g} to {high:g}: they must lie in 0 to 1 (divide 0 to 255 by 255).")


def check_fit(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Raise UserError where a model failed on images (N, C, H, W) because their channels come last, or on labels that
    it has no class for.
    """
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise UserError(f"images have shape {tuple(images.shape)}, channels last: give (N, C, H, W).")
    with switch_batch_norm(model, "eval"), torch.no_grad():
        classes = model(images[:1].float()).shape[-1]
    if (highest := int(labels.max())) >= classes:
        raise UserError(f"a label is {highest}, and the model has {classes} classes, which count from 0.")
