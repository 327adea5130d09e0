"""Intervals and rank statistics against published values, closed formulas and SciPy row by row."""

import math
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from interpret_robust.core import bootstrap, intervals, rank_statistics
from interpret_robust.core.bootstrap import bootstrap_mean, column_means, finite_column_means, ratio_of_means
from interpret_robust.core.intervals import UNKNOWN, Interval, wilson
from interpret_robust.core.rank_statistics import page_trend, row_partial_spearman, row_spearman
from interpret_robust.core.significance import average_seeds, holm, mcnemar

Array = npt.NDArray[np.float64]
Z = 1.959963984540054


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998(successes: int, count: int, low: float, high: float) -> None:
    assert wilson(successes, count) == pytest.approx((successes / count, low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (3, 10), (7, 7), (0, 7), (488, 1000)])
def test_wilson_is_the_closed_formula(successes: int, count: int) -> None:
    share = successes / count
    center = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    assert wilson(successes, count) == pytest.approx((share, center - half, center + half), abs=1e-12)


def test_wilson_is_scipys_bit_by_bit() -> None:
    assert stats.norm.ppf(0.975) == intervals.WIDTH
    for count in (1, 2, 7, 250, 9999):
        for successes in np.unique(np.linspace(0, count, 23).astype(int)).tolist():
            low, high = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
            assert wilson(successes, count) == (successes / count, low, high)


def test_wilson_of_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no share of no images"):
        wilson(0, 0)


def test_intervals_are_printed_with_the_digits_that_mean_something() -> None:
    assert wilson(488, 1000).percent() == "48.8 % [45.7, 51.9]"
    assert Interval(-0.594, -0.61, -0.5749).plain() == "-0.59 [-0.61, -0.57]"
    assert Interval(0.0644, 0.0351, 0.0929).points() == "+6.4 points [+3.5, +9.3]"
    assert Interval(0.053, -0.021, 0.119).signed() == "+0.05 [-0.02, +0.12]"


def test_no_end_of_a_difference_is_printed_as_a_zero_that_it_is_not() -> None:
    """Its sign says whether the difference is told from zero."""
    assert Interval(0.012, 0.003, 0.021).signed() == "+0.012 [+0.003, +0.021]"
    assert Interval(0.012, -0.003, 0.027).plain() == "0.012 [-0.003, 0.027]"
    assert Interval(0.016, -0.0004, 0.0321).points() == "+1.60 points [-0.04, +3.21]"
    assert Interval(-0.003, -0.0055, -0.0003).signed() == "-0.0030 [-0.0055, -0.0003]"
    assert Interval(-0.1, -0.2, -1e-9).signed() == "-0.100000 [-0.200000, +0.000000]"
    assert Interval(-0.1, -0.2, 0).signed() == "-0.10 [-0.20, +0.00]"
    assert Interval(0.0, 0.0, 0.0).points() == "+0.0 points [+0.0, +0.0]"
    assert Interval(-0.0001, -0.21, 0.2).plain() == "0.00 [-0.21, 0.20]"


def test_an_interval_that_does_not_exist_is_not_printed() -> None:
    alone = bootstrap_mean(np.array([0.083]))
    assert (alone.percent(), alone.points(), alone.plain(), alone.signed()) == (
        "8.3 %",
        "+8.3 points",
        "0.08",
        "+0.08",
    )
    assert {UNKNOWN.percent(), UNKNOWN.points(), UNKNOWN.plain(), UNKNOWN.signed()} == {"-"}
    assert [repr(alone), repr(UNKNOWN)] == ["<Interval 0.083>", "<Interval unknown>"]
    assert repr(Interval(0.488, 0.457, 0.519)) == "<Interval 0.488 [0.457, 0.519]>"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (np.nan, np.nan, np.nan)),
        ([np.nan, np.nan], (np.nan, np.nan, np.nan)),
        ([0.25], (0.25, np.nan, np.nan)),
        ([0.25] * 9, (0.25, 0.25, 0.25)),
        ([np.nan, -1.5, np.inf, -1.5], (-1.5, -1.5, -1.5)),
    ],
)
def test_bootstrap_of_values_without_spread(values: list[float], expected: tuple[float, float, float]) -> None:
    assert bootstrap_mean(np.array(values)) == pytest.approx(expected, nan_ok=True, abs=0)


