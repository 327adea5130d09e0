"""Random search in the l-infinity ball: an attack that reads logits and takes no gradient.

    attack = RandomSearch(eps=8 / 255, queries=300)
    adversarial = attack(model, images, labels, streams(seed=0, indices=range(len(images))))

What it breaks and gradients do not was never robust: the gradients were of no use.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.attacks.norms import Linf
from interpret_robust.attacks.pgd import batch_norm_mode, check_adversarial, margin_loss
from interpret_robust.core.errors import UserError

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of ten thousand after which the squares' share of the image is halved."""


@dataclass(frozen=True)
class RandomSearch:
    """The Square attack (Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049), on the margin.

    It starts from vertical stripes of +-eps. A proposal sets one square, at a random place, to +-eps in each color,
    and is kept where it lowers the margin. An image that is misclassified is left as it is. Unlike in the authors'
    code, the squares of images in one batch lie apart, and they reach the last row and column.

    Attributes:
        eps: radius in pixel units, within [0, 1].
        queries: forward passes an image, the start's included.
        p_init: share of the image that the first squares cover.

    Raises UserError for values outside these ranges.
    """

    eps: float
    queries: int
    p_init: float = 0.8

    def __post_init__(self) -> None:
        if not (0 <= self.eps <= 1 and self.queries >= 1 and 0 < self.p_init <= 1):
            raise UserError(
                f"random search with eps {self.eps:g}, {self.queries} queries and p_init {self.p_init:g}: eps must lie "
                "within 0 and 1, p_init above 0 and up to 1, and there must be a query."
            )

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]
    ) -> Tensor:
        """Return adversarial images, float32, inside the ball around `images` (N, C, H, W) and inside [0, 1].

        Each is a function of the model, the image and its own generator, of `of_image` (N,), alone.
        """
        images = images.float()
        stripes, squares = self._draw(images, of_image)
        with batch_norm_mode(model, "eval"):
            best = self._vertex(images, stripes)
            losses = margin_loss(model(best).float(), labels)
            for query in range(1, self.queries):
                (left,) = torch.where(losses <= 0)
                if len(left) == 0:
                    break
                proposal = self._propose(best[left], images[left], squares[left, query], self.side(query, images))
                margins = margin_loss(model(proposal).float(), labels[left])
                better = margins > losses[left]
                best[left[better]], losses[left[better]] = proposal[better], margins[better]
        return check_adversarial(model, best, images, self.eps)

    def side(self, query: int, images: Tensor) -> int:
        """Return the side of the square of a query, in pixels.

        The paper's schedule for 10,000 queries, stretched to these.
        """
        height, width = images.shape[2:]
        share = self.p_init / 2 ** bisect_left(HALVINGS, query * 10_000 // self.queries)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def _draw(self, images: Tensor, of_image: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
        """Return signs of the start (N, C, 1, W), and of each query place and signs (N, Q, 2 + C), in [0, 1)."""
        channels, _, width = images.shape[1:]
        stripes = np.stack([stream.random((channels, 1, width), dtype=np.float32) for stream in of_image])
        squares = np.stack([stream.random((self.queries, 2 + channels), dtype=np.float32) for stream in of_image])
        return _signs(torch.from_numpy(stripes)).to(images.device), torch.from_numpy(squares).to(images.device)

    def _propose(self, best: Tensor, images: Tensor, draws: Tensor, side: int) -> Tensor:
        """Return `best` with one square of each image (N, C, H, W) set anew, from what was drawn for it (N, 2 + C)."""
        height, width = images.shape[2:]
        rows, columns = _span(draws[:, 0], side, height), _span(draws[:, 1], side, width)
        square = rows[:, None, :, None] & columns[:, None, None, :]
        signs = _signs(draws[:, 2:, None, None])
        return torch.where(square, self._vertex(images, signs), best)

    def _vertex(self, images: Tensor, signs: Tensor) -> Tensor:
        """Return the images (N, C, H, W) changed by eps with these signs, kept in [0, 1]."""
        ball = Linf(self.eps)
        return ball.project(images + self.eps * signs, *ball.bounds(images))


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0)


def _span(uniform: Tensor, side: int, length: int) -> Tensor:
    """Return which of `length` places (N, length) lie in a stretch of `side`, put where numbers (N,) in [0, 1) say."""
    first = (uniform * (length - side + 1)).long().clamp_max(length - side)
    place = torch.arange(length, device=uniform.device) - first[:, None]
    return (place >= 0) & (place < side)
