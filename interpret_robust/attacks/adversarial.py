"""Adversarial images: whether they are in their ball, and which of them the model still takes for what they are."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from interpret_robust.attacks.network import switch_batch_norm
from interpret_robust.attacks.norms import make_ball
from interpret_robust.attacks.settings import Norm
from interpret_robust.core.errors import NotFiniteError

Classes = npt.NDArray[np.integer]


def check_adversarial(model: nn.Module, adversarial: Tensor, images: Tensor, eps: float, norm: Norm = "linf") -> Tensor:
    """Return adversarial images (N, C, H, W), all in [0, 1] and within `eps` of their images in a norm.

    An image that the model answers with NaN, attacked or not, is never right: no attack is needed, and the image itself
    stands for what an attack made NaN. Raises NotFiniteError where an attack failed on an image that is answered with
    numbers, and ValueError where a pixel is out of its range.
    """
    if bool(adversarial.isnan().any()):
        (places,) = adversarial.isnan().flatten(1).any(1).nonzero(as_tuple=True)
        with switch_batch_norm(model, "eval"), torch.no_grad():
            is_answered = ~model(images[places]).isnan().any(1)
        if bool(is_answered.any()):
            raise NotFiniteError("gradients of the loss", places[is_answered].tolist())
        adversarial = adversarial.index_copy(0, places, images[places])
    ball = make_ball(norm, eps)
    in_range = ((adversarial >= 0) & (adversarial <= 1)).all()
    in_ball = (ball.length(adversarial - images) <= eps + ball.tolerance(images[0].numel())).all()
    if not bool(in_range & in_ball):
        raise ValueError(f"an adversarial image left its ball of {eps:g} or [0, 1]")
    return adversarial


def split_outcomes(label: Classes, clean: Classes, adversarial: Classes) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which images (N,) that are right without the attack are right under it, and which are not, from
    predictions.
    """
    right = clean == label
    return {"attack_failed": right & (adversarial == label), "attack_succeeded": right & (adversarial != label)}
