"""Scale rules: examples worked out by hand, slow loops, and what each rule must not see."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import Array, array
from torch import Tensor

from interpret_robust.attribution.scale_rules import (
    RULES,
    as_image,
    find_degenerate,
    measure_deviation,
    pool_deviations,
    scale_maps,
    sum_moments,
)

N, C, H, W = 5, 3, 4, 6
PER_IMAGE = [rule for rule in RULES if rule != "clip-set"]


def maps(seed: int = 0, count: int = N) -> Tensor:
    """Signed maps of very different sizes, with heavy tails and a mean."""
    random = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.arange(-2, count - 2)[:, None, None, None]
    return sizes * (torch.randn((count, C, H, W), generator=random) ** 3 + 0.3)


def slow(entries: list[float], rule: str, set_deviation: float) -> list[float]:
    """A rule on the entries of one map, as `as_image` says it."""
    mean = sum(entries) / len(entries)
    sd = math.sqrt(sum((entry - mean) ** 2 for entry in entries) / len(entries))
    low, high, largest = min(entries), max(entries), max(map(abs, entries))
    bound = {"clip": 3 * sd, "clip-set": 3 * set_deviation, "max": largest}.get(rule)
    if bound is None:
        return [(entry - low) / (high - low) for entry in entries]
    return [0.5 + max(-bound, min(bound, entry)) / (2 * bound) for entry in entries]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_a_slow_loop(rule: Any) -> None:
    images = as_image(maps(), rule, 0.7)
    expected = [slow(values.ravel().tolist(), rule, 0.7) for values in array(maps())]
    np.testing.assert_allclose(images.flatten(1), expected, atol=1e-5)


def row(*entries: float) -> Tensor:
    return torch.tensor(entries)[None, None, None]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # The standard deviation of (-4, 0, 0, 4) is sqrt(8), and three of that 8.485.
        ("clip", [0.264298, 0.5, 0.5, 0.735702]),
        ("clip-set", [0.0, 0.5, 0.5, 1.0]),
        ("max", [0.0, 0.5, 0.5, 1.0]),
        ("min-max", [0.0, 0.5, 0.5, 1.0]),
    ],
)
def test_a_symmetric_map_by_hand(rule: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(as_image(row(-4, 0, 0, 4), rule, 1.0).flatten(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Mean 1, standard deviation sqrt(3.5), three of that 5.612: zero stays gray although it is not the mean.
        ("clip", [0.410913, 0.5, 0.589087, 0.856348]),
        ("clip-set", [1 / 3, 0.5, 2 / 3, 1.0]),
        ("max", [0.375, 0.5, 0.625, 1.0]),
        ("min-max", [0.0, 0.2, 0.4, 1.0]),
    ],
)
def test_a_lopsided_map_by_hand(rule: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(as_image(row(-1, 0, 1, 4), rule, 1.0).flatten(), expected, atol=1e-6)


def test_one_large_pixel_does_not_gray_out_a_clipped_map() -> None:
    """The rest uses most of the range, and the raw rules leave it nothing: why the paper clips."""
    random = torch.Generator().manual_seed(0)
    outlier = torch.randn((1, 3, 32, 32), generator=random)
    outlier[0, 1, 2, 3] = 100.0
    rest = torch.ones(outlier.shape, dtype=torch.bool)
    rest[0, 1, 2, 3] = False
    image = as_image(outlier, "clip", math.nan)
    assert float(image[0, 1, 2, 3]) == 1.0
    assert float(image[rest].max()) > 0.75 and float(image[rest].min()) < 0.25
    for rule in ("max", "min-max"):
        raw = as_image(outlier, rule, math.nan)[rest]
        assert float(raw.max() - raw.min()) < 0.09


def test_clipped_entries_are_those_beyond_three_deviations() -> None:
    entries = array(maps())
    extremes = np.abs(entries) >= 3 * entries.std((1, 2, 3), keepdims=True)
    images = as_image(maps(), "clip", math.nan)
    np.testing.assert_array_equal((images == 0) | (images == 1), extremes)
    assert 0 < extremes.sum() < entries.size / 10


@pytest.mark.parametrize("rule", PER_IMAGE)
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 17.0, 1e30])
def test_a_rule_of_a_single_map_does_not_see_its_size(rule: Any, factor: float) -> None:
    """Squares of 1e-30 and of 1e30 are beyond float32."""
    torch.testing.assert_close(as_image(factor * maps(), rule, 0.0), as_image(maps(), rule, 0.0), rtol=0, atol=1e-5)


def test_the_rule_of_the_set_sees_the_size() -> None:
    contrast = [(as_image(factor * maps(), "clip-set", 1.0) - 0.5).abs().mean() for factor in (0.01, 0.1, 1.0)]
    assert contrast[0] < contrast[1] < contrast[2]
    torch.testing.assert_close(as_image(9 * maps(), "clip-set", 9.0), as_image(maps(), "clip-set", 1.0))


@pytest.mark.parametrize("rule", RULES)
def test_the_other_sign_is_the_negative(rule: Any) -> None:
    positive, negative = as_image(maps(), rule, 0.7), as_image(-maps(), rule, 0.7)
    torch.testing.assert_close(negative, 1 - positive, rtol=0, atol=1e-6)
    assert not torch.allclose(negative, positive, atol=0.1)


@pytest.mark.parametrize("rule", RULES)
def test_a_map_is_not_changed_by_the_others(rule: Any) -> None:
    whole = as_image(maps(), rule, 0.7)
    for place in range(N):
        torch.testing.assert_close(as_image(maps()[place : place + 1], rule, 0.7), whole[place : place + 1])


@pytest.mark.parametrize("rule", RULES)
def test_images_lie_in_the_unit_interval_and_raw_ones_reach_its_ends(rule: Any) -> None:
    images = as_image(maps(), rule, 0.7).flatten(1)
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    if rule == "max":
        assert ((images == 0) | (images == 1)).sum(1).tolist() == [1] * N
    if rule == "min-max":
        assert ((images == 0).sum(1) == 1).all() and ((images == 1).sum(1) == 1).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_zero_map_is_gray_and_degenerate(rule: Any) -> None:
    batch = maps()
    batch[[1, 3]] = 0
    assert find_degenerate(batch).tolist() == [False, True, False, True, False]
    images = as_image(batch, rule, 0.7)
    assert (images[[1, 3]] == 0.5).all()
    torch.testing.assert_close(images[[0, 2, 4]], as_image(maps()[[0, 2, 4]], rule, 0.7))
    assert (as_image(torch.zeros(2, C, H, W), rule, 0.0) == 0.5).all()


def test_a_constant_map_is_gray_where_only_its_spread_would_show() -> None:
    constant = torch.full((1, C, H, W), 0.1)
    assert find_degenerate(constant).tolist() == [False]
    shades = {rule: set(as_image(constant, rule, 0.0).flatten().tolist()) for rule in RULES}
    assert shades == {"clip": {0.5}, "clip-set": {0.5}, "max": {1.0}, "min-max": {0.5}}


def test_a_map_is_its_largest_magnitude_times_its_normalized_form() -> None:
    batch = maps()
    batch[2] = 0
    unit, largest = scale_maps(batch)
    np.testing.assert_allclose(largest, np.abs(array(batch)).max((1, 2, 3)), rtol=1e-6)
    torch.testing.assert_close(unit * largest[:, None, None, None], batch)
    assert unit.abs().flatten(1).amax(1).tolist() == [1, 1, 0, 1, 1]
    np.testing.assert_allclose(measure_deviation(batch), array(batch).std((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("sizes", [(5,), (2, 3), (1, 1, 1, 1, 1)])
def test_the_pooled_deviation_is_that_of_all_entries_however_they_come(sizes: tuple[int, ...]) -> None:
    entries: Array = array(maps())
    result = pool_deviations(map(sum_moments, torch.split(maps(), list(sizes))))
    assert result == pytest.approx(entries.std(), rel=1e-12)
    assert result != pytest.approx(entries.std((1, 2, 3)).mean(), rel=0.1)


def test_the_pooled_deviation_of_equal_entries_is_zero() -> None:
    assert pool_deviations(sum_moments(torch.full((count, C, H, W), 0.1)) for count in (2, 1)) == pytest.approx(
        0, abs=1e-8
    )
