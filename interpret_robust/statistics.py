"""Intervals and rank statistics, over images, from SciPy wherever it has them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.floating]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A point estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """As `48.8 % [45.7, 51.9]`."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def plain(self) -> str:
        """As `-0.59 [-0.61, -0.57]`."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def wilson(successes: int, count: int) -> Interval:
    """Share of successes among `count` images with Wilson's 95 % interval. Raises ValueError for no images."""
    low, high = stats.binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(successes / count, float(low), float(high))


def bootstrap_mean(values: Array, *, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of the finite `values` (N,) with its percentile bootstrap interval; NaN throughout where none is finite."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean, low, high = column_means(values[:, None], seed=seed, resamples=resamples)
    return Interval(float(mean[0]), float(low[0]), float(high[0]))


def column_means(rows: Array, *, seed: int = 0, resamples: int = 1000) -> tuple[Array, Array, Array]:
    """Mean over rows (N, K) of each column, with its percentile bootstrap 95 % interval: three arrays (K,).

    A resample is the number of times it draws each row, so that its means are one product of matrices.
    """
    rows = rows.astype(np.float64)
    count = len(rows)
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(resamples))
    means = np.stack([times.astype(np.float64) @ rows / count for times in drawn])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return rows.mean(0), low, high


def row_spearman(first: Array, second: Array) -> Array:
    """Spearman's correlation of each row of `first` (N, K) with that row of `second`; ties get mean ranks.

    A row that is constant in either has no correlation: NaN.
    """
    a, b = (stats.rankdata(rows, axis=1) for rows in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    correlation: Array = np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)
    return correlation


class Trend(NamedTuple):
    """Page's L, and the p-value that it is this large if rows are in random order."""

    statistic: float
    p_value: float


def page_trend(rows: Array) -> Trend:
    """Page's test that values of rows (N, K) grow from the first column to the last.

    Page 1963, by scipy.stats.page_trend_test. NaN for a single row, where the test says nothing.
    """
    if len(rows) < 2:
        return Trend(np.nan, np.nan)
    found = stats.page_trend_test(rows, method="asymptotic")
    return Trend(float(found.statistic), float(found.pvalue))