def test_bootstrap_ignores_what_is_not_finite() -> None:
    values = random(50)
    with_holes = np.insert(values, [0, 10, 50], [np.nan, np.inf, np.nan])
    assert bootstrap_mean(with_holes) == bootstrap_mean(values)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values = random(30)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4)[1:] != bootstrap_mean(values, seed=5)[1:]


def test_bootstrap_of_many_values_is_the_normal_interval() -> None:
    """Within 0.2 standard errors: the 2.5 % quantile of 2,000 resamples scatters by 0.06."""
    values = random(3000) * 2 + 5
    error = values.std(ddof=1) / math.sqrt(len(values))
    mean, low, high = bootstrap_mean(values)
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert (low, high) == pytest.approx((mean - Z * error, mean + Z * error), abs=0.2 * error)


def test_bootstrap_interval_leans_to_the_long_tail() -> None:
    mean, low, high = bootstrap_mean(np.random.default_rng(0).exponential(size=40))
    assert high - mean > 1.1 * (mean - low) > 0


def test_column_means_are_those_of_each_column_alone() -> None:
    """Intervals within 0.3 standard errors of the normal ones: 1,000 resamples scatter by 0.085."""
    rows = random(800, 3) * [1, 5, 0] + [0, 10, 3]
    mean, low, high = column_means(rows).T
    half = Z * rows.std(0, ddof=1) / math.sqrt(800)
    assert mean == pytest.approx([sum(column) / 800 for column in rows.T], abs=1e-12)
    assert np.all(np.abs(low - (mean - half)) <= 0.3 * half / Z + 1e-12)
    assert np.all(np.abs(high - (mean + half)) <= 0.3 * half / Z + 1e-12)
    assert (low[2], high[2]) == pytest.approx((3, 3), abs=1e-12)


def slow_resamples(rows: Array, seed: int, resamples: int) -> Array:
    """Means (resamples, K) over rows (N, K), each drawn with replacement and summed one by one."""
    rng, means = np.random.default_rng(seed), []
    for _ in range(resamples):
        total = np.zeros(rows.shape[1])
        for index in rng.integers(len(rows), size=len(rows)):
            total += rows[index]
        means.append(total / len(rows))
    return np.array(means)


def test_intervals_from_counts_drawn_once_are_those_of_rows_drawn_one_by_one() -> None:
    """Bit by bit: sums of multiples of a power of two have no rounding, in whichever order. Sizes and seeds alternate,
    so that counts of another size or seed, or of more resamples, would show.
    """
    bootstrap.draw_counts.cache_clear()
    sizes = [(29, 0, 40), (29, 1, 40), (31, 0, 40), (29, 0, 40), (29, 0, 24)]
    for count, seed, resamples in [*sizes, *sizes[::-1]]:
        rows = np.round(random(count, 3, seed=count) * 1024) / 1024
        draw = slow_resamples(rows, seed, resamples)
        low, high = np.quantile(draw, intervals.TAILS, axis=0)
        for result, slow in zip(column_means(rows, seed=seed, resamples=resamples).T[1:], (low, high), strict=True):
            np.testing.assert_array_equal(result, slow)
        mean, *interval = bootstrap_mean(rows[:, 1], seed=seed, resamples=resamples)
        assert (mean, *interval) == (rows[:, 1].sum() / count, low[1], high[1])
        positive = np.abs(rows) + 1
        draw = slow_resamples(positive, seed, resamples)
        ratio = ratio_of_means(positive[:, 0], positive[:, 1], seed=seed, resamples=resamples)
        slow_low, slow_high = np.quantile(draw[:, 0] / draw[:, 1], intervals.TAILS)
        assert ratio[1:] == (slow_low, slow_high)


def test_column_means_of_one_row_are_that_row_without_an_interval() -> None:
    rows = random(1, 4)
    means, low, high = column_means(rows).T
    assert np.array_equal(means, rows[0]) and np.isnan([low, high]).all()
    holes = np.stack([rows[0], np.where([True, True, False, False], np.nan, 2 * rows[0])])
    means, low, high = finite_column_means(holes).T
    np.testing.assert_allclose(means, rows[0] * [1, 1, 1.5, 1.5])
    assert np.isnan([low, high])[:, :2].all() and (low[2:] <= high[2:]).all()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_column_of_few_values_among_many_rows_has_an_interval(count: int) -> None:
    rows = random(60, 3)
    rows[count:, 1] = np.nan
    mean, low, high = finite_column_means(rows)[1]
    assert mean == pytest.approx(rows[:count, 1].mean())
    assert rows[:count, 1].min() <= low < mean < high <= rows[:count, 1].max()
    np.testing.assert_allclose(finite_column_means(rows)[[0, 2]], column_means(rows[:, [0, 2]]))


