"""Intervals and rank statistics, over images.

Distributions are those of `scipy.special`, loaded when first used, and what is built on them here equals `scipy.stats`,
which the tests compare it with: that is the slowest import of a command after PyTorch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from interpret_robust.core.arrays import Array
from interpret_robust.core.parsing import format_number

CONFIDENCE = 0.95
RESAMPLES = 2000
TAILS = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
WIDTH = 1.959963984540054
"""The upper of TAILS of the standard normal distribution."""

TOGETHER, PART = 16, 4096
"""Resamples and rows that are treated at a time: enough to be fast, few enough to take no memory."""


FEWEST_IMAGES = 20
"""Images of one seed below which a bootstrap interval decides nothing: that of 10 normal numbers misses their mean in
11 % of simulations, that of 20 in 7 %.
"""

MOST_MORE = 4
"""Decimals that are added at most to show on which side of zero an end of an interval lies."""


class Interval(NamedTuple):
    """A point estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return a share as text such as `48.8 % [45.7, 51.9]`."""
        return self._text("z.1f", 100, " %")

    def points(self) -> str:
        """Return a difference of shares as text such as `+6.4 points [+3.5, +9.3]`."""
        return self._text(f"+z.{self._decimals(1, 100)}f", 100, " points")

    def plain(self) -> str:
        """Return text such as `-0.59 [-0.61, -0.57]`."""
        return self._text(f"z.{self.decimals}f")

    def signed(self) -> str:
        """Return text such as `+0.05 [-0.02, +0.12]`, of a number that is to be told from zero."""
        return self._text(f"+z.{self.decimals}f")

    @property
    def has_ends(self) -> bool:
        """Return whether there is an interval, as there is none of a single image."""
        return not math.isnan(self.low)

    @property
    def decimals(self) -> int:
        """Return how many decimals `plain` and `signed` print."""
        return self._decimals(2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'unknown' if math.isnan(self.value) else self._text('.4g')}>"

    def _decimals(self, usual: int, scale: float = 1) -> int:
        """Return the usual number of decimals, and up to MOST_MORE more where an end of the interval would be zero."""
        least = min((scale * abs(end) for end in (self.low, self.high) if abs(end) > 0), default=math.inf)
        return usual + next((more for more in range(MOST_MORE) if least >= 0.5 * 10 ** -(usual + more)), MOST_MORE)

    def _text(self, form: str, scale: float = 1, unit: str = "") -> str:
        """Return the value, with its ends where it has them; NO_NUMBER where it is unknown."""
        value = format_number(scale * self.value, form, unit)
        if math.isnan(self.value) or not self.has_ends:
            return value
        low, high = (format_number(scale * end, form) for end in (self.low, self.high))
        return f"{value} [{low}, {high}]"


UNKNOWN = Interval(np.nan, np.nan, np.nan)
"""What is not known: of nothing, or of what does not vary."""


def wilson(successes: int, count: int) -> Interval:
    """Return the share of successes among `count` images with Wilson's 95 % interval. Raises ValueError for no
    images.
    """
    if count < 1:
        raise ValueError(f"{successes} of {count}: there is no share of no images.")
    share, z = successes / count, WIDTH
    center = (2 * count * share + z**2) / (2 * (count + z**2))
    reach = z / (2 * (count + z**2)) * np.sqrt(4 * count * share * (1 - share) + z**2)
    low = center - reach if successes else 0.0
    high = center + reach if successes < count else 1.0
    return Interval(share, float(low), float(high))


def rate(outcomes: npt.NDArray[Any]) -> Interval:
    """Return the share of outcomes (N,) that are 1, with Wilson's interval.

    NaN is left out. Where nothing else is there, the answer is NaN.
    """
    outcomes = outcomes[np.isfinite(outcomes)]
    return wilson(int(outcomes.sum()), len(outcomes)) if len(outcomes) else UNKNOWN


def rates(outcomes: npt.NDArray[Any]) -> Array:
    """Return the shares of outcomes (N, ...) that are 1, each with Wilson's interval, as `rate` does: (..., 3)."""
    intervals = [rate(outcomes[(slice(None), *place)]) for place in np.ndindex(outcomes.shape[1:])]
    return np.array(intervals, np.float64).reshape(*outcomes.shape[1:], 3)


