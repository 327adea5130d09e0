"""The area under a curve."""

from typing import Any

import numpy as np
import numpy.typing as npt

from interpret_robust.core.arrays import Array


def area_under(curves: npt.NDArray[Any], counts: npt.ArrayLike) -> Array:
    """Return the area (trapezoids) under curves (..., K) over `counts` (K,) as shares of the last: 1 if all are 1."""
    share = np.diff(counts) / np.max(counts)
    width = (np.append(share, 0) + np.append(0, share)) / 2
    # Unlike a product of matrices, einsum makes no copy of all rows in float64.
    return np.asarray(np.einsum("...r,r->...", curves, width))
