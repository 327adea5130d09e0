"""Statistics of ranks: Spearman's correlation of each row, and Page's test for a trend over rows.

Distributions are those of `scipy.special`, loaded when first used, and what is built on them here equals `scipy.stats`,
which the tests compare it with: that is the slowest import of a command after PyTorch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from interpret_robust.core.arrays import Array
from interpret_robust.core.bootstrap import PART, RESAMPLES, draw_counts, split_rows
from interpret_robust.core.intervals import TAILS, UNKNOWN, Interval


def apply_in_parts(function: Callable[..., Array], *arrays: Array) -> Array:
    """Return what a function that treats each row alone makes of arrays (N, ...), with what it needs on its way
    kept small.
    """
    return np.concatenate([function(*(array[part] for array in arrays)) for part in split_rows(len(arrays[0]))])


def rank_rows(rows: npt.NDArray[Any]) -> Array:
    """Return the ranks, from 1, of values in each row (N, K), ties at their mean rank; NaN in rows that have one.

    Example:
        >>> rank_rows(np.array([[0.5, 0.1, 0.5]]))
        array([[2.5, 1. , 2.5]])
    """
    order = rows.argsort(1, kind="stable")
    sorted_rows = np.take_along_axis(rows, order, 1)
    is_first = np.ones(rows.shape, bool)
    is_first[:, 1:] = sorted_rows[:, 1:] != sorted_rows[:, :-1]
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=rows.size)
    ranks = np.empty(rows.shape)
    np.put_along_axis(
        ranks, order, np.repeat(starts % max(rows.shape[1], 1) + (lengths + 1) / 2, lengths).reshape(rows.shape), 1
    )
    ranks[np.isnan(rows).any(1)] = np.nan
    return ranks


def row_spearman(first: Array, second: Array) -> Array:
    """Return Spearman's correlation of each row of `first` (N, K) with that row of `second`; ties get mean ranks.

    A row that is constant in either has no correlation: NaN.
    """
    return apply_in_parts(_row_spearman, first, second)


def _row_spearman(first: Array, second: Array) -> Array:
    a, b = rank_rows(first), rank_rows(second)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    correlation: Array = np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)
    return correlation


def bootstrap_spearman(first: Array, second: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return Spearman's correlation of `first` and `second` (N,) over pairs that are finite, with its percentile
    bootstrap interval.

    NaN where there is no correlation: fewer than two pairs, or one side constant.
    """
    finite = np.isfinite(first) & np.isfinite(second)
    first, second = first[finite], second[finite]
    if len(first) < 2:
        return UNKNOWN
    a, b = (np.unique(values, return_inverse=True)[1] for values in (first, second))
    (whole,) = _spearman_of_drawn(a, b, np.ones((1, len(first))))
    if np.isnan(whole):
        return UNKNOWN
    draws, together = draw_counts(len(first), seed, resamples), max(1, PART // len(first))
    correlations = [
        _spearman_of_drawn(a, b, draws[start : start + together].astype(np.float64))
        for start in range(0, resamples, together)
    ]
    low, high = np.nanquantile(np.concatenate(correlations), TAILS)
    return Interval(float(whole), float(low), float(high))


def _spearman_of_drawn(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], times: Array) -> Array:
    """Return Spearman's correlation (R,) of pairs in each of R resamples, from the places (N,) of their values in order
    and how often (R, N) each pair is drawn.

    The ranks of a resample follow from these: nothing is sorted again.
    """
    a, b = (_middle_ranks(places, times) for places in (first, second))
    products = times * a
    ab, aa, bb = (np.einsum("rn,rn->r", *pair) for pair in ((products, b), (products, a), (times * b, b)))
    scale = np.sqrt(aa * bb)
    correlation: Array = np.divide(ab, scale, out=np.full(len(times), np.nan), where=scale > 0)
    return correlation


def _middle_ranks(places: npt.NDArray[np.intp], times: Array) -> Array:
    """Return the rank (R, N) of each value among those drawn, ties at their mean rank, less the mean of all ranks."""
    resamples, values = len(times), int(places.max()) + 1
    cells = places + values * np.arange(resamples)[:, None]
    tie_counts = np.bincount(cells.ravel(), times.ravel(), resamples * values).reshape(resamples, values)
    middles = tie_counts.cumsum(1) - (tie_counts - 1) / 2 - (times.sum(1, keepdims=True) + 1) / 2
    ranks: Array = middles[:, places]
    return ranks


def row_partial_spearman(first: Array, second: Array, control: Array) -> Array:
    """Return Spearman's correlation of rows (N, K) of `first` and `second` with that of `control` taken out of both.

    The partial correlation of ranks (Kendall 1942): (ab - ac bc) / sqrt((1 - ac^2) (1 - bc^2)). NaN where a
    correlation is undefined or `control` explains one of the two entirely.
    """
    ab, ac, bc = row_spearman(first, second), row_spearman(first, control), row_spearman(second, control)
    scale = np.sqrt(np.clip((1 - ac**2) * (1 - bc**2), 0, None))
    partial: Array = np.divide(ab - ac * bc, scale, out=np.full(len(ab), np.nan), where=scale > 1e-9)
    return partial


class Trend(NamedTuple):
    """Page's L, and the p-value that it is this large if rows are in random order."""

    statistic: float
    p_value: float


def page_trend(rows: Array, order: Array | None = None) -> Trend:
    """Return Page's test (1963) that values of rows (N, K) grow with those of `order` (N, K); p by the normal limit.

    Where `order` is None they are to grow from the first column to the last, which is scipy.stats.page_trend_test.
    Ties get mean ranks on both sides, and the variance is that of such ranks in random order, which SciPy's is not:
    theirs is that of ranks without ties, and its p-values are too near a half. A row that is constant on either side
    says nothing, and where all are, p is a half. NaN for a single row, where the test says nothing.
    """
    count, columns = rows.shape
    if count < 2:
        return Trend(np.nan, np.nan)
    if order is None:
        order = np.broadcast_to(np.arange(columns), rows.shape)
    sums = [_page_sums(rows[part], order[part]) for part in split_rows(count)]
    statistic, variance = (float(sum(numbers)) for numbers in zip(*sums, strict=True))
    excess = statistic - count * columns * (columns + 1) ** 2 / 4
    return Trend(statistic, float(scipy.special.ndtr(-excess / np.sqrt(variance)) if variance else 0.5))


def _page_sums(rows: Array, order: Array) -> tuple[float, float]:
    """Return the sum over rows (N, K) of products of their ranks with those of `order`, and its variance.

    The variance is that of each row in random order: squares of one side's ranks about their mean, times those of
    the other, over K - 1. Ranks are multiples of a half, so that sums have no rounding.
    """
    first, second = rank_rows(rows), rank_rows(order)
    columns = rows.shape[1]
    squares = [12 * ((ranks - (columns + 1) / 2) ** 2).sum(1) for ranks in (first, second)]
    return (first * second).sum(), (squares[0] * squares[1] / max(columns - 1, 1)).sum() / 144
