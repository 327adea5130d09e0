"""Is a difference real: tests over images and training seeds, and their correction for many tests.

Distributions are those of `scipy.special`, as in `core.rank_statistics`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from interpret_robust.core.arrays import Array
from interpret_robust.core.intervals import TAILS, Interval


class PairedDifference(NamedTuple):
    """Two models on the same images: how many only one of them has right, and the exact p-value."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> PairedDifference:
    """Return McNemar's exact two-sided test on outcomes (N,) of the same images; p is 1 where no image differs."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = min(1.0, 2 * float(scipy.special.bdtr(min(only_first, only_second), discordant, 0.5)))
    return PairedDifference(only_first, only_second, p_value)


class TestResult(NamedTuple):
    """A mean with its 95 % interval, and the two-sided p-value that it is zero."""

    interval: Interval
    p_value: float


def average_seeds(values: Sequence[Array]) -> TestResult:
    """Return the mean over training seeds of the mean over images: `values` are an array (N,) a seed, of the same
    images in each.

    Seeds and images are both drawn: the variance is that of the seeds' means over their number, plus that of the
    images' means (each over the seeds) over theirs. Interval and p-value are Student's t with the degrees of freedom of
    Welch and Satterthwaite. A mean of zero has p below 0.05 in at most 8 % of simulations with three seeds, and in at
    most 13 % with two; most often where the seeds' part of the error is some five times that of the images.

    NaN is left out. Each of the two or more seeds needs a value; a single image has no interval.
    """
    table = np.stack(values).astype(np.float64)
    seeds = np.nanmean(table, axis=1)
    images = np.nanmean(table[:, np.isfinite(table).any(0)], axis=0)
    mean = float(seeds.mean())
    if len(images) < 2:
        return TestResult(Interval(mean, np.nan, np.nan), 1.0)
    parts = np.array([seeds.var(ddof=1) / len(seeds), images.var(ddof=1) / len(images)])
    if not parts.any():
        return TestResult(Interval(mean, mean, mean), float(mean == 0))
    freedom = parts.sum() ** 2 / (parts**2 / [len(seeds) - 1, len(images) - 1]).sum()
    error = np.sqrt(parts.sum())
    low, high = mean + scipy.special.stdtrit(freedom, TAILS) * error
    return TestResult(
        Interval(mean, float(low), float(high)), float(2 * scipy.special.stdtr(freedom, -abs(mean) / error))
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method (1979), in the order given."""
    adjusted_p, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted_p[index] = highest
    return adjusted_p
