"""Where the object is, on pixels and on positions, and what a map that knows nothing of it would give."""

import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.cells import average_cells

OBJECT_SHARE = 0.25
"""A position lies on the object where the mask covers at least this share of its cell."""

CENTER_WIDTH = 0.25
"""Standard deviation of the center prior, in sides of the image."""


def find_object_positions(masks: AnyArray, grid: tuple[int, int]) -> AnyArray:
    """Return which positions (N, H*W) of a grid lie on the object, from masks (N, y, x) over pixels.

    A position stands for its cell of the image, and is on the object where the mask covers at least OBJECT_SHARE of
    it. Cells are cut at fractions of a pixel where the grid does not divide the mask.
    """
    mask: AnyArray = average_cells(masks, grid).reshape(len(masks), -1) >= OBJECT_SHARE
    return mask


def make_center_prior(height: int, width: int) -> AnyArray:
    """Return a map (height, width) that falls off from the center as a Gaussian and sums to one."""
    rows, columns = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    bump = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * CENTER_WIDTH**2))
    prior: AnyArray = bump / bump.sum()
    return prior


def find_center(height: int, width: int) -> AnyArray:
    """Return which places (height, width) are nearest to the center: one for odd sides, two a side for even ones."""
    rows, columns = (np.abs(2 * np.arange(side) + 1 - side) <= 1 for side in (height, width))
    middle: AnyArray = rows[:, None] & columns[None, :]
    return middle


def average_maps(attention: AnyArray) -> AnyArray:
    """Return the mean (P,) over the images of (N, P) that have a map; NaN where none has."""
    finite = attention[np.isfinite(attention).all(1)].astype(np.float64)
    return finite.mean(0) if len(finite) else np.full(attention.shape[1], np.nan)


def average_other_maps(attention: AnyArray) -> AnyArray:
    """Return for each image the mean (N, P) of the maps (N, P) of the other images; NaN where no other has a map.

    An image's own map would make the mean resemble it, the more the fewer images there are.
    """
    has_map = np.isfinite(attention).all(1, keepdims=True)
    maps = np.where(has_map, attention, 0).astype(np.float64)
    counts = has_map.sum() - has_map
    mean: AnyArray = np.divide(maps.sum(0) - maps, counts, out=np.full(maps.shape, np.nan), where=counts > 0)
    return mean


def measure_share_inside(maps: AnyArray, mask: AnyArray) -> AnyArray:
    """Return the share (N,) of maps (N, P), not negative, that lies in `mask` (N, P); NaN for a map without a
    positive sum.
    """
    total = maps.sum(1)
    share: AnyArray = np.divide((maps * mask).sum(1), total, out=np.full(len(maps), np.nan), where=total > 0)
    return share


def find_hits(maps: AnyArray, mask: AnyArray) -> AnyArray:
    """Return the pointing game (Zhang et al. 2018): 1 where the largest value of a map (N, P) lies in `mask` (N, P),
    else 0.

    A largest value that is also found outside is no hit. NaN for a map that points nowhere: zero everywhere, or not
    a number.
    """
    largest = maps.max(1, keepdims=True)
    misses = ((maps == largest) & ~mask).any(1)
    return np.where(largest[:, 0] > 0, ~misses, np.nan)
