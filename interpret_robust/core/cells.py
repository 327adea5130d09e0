"""Cut images into the cells of a grid, at fractions of a pixel where the grid does not divide the image."""

import numpy as np

from interpret_robust.core.arrays import AnyArray


def average_cells(images: AnyArray, grid: tuple[int, int]) -> AnyArray:
    """Return the mean of images (N, y, x) over each cell of an even grid, (N, *grid) in float64.

    Each pixel counts by the share of the cell's area that it covers. Of a mask it is the share of the cell that the
    mask covers, and exact; where the grid divides the image it is the plain mean of whole pixels; and where the grid
    is the finer of the two, the value of the pixel that a cell lies in, or of several by area.

    Example:
        >>> average_cells(np.array([[[6.0, 0.0, 3.0]]]), (1, 2))
        array([[[4., 2.]]])
    """
    height, width = images.shape[1:]
    sums = _overlaps(grid[0], height) @ images @ _overlaps(grid[1], width).T
    means: AnyArray = sums / (height * width)
    return means


def _overlaps(cells: int, pixels: int) -> AnyArray:
    """Return the length (cells, pixels) that each cell and each pixel of a side share, where a cell is `pixels` long.

    These are whole numbers, so that sums of a mask have no rounding.
    """
    cell, pixel = np.arange(cells)[:, None] * pixels, np.arange(pixels) * cells
    lengths: AnyArray = np.minimum(cell + pixels, pixel + cells) - np.maximum(cell, pixel)
    return lengths.clip(0).astype(np.float64)
