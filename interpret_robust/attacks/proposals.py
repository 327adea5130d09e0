"""Where random search looks next: the start and the proposals of the Square attack in the ball of each norm.

    proposals = make_proposals("l2", make_ball("l2", 0.5))
    start = proposals.start(images, uniform)
    changed = proposals.propose(start, images, draws, side=7)

In l-infinity a proposal sets one square to a corner of the ball. In L2 and L1 a window can only gain what another
loses, so a proposal moves the change of one window into another (Andriushchenko et al. 2020,
https://arxiv.org/abs/1912.00049, Algorithm 3; for L1 Croce & Hein 2021, https://arxiv.org/abs/2103.01208, and their
code). Everything follows from numbers in [0, 1) that the caller draws for each image, and no sum is over more than one
image.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret_robust.attacks.norms import Ball
from interpret_robust.attacks.settings import Norm

TILES = 5
"""Tiles along the shorter side of the image that the start in L2 and L1 is made of."""
SMALLEST = 3
"""Side of the smallest window, in pixels: a window has a positive and a negative half."""
FALLOFF = {2: 2, 1: 4}
"""By the order of the norm, the power by which a change falls from the middle of its window: steeper in L1."""
_TINY = 1e-12


class Proposals(Protocol):
    """The start and the proposals in one ball, for images (N, C, H, W)."""

    def start_shape(self, channels: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the numbers that the start of an image takes."""

    def draw_count(self, channels: int) -> int:
        """Return how many numbers a proposal for an image takes."""

    def start(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return the first images, in the ball and the box, from numbers (N, *start_shape) in [0, 1)."""

    def propose(self, best: Tensor, images: Tensor, draws: Tensor, side: int) -> Tensor:
        """Return `best`, which lies in the ball around `images`, changed where `draws` (N, draw_count) say."""


@dataclass(frozen=True)
class Squares:
    """The l-infinity ball: vertical stripes of +-eps, then squares of +-eps in each color."""

    ball: Ball

    def start_shape(self, channels: int, height: int, width: int) -> tuple[int, ...]:  # noqa: ARG002
        """Return that of a sign for each column and color."""
        return channels, 1, width

    def draw_count(self, channels: int) -> int:
        """Return the count of a row, a column, and a sign for each color."""
        return 2 + channels

    def start(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return stripes."""
        return self._corner(images, _signs(uniform))

    def propose(self, best: Tensor, images: Tensor, draws: Tensor, side: int) -> Tensor:
        """Return `best` with one square of each image set anew."""
        rows, columns = (_offsets(draws[:, axis], side, images.shape[2 + axis]) for axis in (0, 1))
        square = _window(rows, columns, side)
        return torch.where(square, self._corner(images, _signs(draws[:, 2:, None, None])), best)

    def _corner(self, images: Tensor, signs: Tensor) -> Tensor:
        """Return the images changed by eps with these signs, kept in [0, 1]."""
        return self.ball.project(images + self.ball.eps * signs, *self.ball.bounds(images))


@dataclass(frozen=True)
class Windows:
    """The L2 ball (order 2) or the L1 ball (order 1): the change of one window moves into another.

    The window that gains keeps its own change, to which a new one is added, positive in one half and negative in the
    other. In each color it gets the power (the sum of absolute changes to the power of the order) of both windows,
    times the number of colors, and what is left of that of eps; the projection takes the surplus from the whole image.
    The paper has no such surplus. AutoAttack's code has it in L1, and nearly so in L2, where it breaks more images with
    few queries. Unlike in that code, each image has windows of its own, and they reach the last row and column.
    """

    ball: Ball
    order: int

    def start_shape(self, channels: int, height: int, width: int) -> tuple[int, ...]:
        """Return that of a direction, and a sign for each color, of each tile."""
        side = _tile_side(height, width)
        return 1 + channels, height // side, width // side

    def draw_count(self, channels: int) -> int:
        """Return the count of two rows and columns, a direction, and a sign for each color."""
        return 5 + channels

    def start(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Return tiles of equal length, which have eps in each color, projected."""
        height, width = images.shape[2:]
        side = _tile_side(height, width)
        pattern = _pattern(side, self.order).to(images)
        is_turned, signs = uniform[:, :1, :, :, None, None] < 0.5, _signs(uniform[:, 1:, :, :, None, None])
        tiles = signs * torch.where(is_turned, pattern.T, pattern)  # (N, C, rows, columns, side, side)
        grid = tiles.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        top, left = (height - grid.shape[2]) // 2, (width - grid.shape[3]) // 2
        change = F.pad(grid, (left, width - grid.shape[3] - left, top, height - grid.shape[2] - top))
        count = tiles.shape[2] * tiles.shape[3]  # each of length one in each color; of eps, that is times the colors
        return self._project(images, change * (self.ball.eps / count ** (1 / self.order)))

    def propose(self, best: Tensor, images: Tensor, draws: Tensor, side: int) -> Tensor:
        """Return `best` with the change of one window of each image moved into another."""
        channels, height, width = images.shape[1:]
        side = min(max(side, SMALLEST) | 1, height, width)  # odd, as in the authors' code
        rows, columns, source_rows, source_columns = (
            _offsets(draws[:, place], side, length) for place, length in enumerate((height, width, height, width))
        )
        target, source = _window(rows, columns, side), _window(source_rows, source_columns, side)
        change = best - images
        old_change = torch.where(target, change, 0)
        pattern = _signs(draws[:, 5:, None, None]) * self._place_pattern(rows, columns, draws[:, 4] < 0.5, side)
        content = pattern + old_change / self._length(old_change)
        rest = (self.ball.eps**self.order - self._power(change).sum(1, keepdim=True)).clamp_min(0)
        power = self._power(torch.where(target | source, change, 0)) * channels + rest
        content = content / self._length(content) * power ** (1 / self.order)
        return self._project(images, torch.where(target, content, torch.where(source, 0, change)))

    def _place_pattern(self, rows: Tensor, columns: Tensor, is_turned: Tensor, side: int) -> Tensor:
        """Return the pattern of a window (N, 1, H, W) at places in its rows (N, H) and columns (N, W), else zero."""
        pattern = _pattern(side, self.order).to(rows.device)
        places = rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None, :]
        values = torch.where(is_turned[:, None, None], pattern.T[places], pattern[places])
        return torch.where(_window(rows, columns, side), values[:, None], 0)

    def _power(self, change: Tensor) -> Tensor:
        """Return, of each color (N, C, 1, 1), the sum of absolute changes to the power of the order."""
        return change.abs().pow(self.order).sum((2, 3), keepdim=True)

    def _length(self, change: Tensor) -> Tensor:
        """Return the norm of each color (N, C, 1, 1), a tiny number for none."""
        return self._power(change).pow(1 / self.order).clamp_min(_TINY)

    def _project(self, images: Tensor, change: Tensor) -> Tensor:
        return self.ball.project(images + change, *self.ball.bounds(images))


def make_proposals(norm: Norm, ball: Ball) -> Proposals:
    """Return the proposals in a ball of this norm."""
    return Squares(ball) if norm == "linf" else Windows(ball, {"l2": 2, "l1": 1}[norm])


@cache
def _pattern(side: int, order: int) -> Tensor:
    """Return the change of a window (side, side), of length one: its upper half positive, its lower half negative.

    The halves are as long as each other (Eq. 2 of the paper).
    """
    halves = [sign * _bump(rows, side, order) for sign, rows in ((1, side // 2), (-1, side - side // 2))]
    pattern = torch.cat(halves)
    length: Tensor = torch.linalg.vector_norm(pattern, order)
    return pattern / length


def _bump(rows: int, columns: int, order: int) -> Tensor:
    """Return a bump of length one: in each rectangular ring around its middle, the sum of those farther out."""
    middle_row, middle_column = rows // 2, columns // 2
    terms = torch.arange(1, max(middle_row, middle_column) + 2).double() ** -FALLOFF[order]
    sums = terms.flip(0).cumsum(0).flip(0)
    ring = torch.maximum(
        (torch.arange(rows) - middle_row).abs()[:, None], (torch.arange(columns) - middle_column).abs()[None]
    )
    bump = sums[ring]
    length: Tensor = torch.linalg.vector_norm(bump, order)
    return (bump / length).float()


def _tile_side(height: int, width: int) -> int:
    """Return the side of a tile of the start, in pixels."""
    return max(min(height, width) // TILES, 1)


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0)


def _offsets(uniform: Tensor, side: int, length: int) -> Tensor:
    """Return how far each of `length` places (N, length) lies behind the first of a stretch of `side`.

    Numbers (N,) in [0, 1) say where the stretch begins.
    """
    first = (uniform * (length - side + 1)).long().clamp_max(length - side)
    return torch.arange(length, device=uniform.device) - first[:, None]


def _window(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Return which pixels (N, 1, H, W) lie in a window, by the offsets of rows (N, H) and columns (N, W)."""
    in_rows, in_columns = ((offsets >= 0) & (offsets < side) for offsets in (rows, columns))
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]