def test_column_means_are_reproducible() -> None:
    rows = random(20, 3)
    assert np.array_equal(column_means(rows), column_means(rows))


def test_no_answer_depends_on_how_much_is_treated_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, second_rows = random(41, 5), random(41, 5, seed=1)

    def answers() -> list[Array]:
        return [column_means(rows), row_spearman(rows, second_rows), np.array(page_trend(rows))]

    whole = answers()
    for module in (bootstrap, rank_statistics):
        monkeypatch.setattr(module, "PART", 7)
    monkeypatch.setattr(bootstrap, "TOGETHER", 3)
    for result, expected in zip(answers(), whole, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_no_rows_have_no_correlation() -> None:
    assert row_spearman(np.empty((0, 5)), np.empty((0, 5))).shape == (0,)


def test_ratio_of_means_has_the_interval_of_the_delta_method() -> None:
    first = 3 + random(4000)
    second = 2 + 0.5 * first + random(4000, seed=1)
    (a, b), covariance = (first.mean(), second.mean()), np.cov(first, second)
    variance = covariance[0, 0] / a**2 + covariance[1, 1] / b**2 - 2 * covariance[0, 1] / (a * b)
    error = Z * a / b * math.sqrt(variance / 4000)
    result = ratio_of_means(first, second)
    assert result.value == pytest.approx(a / b, rel=1e-12)
    assert (result.low, result.high) == pytest.approx((a / b - error, a / b + error), abs=0.1 * error)


def test_ratio_of_means_draws_the_same_rows_of_both() -> None:
    values = 1 + random(50) ** 2
    assert ratio_of_means(3 * values, values) == pytest.approx((3, 3, 3))


def test_ratio_of_means_of_columns_is_the_mean_of_their_ratios() -> None:
    first, second = 3 + random(60, 2), 2 + random(60, 2, seed=1) / 4
    result = ratio_of_means(first, second)
    assert result.value == pytest.approx(np.mean([a.mean() / b.mean() for a, b in zip(first.T, second.T, strict=True)]))
    rng, ratios = np.random.default_rng(0), []
    for _ in range(bootstrap.RESAMPLES):
        rows = rng.integers(60, size=60)
        ratios.append(np.mean(first[rows].mean(0) / second[rows].mean(0)))
    assert (result.low, result.high) == pytest.approx(np.quantile(ratios, [0.025, 0.975]), rel=1e-9)
    assert np.isnan(ratio_of_means(first, second * [1, 0])).all()


def test_ratio_of_means_is_undefined_over_nothing() -> None:
    assert np.isnan(ratio_of_means(np.ones(5), np.zeros(5))).all()
    assert np.isnan(ratio_of_means(np.ones(0), np.ones(0))).all()
    rare = ratio_of_means(np.ones(5), np.array([0, 0, 0, 0, 2.0]))
    assert rare.value == 2.5 and np.isnan([rare.low, rare.high]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize("shape", [(0, 5), (6, 1), (11, 7)])
def test_ranks_are_scipys(shape: tuple[int, int], dtype: str) -> None:
    rows = (2 * random(*shape)).round().astype(dtype)
    rows[:1] = 3
    assert np.array_equal(rank_statistics.rank_rows(rows), stats.rankdata(rows, axis=1).reshape(shape))


def test_a_row_with_nan_has_no_ranks() -> None:
    rows = np.array([[1, np.nan, np.nan], [np.inf, -np.inf, 0]])
    assert np.isnan(rank_statistics.rank_rows(rows)[0]).all() and rank_statistics.rank_rows(rows)[1].tolist() == [
        3,
        1,
        2,
    ]
    assert np.array_equal(rank_statistics.rank_rows(rows), stats.rankdata(rows, axis=1), equal_nan=True)


@pytest.mark.parametrize("ties", [False, True])
def test_row_spearman_is_scipy_row_by_row(ties: bool) -> None:
    first, second = random(9, 17), random(9, 17, seed=1)
    if ties:
        first, second = first.round(), second.round()
        assert all(len(np.unique(row)) < 10 for row in (*first, *second))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert row_spearman(first, second) == pytest.approx(expected, abs=1e-12)


def test_row_spearman_of_constant_and_monotone_rows() -> None:
    rise = np.arange(6.0)
    first = np.array([rise, rise, rise, np.ones(6), rise, np.ones(6)])
    second = np.array([rise**3, -np.exp(rise), rise[::-1], rise, np.zeros(6), np.ones(6)])
    assert row_spearman(first, second) == pytest.approx([1, -1, -1, np.nan, np.nan, np.nan], nan_ok=True, abs=0)


def page(rows: Array) -> tuple[float, float]:
    """Page's L and its normal approximation, as he gives them (1963)."""
    count, columns = rows.shape
    ranks = [stats.rankdata(row) for row in rows]
    total = sum((place + 1) * rank[place] for rank in ranks for place in range(columns))
    mean = count * columns * (columns + 1) ** 2 / 4
    variance = count * columns**2 * (columns + 1) * (columns**2 - 1) / 144
    return float(total), float(stats.norm.sf((total - mean) / math.sqrt(variance)))


@pytest.mark.parametrize("slope", [0.0, 0.1, -0.1])
def test_page_trend_is_the_published_formula_and_scipy(slope: float) -> None:
    rows = random(11, 7) + slope * np.arange(7)
    result = page_trend(rows)
    assert tuple(result) == pytest.approx(page(rows), rel=1e-9)
    assert result.p_value == pytest.approx(stats.page_trend_test(rows, method="asymptotic").pvalue, abs=0)


@pytest.mark.parametrize(("slope", "low", "high"), [(1.0, 0.0, 1e-9), (-1.0, 1 - 1e-9, 1.0), (0.0, 0.01, 0.99)])
def test_page_trend_is_small_for_growing_columns(slope: float, low: float, high: float) -> None:
    assert low <= page_trend(random(12, 9) + 5 * slope * np.arange(9)).p_value <= high


def test_page_trend_of_a_single_row_says_nothing() -> None:
    assert np.isnan(page_trend(np.arange(5.0)[None])).all()


def test_page_trend_of_ties_has_the_moments_of_all_permutations() -> None:
    """L over every order of both rows: its mean is no matter of ties, its variance is."""
    rows, order = np.array([[2.0, 1, 1, 3], [0, 0, 0, 5]]), np.array([[1.0, 1, 2, 3], [4, 1, 4, 2]])
    ranks, steps = stats.rankdata(rows, axis=1), stats.rankdata(order, axis=1)
    left, right = ([float(s @ np.array(p)) for p in permutations(r)] for r, s in zip(ranks, steps, strict=True))
    totals = np.add.outer(left, right)
    result = page_trend(rows, order)
    assert result.statistic == (ranks * steps).sum()
    p_value = stats.norm.sf((result.statistic - totals.mean()) / totals.std())
    assert result.p_value == pytest.approx(float(p_value), rel=1e-12)


def test_page_trend_of_tied_values_is_scipys_statistic_and_a_sharper_p_value() -> None:
    rows = (random(14, 9) + 0.1 * np.arange(9)).round()
    result, reference = page_trend(rows), stats.page_trend_test(rows, method="asymptotic")
    assert result.statistic == reference.statistic
    ties = [sum(t**3 - t for t in np.unique(row, return_counts=True)[1]) for row in rows]
    sharper = 1 / math.sqrt(1 - sum(ties) / (14 * (9**3 - 9)))
    assert sharper > 1.03
    assert stats.norm.isf(result.p_value) == pytest.approx(sharper * stats.norm.isf(reference.pvalue), rel=1e-9)


def test_page_trend_of_ties_is_as_often_small_as_it_says() -> None:
    """Weights of long tails where most of the order is one tie: no trend is seen in them more often than by chance."""
    rng = np.random.default_rng(0)
    order = np.tile(np.maximum(np.arange(16) - 11, 0), (40, 1))
    p_values = [page_trend(np.exp(2 * rng.standard_normal((40, 16))), order).p_value for _ in range(400)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert page_trend(order + 0.1 * rng.standard_normal((40, 16)), order).p_value < 1e-12


def test_page_trend_by_an_order_is_that_of_values_in_that_order() -> None:
    rows, order = random(11, 7), random(11, 7, seed=1)
    in_order = np.take_along_axis(rows, np.argsort(order, axis=1), axis=1)
    assert page_trend(rows, order) == page_trend(in_order)
    assert page_trend(rows, -order) == page_trend(in_order[:, ::-1])


def test_page_trend_of_constant_rows_is_undecided() -> None:
    assert page_trend(np.ones((4, 5))).p_value == 0.5


def partial(first: Array, second: Array, confounder: Array) -> float:
    """Correlation of what is left of two ranks when their regressions on a third are taken away."""
    a, b, c = (stats.rankdata(row) - (len(row) + 1) / 2 for row in (first, second, confounder))
    a, b = a - c * (a @ c) / (c @ c), b - c * (b @ c) / (c @ c)
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("ties", [False, True])
def test_row_partial_spearman_is_the_correlation_of_residual_ranks(ties: bool) -> None:
    confounder = random(9, 17, seed=2)
    first, second = random(9, 17) + confounder, random(9, 17, seed=1) - 2 * confounder
    if ties:
        first, second, confounder = first.round(), second.round(), confounder.round()
    expected = [partial(*rows) for rows in zip(first, second, confounder, strict=True)]
    result = row_partial_spearman(first, second, confounder)
    assert result == pytest.approx(expected, abs=1e-12)
    assert np.abs(result - row_spearman(first, second)).min() > 0.01


def test_row_partial_spearman_takes_out_a_common_cause() -> None:
    """Two rows that share nothing but a third: correlated, and not when it is given."""
    cause = random(60, 200, seed=2)
    first, second = cause + random(60, 200), cause + random(60, 200, seed=1)
    assert row_spearman(first, second).mean() > 0.4
    assert abs(row_partial_spearman(first, second, cause).mean()) < 0.03


def test_row_partial_spearman_is_undefined_where_nothing_is_left() -> None:
    """A given row that is constant, or that orders one of the two entirely, either way round."""
    first, second = random(400, 64), random(400, 64, seed=1)
    for confounder in (np.zeros((400, 64)), first, -first, np.exp(second), -(second**3)):
        assert np.isnan(row_partial_spearman(first, second, confounder)).all()
    assert np.isnan(row_partial_spearman(np.zeros((400, 64)), second, first)).all()
    assert row_partial_spearman(first, first, second) == pytest.approx(1, abs=1e-9)
    assert row_partial_spearman(first, -first, second) == pytest.approx(-1, abs=1e-9)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 2**5),
        (5, 0, 2 / 2**5),
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (1, 5, 2 * (1 + 6) / 2**6),
    ],
)
@pytest.mark.parametrize("alike", [0, 4])
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p_value: float, alike: int) -> None:
    first = np.array([True] * only_first + [False] * only_second + [True, False] * alike, bool)
    second = np.array([False] * only_first + [True] * only_second + [True, False] * alike, bool)
    assert mcnemar(first, second) == pytest.approx((only_first, only_second, p_value), rel=1e-12)


