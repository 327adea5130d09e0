"""The mean of what a program has measured, with its interval."""

from typing import Any

import numpy as np

from interpret_robust.core import bootstrap
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError, describe
from interpret_robust.core.intervals import UNKNOWN, Interval

NUMBERS = "biuf"
"""The kinds of arrays that have a mean: booleans, integers, unsigned ones, and floats."""


def interval(values: Any, *, seed: int = 0) -> Interval:
    """Return the mean of values (N,) with its 95 % interval: Wilson's for outcomes, a bootstrap for other numbers.

    Outcomes are booleans, or integers that are all 0 or 1; floats are other numbers. A difference of two models'
    outcomes is no outcome, so give it as floats; outcomes that are floats, give as booleans, such as `values == 1`.

    Wilson's is that of his paper of 1927 (https://doi.org/10.2307/2276774). The bootstrap is Efron's, of percentiles
    (https://doi.org/10.1214/aos/1176344552), with 2,000 resamples from `seed`; of numbers that are all alike it has no
    width. Numbers that are not finite are left out; all is NaN where none is left, and the interval of a single number.

    Args:
        values: an array, a tensor on any device, a list or a column of a table, with one boolean or number an image.
        seed: of the resamples.

    Raises UserError for what is not numeric, and for more axes than one.

    Example:
        >>> ir.interval([True, True, True, False]).percent()
        '75.0 % [30.1, 95.4]'
        >>> ir.interval(torch.tensor([0.2, 0.4, 0.3, 0.3])).plain()
        '0.30 [0.23, 0.38]'
    """
    array = _as_array(values)
    if array.dtype.kind == "f":
        return bootstrap.interval(array.astype(np.float64), seed=seed)
    if len(array) == 0:
        return UNKNOWN
    is_outcome = np.isin(array, (0, 1)).all()
    return bootstrap.interval(array.astype(np.bool_ if is_outcome else np.float64), seed=seed)


def _as_array(values: Any) -> AnyArray:
    """Return values as an array (N,) of numbers. Raises UserError where they are none."""
    try:
        array = np.asarray(_on_host(values))
    except (TypeError, ValueError, RuntimeError):
        array = np.asarray(None)
    if array.dtype.kind not in NUMBERS:
        raise UserError(f"values are {describe(values)}: give an array of booleans or numbers, one an image.")
    if array.ndim != 1:
        raise UserError(f"values have the shape {array.shape}: give one boolean or number an image, (N,).")
    return array


def _on_host(values: Any) -> Any:
    """Return a tensor's values where NumPy can read them, also those of bfloat16, and anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    return tensor.double() if tensor.is_floating_point() else tensor
