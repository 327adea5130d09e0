"""Where the object is, the pointing game, and what maps that know nothing give: slow loops and known answers."""

from math import lcm

import numpy as np
import pytest

from interpret_robust.attribution.regions import (
    CENTER_WIDTH,
    average_other_maps,
    find_center,
    find_hits,
    find_object_positions,
    make_center_prior,
    measure_share_inside,
)
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.cells import average_cells

N = 6


def supersample(images: AnyArray, grid: tuple[int, int]) -> AnyArray:
    """Means over cells of images whose pixels are repeated until the grid divides them."""
    for axis, cells in enumerate(grid, 1):
        pixels = images.shape[axis]
        large = images.repeat(lcm(cells, pixels) // pixels, axis)
        images = np.stack([part.mean(axis) for part in np.split(large, cells, axis)], axis)
    return images


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (8, 9, (4, 3)),  # divides
        (8, 9, (3, 2)),  # does not
        (7, 12, (5, 8)),
        (4, 3, (6, 7)),  # the grid is finer than the image
        (32, 28, (5, 13)),
        (5, 1, (1, 3)),
    ],
)
def test_means_over_cells_are_those_of_supersampled_images(height: int, width: int, grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images, masks = rng.standard_normal((N, height, width)), rng.random((N, height, width)) < 0.4
    np.testing.assert_allclose(average_cells(images, grid), supersample(images, grid), rtol=0, atol=1e-13)
    slow = np.round(supersample(masks, grid) * height * width)
    np.testing.assert_array_equal(average_cells(masks, grid), slow / (height * width))


def test_where_the_grid_divides_a_mask_shares_are_means_of_whole_pixels_to_the_last_bit() -> None:
    masks = np.random.default_rng(1).random((N, 4 * 7, 3 * 5)) < 0.3
    np.testing.assert_array_equal(average_cells(masks, (4, 3)), masks.reshape(N, 4, 7, 3, 5).mean((2, 4)))


def test_a_pixel_that_two_cells_share_counts_in_both() -> None:
    masks = np.zeros((1, 5, 5), bool)
    masks[0, 2, 2] = True  # a quarter of it in each cell of 2.5 x 2.5 pixels: 0.25 / 6.25
    np.testing.assert_array_equal(average_cells(masks, (2, 2)), np.full((1, 2, 2), 0.04))
    masks[0, 3:, 1:3] = True  # the third cell: 2.25 of 6.25 pixels and a bit, the fourth 1.25 and a bit
    np.testing.assert_allclose(average_cells(masks, (2, 2)).ravel(), [0.04, 0.04, 3.25 / 6.25, 1.25 / 6.25], rtol=1e-15)
    np.testing.assert_array_equal(find_object_positions(masks, (2, 2)), [[False, False, True, False]])


def test_a_position_is_on_the_object_where_the_mask_covers_a_quarter_of_it() -> None:
    grid, cell = (2, 3), (4, 2)
    masks = np.random.default_rng(0).random((N, 2 * 4, 3 * 2)) < 0.25
    masks[0] = False
    masks[0, 4:6, 4:5] = True  # two of the eight pixels of the last position: a quarter
    masks[0, 0, 2] = True  # one of the eight
    slow = np.zeros((N, 6), bool)
    for n in range(N):
        for row in range(grid[0]):
            for column in range(grid[1]):
                pixels = [masks[n, row * 4 + i, column * 2 + j] for i in range(cell[0]) for j in range(cell[1])]
                slow[n, row * 3 + column] = sum(pixels) >= 2
    np.testing.assert_array_equal(find_object_positions(masks, grid), slow)
    np.testing.assert_array_equal(slow[0], [False, False, False, False, False, True])
    assert 0.2 < slow[1:].mean() < 0.8


def test_the_center_prior_is_a_gaussian_of_the_distance_from_the_center_in_sides() -> None:
    height, width = 4, 7
    slow = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            distance = ((row + 0.5) / height - 0.5) ** 2 + ((column + 0.5) / width - 0.5) ** 2
            slow[row, column] = np.exp(-distance / (2 * CENTER_WIDTH**2))
    np.testing.assert_allclose(make_center_prior(height, width), slow / slow.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "middle"),
    [(4, 5, [(1, 2), (2, 2)]), (3, 3, [(1, 1)]), (2, 4, [(0, 1), (0, 2), (1, 1), (1, 2)]), (1, 6, [(0, 2), (0, 3)])],
)
def test_central_places_are_those_where_the_center_prior_is_largest(
    height: int, width: int, middle: list[tuple[int, int]]
) -> None:
    assert list(map(tuple, np.argwhere(find_center(height, width)))) == middle
    prior = make_center_prior(height, width)
    np.testing.assert_array_equal(prior > (1 - 1e-9) * prior.max(), find_center(height, width))


def test_the_mean_of_other_maps_leaves_out_an_images_own_and_those_without_one() -> None:
    maps = np.array([[1.0, 5.0], [2.0, 8.0], [np.nan, np.nan], [6.0, 2.0]])
    means = np.array([[4, 5], [3.5, 3.5], [3, 5], [1.5, 6.5]])
    np.testing.assert_allclose(average_other_maps(maps), means)
    assert np.isnan(average_other_maps(maps[2:])[1]).all() and np.isnan(average_other_maps(maps[:1])).all()


def test_share_inside_is_a_slow_sum_and_undefined_for_a_map_without_values() -> None:
    rng = np.random.default_rng(0)
    maps, mask = rng.random((N, 20)), rng.random((N, 20)) < 0.3
    maps[4], maps[5] = 0, np.nan
    slow = [
        sum(v for v, i in zip(m, object_row, strict=True) if i) / sum(m)
        for m, object_row in zip(maps[:4], mask, strict=False)
    ]
    shares = measure_share_inside(maps, mask)
    np.testing.assert_allclose(shares[:4], slow, rtol=1e-12)
    assert np.isnan(shares[4:]).all()
    np.testing.assert_allclose(measure_share_inside(7 * maps, mask), shares, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "hit"),
    [
        ([0.1, 0.9, 0.2, 0.3], 1.0),
        ([0.1, 0.2, 0.9, 0.3], 0.0),
        ([0.1, 0.9, 0.9, 0.3], 0.0),  # as large outside: not a hit
        ([0.9, 0.9, 0.1, 0.3], 1.0),  # both inside
        ([0.4, 0.4, 0.4, 0.4], 0.0),  # points everywhere
        ([0.0, 0.0, 0.0, 0.0], np.nan),
        ([np.nan, 0.9, 0.0, 0.0], np.nan),
        ([np.nan] * 4, np.nan),
    ],
)
def test_the_pointing_game_counts_neither_ties_nor_maps_that_point_nowhere(values: list[float], hit: float) -> None:
    mask = np.array([[True, True, False, False]])
    np.testing.assert_array_equal(find_hits(np.array([values]), mask), [hit])