def test_mcnemar_of_many_images_is_the_published_normal_test() -> None:
    """Within 5 % of the chi-squared with continuity correction (Edwards 1948)."""
    rng = np.random.default_rng(0)
    first, second = rng.random(4000) < 0.52, rng.random(4000) < 0.5
    result = mcnemar(first, second)
    statistic = (abs(result.only_first - result.only_second) - 1) ** 2 / (result.only_first + result.only_second)
    assert result.p_value == pytest.approx(float(stats.chi2.sf(statistic, 1)), rel=0.05)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never less than the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.4, 0.9, 0.5], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_by_hand(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


def test_holm_rejects_what_the_published_steps_reject() -> None:
    """Holm 1979: from the smallest on, reject while p <= level / (number left); then stop."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = list(rng.random(6) ** 3)
        rejections = set()
        for step, index in enumerate(sorted(range(6), key=p_values.__getitem__)):
            if p_values[index] > 0.05 / (6 - step):
                break
            rejections.add(index)
        assert {index for index, value in enumerate(holm(p_values)) if value <= 0.05} == rejections


def slow_over_seeds(values: list[list[float]]) -> tuple[float, float, float, float]:
    """The same with loops over lists: mean, ends of the interval, p."""

    def mean_and_variance(numbers: list[float]) -> tuple[float, float]:
        mean = sum(numbers) / len(numbers)
        return mean, sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1) / len(numbers)

    def mean(numbers: list[float]) -> float:
        finite = [number for number in numbers if not math.isnan(number)]
        return sum(finite) / len(finite)

    images = [list(image) for image in zip(*values, strict=True) if not all(map(math.isnan, image))]
    middle, of_seeds = mean_and_variance([mean(seed) for seed in values])
    _, of_images = mean_and_variance([mean(image) for image in images])
    variance = of_seeds + of_images
    freedom = variance**2 / (of_seeds**2 / (len(values) - 1) + of_images**2 / (len(images) - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return middle, middle - half, middle + half, float(2 * stats.t.sf(abs(middle) / math.sqrt(variance), freedom))


@pytest.mark.parametrize(("seeds", "images"), [(2, 7), (3, 50), (5, 2)])
def test_over_seeds_is_the_slow_one(seeds: int, images: int) -> None:
    values = random(seeds, images) + 0.3
    values[0, 0] = np.nan
    if images > 7:
        values[:, 3] = np.nan
    result = average_seeds(list(values))
    assert (*result.interval, result.p_value) == pytest.approx(slow_over_seeds(values.tolist()))


def test_over_seeds_that_are_equal_leaves_the_interval_over_images() -> None:
    values = random(40) + 0.2
    interval, p_value = average_seeds([values] * 3)
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert interval == pytest.approx((values.mean(), low, high))
    assert p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_over_seeds_on_images_that_are_equal_leaves_the_interval_over_seeds() -> None:
    means = np.array([0.1, 0.4, 0.3])
    interval, p_value = average_seeds([np.full(25, mean) for mean in means])
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert interval == pytest.approx((means.mean(), low, high))
    assert p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_over_seeds_without_any_variance() -> None:
    assert average_seeds([np.zeros(5)] * 2) == (Interval(0, 0, 0), 1)
    assert average_seeds([np.ones(5)] * 2) == (Interval(1, 1, 1), 0)


def test_over_seeds_of_one_image_has_no_interval() -> None:
    interval, p_value = average_seeds([np.array([0.5]), np.array([1.5])])
    assert interval == pytest.approx((1, np.nan, np.nan), nan_ok=True) and p_value == 1


@pytest.mark.parametrize(
    ("of_seeds", "of_images", "of_both", "highest"),
    [(1.0, 0.1, 0.1, 0.97), (0.05, 1.0, 0.1, 0.98), (0.1, 0.5, 1.0, 0.995), (0.0, 0.0, 1.0, 1.0)],
)
def test_over_seeds_covers_what_it_should(of_seeds: float, of_images: float, of_both: float, highest: float) -> None:
    """At least nominally often; more often where what a seed does to a single image, which counts twice, is large."""
    rng, trials, seeds, images = np.random.default_rng(0), 1000, 3, 60
    hits = 0
    for _ in range(trials):
        values = of_seeds * rng.normal(size=(seeds, 1)) + of_images * rng.normal(size=images)
        _, low, high = average_seeds(list(values + of_both * rng.normal(size=(seeds, images)))).interval
        hits += low < 0 < high
    assert 0.935 < hits / trials <= highest


# --- where intervals and p-values promise too much, as docs/choices.md says


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.127), (3, 0.078)])
def test_over_few_seeds_zero_is_called_different_too_often(seeds: int, share: float) -> None:
    """Where seeds move the mean five times as far as images do, which is about the worst case."""
    rng, images, trials = np.random.default_rng(0), 50, 3000
    of_seeds = rng.normal(scale=5 / np.sqrt(images), size=(trials, seeds, 1))
    values = of_seeds + rng.normal(size=(trials, 1, images))
    p_values = [average_seeds(list(study)).p_value for study in values]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize(("images", "share"), [(3, 0.24), (10, 0.11), (20, 0.07)])
def test_a_bootstrap_of_few_images_misses_too_often(images: int, share: float) -> None:
    draws = np.random.default_rng(0).normal(size=(1000, images))
    intervals = [bootstrap_mean(values, resamples=1000) for values in draws]
    assert np.mean([low > 0 or high < 0 for _, low, high in intervals]) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("blur", "share"), [(0, 0.05), (0.7, 0.14), (1.5, 0.26)])
def test_pages_p_is_too_small_where_maps_are_smooth(blur: float, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(300, 2, 100, 8, 8)), (0, 0, 0, blur, blur)).reshape(300, 2, 100, 64)
    p_values = [page_trend(first, second).p_value for first, second in noise]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(share, abs=0.06)
