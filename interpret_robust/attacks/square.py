"""Random search in the ball of a norm: an attack that reads logits and takes no gradient.

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

from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.network import switch_batch_norm
from interpret_robust.attacks.norms import check_reach, make_ball
from interpret_robust.attacks.proposals import Proposals, make_proposals
from interpret_robust.attacks.settings import Norm, check_numbers
from interpret_robust.core.errors import UserError
from interpret_robust.models.losses import margin_loss

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries of ten thousand after which the squares' share of the image is halved."""


@dataclass(frozen=True)
class RandomSearch:
    """The Square attack (Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049), on the margin.

    It starts from vertical stripes of +-eps. A proposal sets one square, at a random place, to +-eps in each color,
    and is kept where it lowers the margin. In L2 and L1 it starts from tiles, and a proposal moves the change of one
    window into another (see `attacks.proposals`). An image whose start or proposal is misclassified is
    searched no further; the natural image is not asked. Unlike in the
    authors' code, the squares of images in one batch lie apart, and they reach the last row and column.

    Attributes:
        eps: radius in pixel units; within [0, 1] in l-infinity.
        queries: forward passes an image, the start's included.
        p_init: share of the image that the first squares cover.
        norm: `linf`, `l2` or `l1`.

    Raises UserError for values outside these ranges.
    """

    eps: float
    queries: int
    p_init: float = 0.8
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_numbers(self.eps, 0, 0, norm=self.norm)
        if not (self.queries >= 1 and 0 < self.p_init <= 1):
            raise UserError(
                f"random search with {self.queries} queries and p_init {self.p_init:g}: p_init must lie above 0 and up "
                "to 1, and there must be a query."
            )

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, of_image: Sequence[np.random.Generator]
    ) -> Tensor:
        """Return adversarial images, float32, inside the ball around `images` (N, C, H, W) and inside [0, 1].

        Each is a function of the model, the image and its own generator, of `of_image` (N,), alone.
        """
        images = images.float()
        check_reach(self.norm, self.eps, math.prod(images.shape[1:]))
        proposals = make_proposals(self.norm, make_ball(self.norm, self.eps))
        start, draws = self._draw(proposals, images, of_image)
        with switch_batch_norm(model, "eval"):
            best = proposals.start(images, start)
            losses = margin_loss(model(best).float(), labels)
            for query in range(1, self.queries):
                (left,) = torch.where(losses <= 0)
                if len(left) == 0:
                    break
                side = self.side(query, images)
                proposal = proposals.propose(best[left], images[left], draws[left, query], side)
                margins = margin_loss(model(proposal).float(), labels[left])
                better = ~(margins <= losses[left])  # an answer that is no number is never right
                best[left[better]], losses[left[better]] = proposal[better], margins[better]
        return check_adversarial(model, best, images, self.eps, self.norm)

    def side(self, query: int, images: Tensor) -> int:
        """Return the side of the square of a query, in pixels.

        The paper's schedule for 10,000 queries, stretched to these.
        """
        height, width = images.shape[2:]
        share = self.p_init / 2 ** bisect_left(HALVINGS, query * 10_000 // self.queries)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def _draw(
        self, proposals: Proposals, images: Tensor, of_image: Sequence[np.random.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Return the numbers of the start (N, *start_shape) and of each query (N, Q, draw_count), in [0, 1)."""
        channels, height, width = images.shape[1:]
        shapes = (
            proposals.start_shape(channels, height, width),
            (self.queries, proposals.draw_count(channels)),
        )
        starts, draws = (np.stack([stream.random(shape, dtype=np.float32) for stream in of_image]) for shape in shapes)
        return torch.from_numpy(starts).to(images.device), torch.from_numpy(draws).to(images.device)