def bootstrap_mean(values: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of the finite `values` (N,) with its percentile bootstrap interval.

    NaN throughout where none is finite; a single value has no interval.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(float(values[0]) if len(values) else np.nan, np.nan, np.nan)
    return Interval(*column_means(values, seed=seed, resamples=resamples).tolist())


def column_means(rows: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """Return the mean over rows (N, ...) of each column, with its percentile bootstrap 95 % interval: (..., 3).

    A resample is the number of times it draws each row, so that its means are one product of matrices, and all columns
    share the rows drawn. A single row has no interval: its ends are NaN.

    Example:
        >>> column_means(np.array([[1.0, 4.0], [1.0, 4.0]]))
        array([[1., 1., 1.],
               [4., 4., 4.]])
    """
    flat = _flat(rows)
    return _intervals(flat.mean(0, dtype=np.float64), _resampled_means(flat, seed, resamples), len(rows), rows)


def finite_column_means(rows: Array) -> Array:
    """Do what `column_means` does, over the finite values of each column; NaN throughout where it has none.

    A column with a single one has no interval.
    """
    flat = _flat(rows)
    finite = np.isfinite(flat)
    halves = np.hstack([np.where(finite, flat, 0), finite]).astype(np.float64)
    sums, shares = np.hsplit(np.vstack([halves.mean(0), _resampled_means(halves, 0, RESAMPLES)]), 2)
    means = np.divide(sums, shares, out=np.full(sums.shape, np.nan), where=shares > 0)
    intervals = _intervals(means[0], means[1:], finite.sum(0), rows)
    for column in np.flatnonzero(np.isnan(means[1:]).any(0) & (finite.sum(0) > 1)):  # resamples that drew no value
        intervals.reshape(-1, 3)[column, 1:] = np.nanquantile(means[1:, column], TAILS)
    return intervals


def _flat(rows: Array) -> Array:
    """Return rows (N, ...) as a matrix (N, K), also without any."""
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


def _intervals(means: Array, resampled_means: Array, counts: int | Array, rows: Array) -> Array:
    """Return means (K,) and the interval of their resamples (resamples, K) in the shape (..., 3) of rows (N, ...).

    `counts` says of how many values each mean is; that of one has no interval.
    """
    low, high = np.where(np.less(counts, 2), np.nan, np.quantile(resampled_means, TAILS, axis=0))
    return np.stack([means, low, high], 1).reshape(*rows.shape[1:], 3)


def ratio_of_means(first: Array, second: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of `first` (N,) over that of `second`, values of the same rows, with its percentile bootstrap
    interval; of columns (N, K) the mean of their K ratios.

    NaN where the mean of a column of `second` is not positive, and for the interval where that of a resample is not.
    """
    if len(first) == 0:
        return UNKNOWN
    rows = np.hstack([values.reshape(len(values), -1) for values in (first, second)]).astype(np.float64)
    numerators, denominators = np.hsplit(np.vstack([rows.mean(0), _resampled_means(rows, seed, resamples)]), 2)
    ratios = np.divide(numerators, denominators, out=np.full(numerators.shape, np.nan), where=denominators > 0).mean(1)
    low, high = np.quantile(ratios[1:], TAILS)
    return Interval(float(ratios[0]), float(low), float(high))


def _resampled_means(rows: Array, seed: int, resamples: int) -> Array:
    """Return means (resamples, K) over rows (N, K) drawn with replacement."""
    count, counts, means = len(rows), _draw_counts(len(rows), seed, resamples), []
    for first in range(0, resamples, TOGETHER):
        times = counts[first : first + TOGETHER]
        means.append(sum(times[:, part].astype(np.float64) @ rows[part] for part in split_rows(count)) / count)
    return np.concatenate(means)


@lru_cache(maxsize=2)
def _draw_counts(count: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """Return how often each of `count` rows is drawn in each resample, (resamples, count): the same for all statistics.

    A row is drawn once on average: a count above 255 has a probability below 1e-500.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, count), np.uint8)
    for resample in counts:
        resample[:] = np.bincount(rng.integers(count, size=count), minlength=count)
    counts.flags.writeable = False
    return counts


def split_rows(count: int) -> Iterator[slice]:
    """Return slices that cover `count` rows, PART at a time; an empty one for no rows."""
    return (slice(first, first + PART) for first in range(0, max(count, 1), PART))


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


def interval(values: Array, *, seed: int = 0) -> Interval:
    """Return the mean of values (N,) with its 95 % interval: Wilson's for booleans, a bootstrap for numbers.

    Wilson's is that of his paper of 1927 (https://doi.org/10.2307/2276774). The bootstrap is Efron's, of percentiles
    (https://doi.org/10.1214/aos/1176344552), with 2,000 resamples from `seed`. Numbers that are not finite are left
    out; all is NaN where none is left, and the interval of a single number. Raises ValueError for no booleans.

    Example:
        >>> interval(np.array([True, True, True, False])).percent()
        '75.0 % [30.1, 95.4]'
    """
    if values.dtype == np.bool_:
        return wilson(int(values.sum()), len(values))
    return bootstrap_mean(values, seed=seed)


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
    draws, together = _draw_counts(len(first), seed, resamples), max(1, PART // len(first))
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


def area_under(curves: npt.NDArray[Any], counts: npt.ArrayLike) -> Array:
    """Return the area (trapezoids) under curves (..., K) over `counts` (K,) as shares of the last: 1 if all are 1."""
    share = np.diff(counts) / np.max(counts)
    width = (np.append(share, 0) + np.append(0, share)) / 2
    # Unlike a product of matrices, einsum makes no copy of all rows in float64.
    return np.asarray(np.einsum("...r,r->...", curves, width))


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
