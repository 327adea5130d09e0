"""What stands in for pixels that are taken away: noisy linear imputation, as ROAD has it.

Rong et al. 2022, https://arxiv.org/abs/2202.00449: each missing pixel is the weighted mean of its neighbors, missing
ones among them, so that all are the solution of one sparse linear system. Noise is added, lest a network tell the
smooth pixels apart.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from interpret_robust.core.arrays import AnyArray

DIRECT, DIAGONAL = 1 / 6, 1 / 12
"""Weights of the four neighbors that share a side with a pixel, and of the four that share a corner."""

DEVIATION = 0.01
"""Deviation of the noise, in pixels in [0, 1]."""


def impute_pixels(image: AnyArray, mask: AnyArray, color: AnyArray, noise: AnyArray) -> AnyArray:
    """Return an image (C, H, W) of pixels in [0, 1] with those in `mask` (H*W,) imputed from the others.

    At the border, weights are renormalized over the neighbors that there are. Where all pixels are missing they get
    `color` (C,). DEVIATION times `noise` (C, H, W) is added to imputed pixels, which then stay within [0, 1].
    """
    pixels = image.reshape(len(image), -1).astype(np.float64)
    if mask.all():
        pixels[:] = color[:, None]
    elif mask.any():
        weights = weigh_neighbors(*image.shape[1:])[mask]
        system = scipy.sparse.diags_array(weights.sum(1)) - weights[:, mask]
        constants = weights[:, ~mask] @ pixels[:, ~mask].T
        # The system is symmetric and positive definite: its order for the factors needs no regard to pivots.
        factors = scipy.sparse.linalg.splu(
            system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True}
        )
        pixels[:, mask] = factors.solve(constants).T
    noisy = np.clip(pixels + DEVIATION * noise.reshape(pixels.shape), 0, 1)
    return np.where(mask, noisy, pixels).astype(image.dtype).reshape(image.shape)


@lru_cache(maxsize=4)
def weigh_neighbors(height: int, width: int) -> Any:
    """Return the sparse matrix (H*W, H*W) of the weights of each pixel's neighbors, pixels row-major."""
    rows, columns = (scipy.sparse.eye_array(side, k=1) + scipy.sparse.eye_array(side, k=-1) for side in (height, width))
    same_row, same_column = scipy.sparse.eye_array(height), scipy.sparse.eye_array(width)
    direct = scipy.sparse.kron(same_row, columns) + scipy.sparse.kron(rows, same_column)
    return (DIRECT * direct + DIAGONAL * scipy.sparse.kron(rows, columns)).tocsr()
