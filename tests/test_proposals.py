"""Proposals of random search in L2 and L1: by loops over each color and pixel, and what they keep of the length."""

import numpy as np
import pytest
import torch
from networks import pixels
from torch import Tensor

from interpret_robust.attacks.norms import make_ball
from interpret_robust.attacks.proposals import Windows, make_proposals
from interpret_robust.attacks.settings import Norm
from interpret_robust.core.arrays import AnyArray

N, SHAPE = 8, (3, 9, 11)
ORDERS: dict[Norm, int] = {"l2": 2, "l1": 1}


def length(values: AnyArray, order: int) -> float:
    return float((np.abs(values) ** order).sum() ** (1 / order))


def bump(rows: int, columns: int, order: int) -> AnyArray:
    """Rectangles that grow around the middle, each of a smaller height, one upon the other."""
    total = np.zeros((rows, columns))
    for ring in range(max(rows // 2, columns // 2) + 1):
        top, left = max(rows // 2 - ring, 0), max(columns // 2 - ring, 0)
        total[top : rows // 2 + ring + 1, left : columns // 2 + ring + 1] += 1 / (ring + 1) ** (2 if order == 2 else 4)
    return total / length(total, order)


def window(side: int, order: int) -> AnyArray:
    halves = np.concatenate([bump(side // 2, side, order), -bump(side - side // 2, side, order)])
    return np.asarray(halves / length(halves, order))


def place(number: float, side: int, size: int) -> int:
    return int(number * (size - side + 1))


def move(change: AnyArray, draws: AnyArray, side: int, eps: float, order: int) -> AnyArray:
    """Algorithm 3 of Andriushchenko et al. 2020 on the change (C, H, W) of one image, with AutoAttack's surplus."""
    channels, height, width = change.shape
    row, column, other_row, other_column = (
        place(number, side, size) for number, size in zip(draws[:4], (height, width, height, width), strict=True)
    )
    target = (slice(row, row + side), slice(column, column + side))
    source = (slice(other_row, other_row + side), slice(other_column, other_column + side))
    union = np.zeros((height, width), bool)
    union[target] = union[source] = True
    rest = max(eps**order - length(change, order) ** order, 0)
    new = window(side, order)
    new = new.T if draws[4] < 0.5 else new
    result = change.copy()
    for color in range(channels):
        sign = -1 if draws[5 + color] < 0.5 else 1
        block = change[color][target]
        together = sign * new + (block / length(block, order) if block.any() else 0)
        available = channels * (length(change[color][union], order) ** order + rest / channels)
        result[color][source] = 0
        result[color][target] = together / length(together, order) * available ** (1 / order)
    return result


def draw(count: int, numbers: int, seed: int = 0) -> Tensor:
    return torch.rand(count, numbers, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize(("query", "side"), [(1, 3), (4, 5), (9, 9)])
def test_a_proposal_is_that_of_the_algorithm(norm: Norm, query: int, side: int) -> None:
    """Windows overlap in some images, and lie apart in others; an image may be as it was."""
    order, images, eps = ORDERS[norm], pixels(N, *SHAPE, low=0.2, high=0.8), {"l2": 0.9, "l1": 6.0}[norm]
    ball = make_ball(norm, eps)
    best = ball.project(images + 0.1 * (pixels(N, *SHAPE, seed=5) - 0.5), images)
    best[3] = images[3]
    draws = draw(N, 5 + SHAPE[0])
    proposal = make_proposals(norm, ball).propose(best, images, draws, query)
    changes = (best - images).double().numpy()
    expected = [
        move(change, row, side, eps, order) for change, row in zip(changes, draws.double().numpy(), strict=True)
    ]
    points = ball.project(images + torch.from_numpy(np.stack(expected)).float(), images)
    torch.testing.assert_close(proposal, points, rtol=0, atol=2e-6)


@pytest.mark.parametrize("norm", ORDERS)
def test_a_proposal_has_all_of_eps_where_no_pixel_meets_the_box(norm: Norm) -> None:
    images, ball = torch.full((N, *SHAPE), 0.5), make_ball(norm, 0.3)
    proposals = make_proposals(norm, ball)
    tolerance, eps = ball.tolerance(images[0].numel()), torch.full((N,), 0.3).double()
    best = proposals.start(images, torch.full((N, *proposals.start_shape(*SHAPE)), 0.7))
    torch.testing.assert_close(ball.length(best - images), eps, rtol=0, atol=tolerance)
    for query in range(30):
        best = proposals.propose(best, images, draw(N, 8, query), 5)
        torch.testing.assert_close(ball.length(best - images), eps, rtol=0, atol=tolerance)


@pytest.mark.parametrize("norm", ORDERS)
def test_the_start_is_a_grid_of_windows(norm: Norm) -> None:
    order, shape = ORDERS[norm], (2, 16, 21)  # tiles of 3: five rows and seven columns, and one row left over
    ball, images = make_ball(norm, 0.1), torch.full((4, *shape), 0.5)
    proposals = make_proposals(norm, ball)
    assert proposals.start_shape(*shape) == (3, 5, 7)
    uniform = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    tile, grid = window(3, order), np.zeros((4, *shape))
    for image, color, row, column in np.ndindex(4, 2, 5, 7):
        stripes = tile.T if uniform[image, 0, row, column] < 0.5 else tile
        sign = -1 if uniform[image, 1 + color, row, column] < 0.5 else 1
        grid[image, color, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = sign * stripes
    grid *= 0.1 / length(grid[0, 0], order)
    start = proposals.start(images, uniform)
    torch.testing.assert_close(start, ball.project(images + torch.from_numpy(grid).float(), images), rtol=0, atol=1e-6)


def test_windows_reach_every_pixel_and_both_directions() -> None:
    images = torch.full((600, *SHAPE), 0.5)
    change = Windows(make_ball("l2", 0.2), 2).propose(images, images, draw(600, 8), 3) - images
    assert ((change != 0).flatten(2).sum(2) == 9).all()
    often = (change != 0)[:, 0].double().mean(0)
    assert often.min() > 0 and often[0, 0] < often[0, 5] < often[4, 5]
    same_sign = [
        (change[:, 0].sum(axis).abs() - change[:, 0].abs().sum(axis)).abs().amax(1) < 1e-5 for axis in (2, 1)
    ]  # all pixels of each row, or of each column: the halves lie above or beside each other
    assert (same_sign[0] ^ same_sign[1]).all()
    assert 250 < same_sign[0].sum() < 350
