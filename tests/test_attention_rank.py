"""Attention against robustness rank: slow loops, and models of which the answer is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from interpret_robust import figures
from interpret_robust.analyses import attention_rank
from interpret_robust.analyses.attention_rank import (
    RankSettings,
    add_noise,
    divide_by_norm,
    rows,
    shuffle_attention,
    sort_attention,
    summarize,
)
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.norms import Linf
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch, make_batch
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.attention import AveragePool
from interpret_robust.models.classifier import measure_positions
from interpret_robust.results import hdf5, writer
from interpret_robust.results.columns import Columns

N, C, H, W = 6, 3, 4, 5
EPS, SEED = 0.1, 4
PER_IMAGE = {column.path for column in attention_rank.SCHEMA.per_image}
Make = Callable[..., Path]


class ByFragility(nn.Module):
    """Attention to position p is in proportion to `offset + slope * fragility`, the first channel of p."""

    def __init__(self, offset: float, slope: float) -> None:
        super().__init__()
        self.offset, self.slope = offset, slope

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        weight = (self.offset + self.slope * local[:, 0]).flatten(1)
        attention = weight / weight.sum(1, keepdim=True)
        return attention, (local.flatten(2) * attention[:, None]).sum(2)


@dataclass(frozen=True)
class Nudge(RankSettings):
    """Moves each position by a tenth of its fragility, which is then its distance."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int]) -> Tensor:
        adversarial = images.clone()
        adversarial[:, 0] -= images[:, 0] / 10
        return adversarial


NUDGE = Nudge(eps=EPS, seed=SEED, spatial_weight="attention")


@pytest.fixture(scope="module")
def models(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoint.Checkpoint]:
    folder = tmp_path_factory.mktemp("models")
    return {name: checkpoint.read(make_checkpoint(folder, name)) for name in ("at-att", "at")}


def known_model(offset: float, slope: float) -> Classifier:
    """A model whose local features are its images."""
    torch.manual_seed(0)
    return Classifier(nn.Identity(), ByFragility(offset, slope), nn.Linear(C, 4)).eval()


def average_model() -> Classifier:
    """The same without attention."""
    torch.manual_seed(0)
    return Classifier(nn.Identity(), AveragePool(), nn.Linear(C, 4)).eval()


def batch(count: int = N) -> Batch:
    images = torch.rand((count, C, H, W), generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(count) % 4, range(count), None)


def split(count: int = N) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, H, W, C), np.uint8)
    return Split(images, np.arange(count) % 4)


def summary(arrays: dict[str, AnyArray]) -> dict[str, Any]:
    return summarize(Columns(arrays), split(len(arrays["per_image/label"])))


def numbers(tensor: Tensor) -> AnyArray:
    values: AnyArray = tensor.detach().numpy().astype(np.float64)
    return values


def generator(index: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([SEED, index, purpose])))


def slow_partial(weights: AnyArray, robustness: AnyArray, norm: AnyArray) -> float:
    """The correlation of what a straight line through the ranks of the norm leaves of the other ranks."""
    left = []
    for values in (weights, robustness):
        line = np.polyfit(stats.rankdata(norm), stats.rankdata(values), 1)
        left.append(stats.rankdata(values) - np.polyval(line, stats.rankdata(norm)))
    return float(np.corrcoef(*left)[0, 1])


def slow_curve(attention: Any, distance: Any) -> AnyArray:
    positions = len(attention[0])
    curve = np.zeros(positions)
    for weights, distances in zip(attention, distance, strict=True):
        for rank, place in enumerate(sorted(range(positions), key=list(distances).__getitem__)):
            curve[rank] += weights[place] / len(attention)
    return curve


def test_position_norm_is_over_channels_with_positions_row_major() -> None:
    local = numbers(batch().images)
    slow = [
        [sum(local[n, c, h, w] ** 2 for c in range(C)) ** 0.5 for h in range(H) for w in range(W)] for n in range(N)
    ]
    np.testing.assert_allclose(measure_positions(batch().images), slow, rtol=1e-6)


def test_relative_distance_is_the_distance_where_there_is_no_norm() -> None:
    distance, norm = np.array([[3.0, 0.0, 2.0, 0.0]]), np.array([[2.0, 4.0, 0.0, 0.0]])
    np.testing.assert_array_equal(divide_by_norm(distance, norm), [[1.5, 0.0, 2.0, 0.0]])


def test_rank_zero_is_the_smallest_distance_and_ties_share_their_ranks() -> None:
    attention = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.125, 0.375]])
    distance = np.array([[9.0, 1.0, 5.0, 0.0], [2.0, 1.0, 2.0, 1.0]])
    means = [[0.4, 0.2, 0.3, 0.1], [0.3125, 0.3125, 0.3125, 0.3125]]
    np.testing.assert_array_equal(sort_attention(attention, distance), means)
    rng = np.random.default_rng(0)
    attention, distance = rng.random((N, 64)).astype(np.float32), rng.integers(0, 9, (N, 64))
    curves = sort_attention(attention, distance)
    slow = [[a[d == step].mean(dtype=float) for step in sorted(d)] for a, d in zip(attention, distance, strict=True)]
    np.testing.assert_array_equal(curves, np.array(slow, np.float32))
    assert curves.dtype == np.float32
    distinct = rng.random((N, 64))  # no ties: the very numbers, in order
    slow = [[a[p] for p in sorted(range(64), key=d.__getitem__)] for a, d in zip(attention, distinct, strict=True)]
    np.testing.assert_array_equal(sort_attention(attention, distinct), np.array(slow))


def test_ranks_shared_by_a_tie_are_the_mean_over_its_orders() -> None:
    """As often as one likes, ties are broken by chance; the mean of the curves is that of shared ranks."""
    rng = np.random.default_rng(0)
    attention, distance = rng.random((1, 6)), np.array([[1.0, 0.0, 1.0, 2.0, 0.0, 1.0]])
    orders = list(permutations(range(6)))
    mean = np.mean([sort_attention(attention[:, o], distance[:, o] + 1e-9 * np.arange(6)) for o in orders], 0)
    np.testing.assert_allclose(sort_attention(attention, distance), mean, rtol=1e-12)


def test_where_no_feature_moves_there_is_nothing_to_rank(tmp_path: Path) -> None:
    """At eps 0 no distance differs: no place of a position in its image makes a number."""
    arrays = {name: values.copy() for name, values in rows(known_model(2.0, -1.0), batch(30), NUDGE).items()}
    zeros = {name: np.zeros_like(arrays[f"per_image/{name}"]) for name in ("distance", "noise_distance")}
    columns = {name: arrays[f"per_image/{name}"] for name in ("attention", "attention_shuffled", "feature_norm")}
    scores = attention_rank.score_images(columns | zeros)
    statistics = summary(arrays | {f"per_image/{name}": values for name, values in (zeros | scores).items()})
    assert np.isnan(statistics["test/slope_ratio"]).all() and np.isnan(statistics["test/spearman"]).all()
    assert (statistics["test/page_more_robust"], statistics["test/page_less_robust"]) == (0.5, 0.5)
    np.testing.assert_allclose(statistics["curve/attention_mean"], 1 / (H * W), rtol=1e-6)
    result = write_result(tmp_path / "x.h5", arrays | {f"per_image/{name}": v for name, v in (zeros | scores).items()})
    assert attention_rank.table_row(result)["attention goes to"] == "nothing to rank"

    mixture = {name: values.copy() for name, values in arrays.items()}
    mixture["per_image/distance"][:4] = 0  # and images that move have the ratio of their own
    rest = {name: values[4:] for name, values in arrays.items()}
    assert summary(mixture)["test/slope_ratio"] == summary(rest)["test/slope_ratio"]


@pytest.mark.parametrize(("positions", "ends"), [(4, 2), (9, 4), (15, 7), (16, 8), (49, 8)])
def test_on_a_small_grid_half_of_the_ranks_are_an_end(positions: int, ends: int) -> None:
    """Attention grows with the rank by the same factor for each image."""
    distance = np.random.default_rng(0).permuted(np.tile(np.arange(positions), (9, 1)), axis=1).astype(float)
    attention = 1.0 + distance
    by_rank = sort_attention(attention, distance)
    ratio = attention_rank._trend(attention, distance, by_rank)["test/slope_ratio"]
    assert ratio.value == pytest.approx((ends + 1) / (2 * positions - ends + 1))


def test_noise_is_uniform_inside_the_ball_and_a_function_of_seed_and_index() -> None:
    images = torch.full((40, C, H, W), 0.5)
    noise = numbers(add_noise(images, Linf(EPS), SEED, range(40)) - images)
    assert np.abs(noise).max() <= EPS + 1e-7
    assert stats.kstest(noise.ravel() / EPS, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    dark = add_noise(torch.zeros_like(images), Linf(EPS), SEED, range(40))
    np.testing.assert_allclose(dark, np.clip(noise, 0, None), atol=1e-7)
    part = numbers(add_noise(images[:3], Linf(EPS), SEED, [7, 2, 30]) - images[:3])
    np.testing.assert_array_equal(part, noise[[7, 2, 30]])
    assert not np.allclose(part, add_noise(images[:3], Linf(EPS), SEED + 1, [7, 2, 30]) - images[:3])
    start = EPS * numbers(per_image_noise(SEED, range(40))(images))
    assert np.abs(np.corrcoef(start.reshape(40, -1), noise.reshape(40, -1))).max() > 0.99  # each with itself
    assert np.abs(np.corrcoef(start.ravel(), noise.ravel())[0, 1]) < 0.1


def test_shuffled_weights_are_the_same_weights_and_a_function_of_seed_and_index() -> None:
    weights = np.random.default_rng(0).random((N, 64))
    permutation = shuffle_attention(weights, SEED, range(N))
    np.testing.assert_array_equal(np.sort(permutation), np.sort(weights))
    assert (permutation != weights).mean() > 0.9
    order = shuffle_attention(np.tile(np.arange(64), (N, 1)), SEED, range(N))
    np.testing.assert_array_equal(permutation, np.take_along_axis(weights, order, axis=1))
    np.testing.assert_array_equal(shuffle_attention(weights[[4, 1]], SEED, [4, 1]), permutation[[4, 1]])
    assert len(np.unique(order, axis=0)) == N
    assert (shuffle_attention(weights, SEED + 1, range(N)) != permutation).mean() > 0.9


def test_rows_are_those_of_a_slow_loop() -> None:
    model, images = known_model(2.0, -1.0), batch().images
    columns = rows(model, batch(), NUDGE)
    adversarial = NUDGE(model, images, torch.zeros(N), range(N))
    with torch.no_grad():
        np.testing.assert_array_equal(columns["per_image/prediction_clean"], model(images).argmax(1))
        np.testing.assert_array_equal(columns["per_image/prediction_adversarial"], model(adversarial).argmax(1))
    for n in range(N):
        noise = generator(n, 1).uniform(-1, 1, (C, H, W))
        noisy = np.clip(numbers(images[n]) + EPS * noise, 0, 1)
        cells, adversarial_cells, noisy_cells = (
            x.reshape(C, -1).T for x in (numbers(images[n]), numbers(adversarial[n]), noisy)
        )
        distance, noise_distance = (
            np.array([float(np.sqrt(((a - b) ** 2).sum())) for a, b in zip(x, cells, strict=True)])
            for x in (adversarial_cells, noisy_cells)
        )
        norm = np.array([float(np.sqrt((a**2).sum())) for a in cells])
        attention, adversarial_attention = (
            np.array([(2 - a[0]) / sum(2 - b[0] for b in x) for a in x]) for x in (cells, adversarial_cells)
        )
        control = attention[generator(n, 2).permutation(H * W)]
        expected = {
            "label": n % 4,
            "attention": attention,
            "attention_adversarial": adversarial_attention,
            "attention_shuffled": control,
            "distance": distance,
            "noise_distance": noise_distance,
            "feature_norm": norm,
            "spearman": 1.0,
            "spearman_relative": stats.spearmanr(attention, -distance / norm).statistic,
            "spearman_partial": slow_partial(attention, -distance, norm),
            "spearman_noise": stats.spearmanr(attention, -noise_distance).statistic,
            "spearman_shuffled": stats.spearmanr(control, -distance).statistic,
            "entropy": -sum(a * math.log(a) for a in attention),
            "effective_positions": 1 / sum(a * a for a in attention),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(columns[f"per_image/{name}"][n], values, rtol=3e-6, atol=1e-6, err_msg=name)
    assert columns.keys() == PER_IMAGE
    assert len(PER_IMAGE) == len(expected) + 2


def test_grad_cam_after_average_pooling_is_the_class_activation_map() -> None:
    """Selvaraju et al. 2017: where the head is a mean, Grad-CAM is CAM, relu(sum over channels of w_kc F_cp)."""
    model, settings = average_model(), replace(NUDGE, spatial_weight="grad-cam")
    adversarial = NUDGE(model, batch().images, torch.zeros(N), range(N))
    columns = rows(model, batch(), settings)
    assert columns.keys() == PER_IMAGE
    weight = numbers(model.classifier.weight)
    for name, images in (("attention", batch().images), ("attention_adversarial", adversarial)):
        for n, local in enumerate(numbers(images)):
            winner = int(model(images[n : n + 1]).argmax())
            cam = [
                max(0, sum(weight[winner, c] * local[c, h, w] for c in range(C))) for h in range(H) for w in range(W)
            ]
            expected = np.array(cam) / sum(cam) if sum(cam) else np.full(H * W, np.nan)
            np.testing.assert_allclose(columns[f"per_image/{name}"][n], expected, atol=1e-6, err_msg=name)
    assert np.isfinite(columns["per_image/attention"]).all(1).sum() >= 2


@pytest.mark.parametrize("name", ["at-att", "at"])
def test_rows_leave_the_model_and_all_random_states_as_they_are(
    models: dict[str, checkpoint.Checkpoint], digits: Dataset, name: str
) -> None:
    model = models[name].model(torch.device("cpu"))
    model.classifier.bias.requires_grad_(False)
    settings = RankSettings(eps=EPS, steps=2).resolve(models[name].job)
    batch = make_batch(digits.test, range(3), torch.device("cpu"))
    images, modes = batch.images.clone(), [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    np.random.seed(5)
    rows(model, batch, settings)
    came = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    assert came == (torch.rand(1), np.random.rand())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(batch.images, images) and not batch.images.requires_grad


@pytest.mark.parametrize(("offset", "slope", "sign"), [(2.0, -1.0, 1), (1.0, 1.0, -1)])
def test_attention_that_follows_robustness_is_found_with_its_sign(offset: float, slope: float, sign: int) -> None:
    statistics = summary(rows(known_model(offset, slope), batch(30), NUDGE))
    assert tuple(statistics["test/spearman"]) == pytest.approx((sign, sign, sign), abs=1e-12)
    assert statistics["test/spearman_positive"].value == (sign + 1) / 2
    robust, fragile = statistics["test/page_more_robust"], statistics["test/page_less_robust"]
    assert (robust, fragile)[:: int(sign)] == pytest.approx((0, 1), abs=1e-12)
    assert np.all(sign * np.diff(statistics["curve/attention_mean"]) < 0)
    assert (
        sign * math.log(statistics["test/slope_ratio"].low) > 0
        and sign * math.log(statistics["test/slope_ratio"].high) > 0
    )
    assert abs(statistics["test/spearman_shuffled"].value) < 0.15
    assert statistics["test/undefined"] == 0
    assert statistics["curve/uniform"] == 1 / (H * W)


def test_a_position_prior_is_told_from_attention_to_each_image() -> None:
    """Attention that is the same map everywhere is its own position null; that of fragility alone has none."""
    arrays = rows(known_model(2.0, -1.0), batch(30), NUDGE)
    statistics = summary(arrays)
    assert abs(statistics["test/spearman_position"].value) < 0.5 < statistics["test/spearman"].value
    tiles = np.tile(arrays["per_image/attention"][:1], (30, 1))
    spearman = [stats.spearmanr(*pair).statistic for pair in zip(tiles, -arrays["per_image/distance"], strict=True)]
    prior = summary(arrays | {"per_image/attention": tiles, "per_image/spearman": np.array(spearman)})
    assert prior["test/spearman_position"] == pytest.approx(prior["test/spearman"], abs=1e-12)
    np.testing.assert_allclose(prior["curve/position_null"][:, 0], prior["curve/attention_mean"])


def test_an_image_is_no_part_of_its_own_position_null() -> None:
    """Of few images without a shared preference, the mean map would resemble each, had it a part in it."""
    arrays = rows(known_model(2.0, -1.0), batch(4), NUDGE)
    attention, robustness = arrays["per_image/attention"], -arrays["per_image/distance"]
    with_own = np.broadcast_to(attention.mean(0), attention.shape)
    values = [stats.spearmanr(*pair).statistic for pair in zip(with_own, robustness, strict=True)]
    statistics = summary(arrays)
    assert statistics["test/spearman_position"].value < 0.1
    assert np.mean(values) > 0.3
    alone = summary({name: column[:1] for name, column in arrays.items()})
    assert np.isnan(alone["test/spearman_position"]).all() and np.isnan(alone["curve/position_null"]).all()
    assert np.isfinite(alone["test/spearman"].value)


def test_constant_attention_has_no_correlation_and_is_counted() -> None:
    arrays = rows(known_model(1.0, 0.0), batch(30), NUDGE)
    statistics = summary(arrays)
    for name in (*attention_rank.MEASURES, "spearman_position", "spearman_shuffled", "spearman_positive"):
        assert np.isnan(statistics[f"test/{name}"]).all(), name
    assert (statistics["test/undefined"], statistics["curve/images"]) == (30, 30)
    assert (statistics["test/page_more_robust"], statistics["test/page_less_robust"]) == (0.5, 0.5)
    np.testing.assert_allclose(statistics["curve/attention_mean"], 1 / (H * W), rtol=1e-6)
    assert statistics["test/slope_ratio"] == pytest.approx((1, 1, 1), abs=1e-6)
    assert statistics["test/entropy"].value == pytest.approx(math.log(H * W), abs=1e-6)
    assert statistics["test/effective_positions"].value == pytest.approx(H * W, abs=1e-4)

    mixture = {name: values.copy() for name, values in rows(known_model(2.0, -1.0), batch(30), NUDGE).items()}
    for name in ("per_image/attention", "per_image/spearman"):
        mixture[name][:4] = arrays[name][:4]
    statistics = summary(mixture)
    assert (statistics["test/undefined"], statistics["test/spearman"].value) == (4, 1)


def test_images_without_weights_are_counted_and_poison_nothing() -> None:
    arrays = {name: values.copy() for name, values in rows(known_model(2.0, -1.0), batch(30), NUDGE).items()}
    holes = [2, 11, 29]
    for name in PER_IMAGE:
        if any(word in name for word in ("attention", "spearman", "entropy", "effective")):
            arrays[name][holes] = np.nan
    statistics, rest = (
        summary(columns) for columns in (arrays, {name: np.delete(arrays[name], holes, 0) for name in PER_IMAGE})
    )
    assert (statistics.pop("test/undefined"), rest.pop("test/undefined")) == (3, 0)
    assert statistics["curve/images"] == 27
    assert statistics.keys() == rest.keys()
    for name, values in rest.items():
        np.testing.assert_array_equal(statistics[name], values, err_msg=name)

    empty = {
        name: np.full_like(values, np.nan) if np.isnan(values).any() else values for name, values in arrays.items()
    }
    statistics = summary(empty)
    assert (statistics["test/undefined"], statistics["curve/images"], statistics["curve/attack_failed_images"]) == (
        30,
        0,
        0,
    )
    assert np.isnan(statistics["curve/attention_mean"]).all() and np.isnan(statistics["test/slope_ratio"]).all()
    assert np.isnan([statistics["test/page_more_robust"], statistics["test/page_less_robust"]]).all()


def test_the_curve_is_split_by_what_the_attack_did() -> None:
    arrays = rows(known_model(2.0, -1.0), batch(30), NUDGE)
    label = arrays["per_image/label"]
    clean, adversarial = label.copy(), label.copy()
    clean[:5] += 1  # wrong from the start
    adversarial[3:12] += 1
    columns = arrays | {"per_image/prediction_clean": clean, "per_image/prediction_adversarial": adversarial}
    statistics = summary(columns)
    assert (statistics["curve/attack_succeeded_images"], statistics["curve/attack_failed_images"]) == (7, 18)
    for outcome, part in (("succeeded", slice(5, 12)), ("failed", slice(12, None))):
        slow = slow_curve(arrays["per_image/attention"][part], arrays["per_image/distance"][part])
        value, low, high = statistics[f"curve/attack_{outcome}"].T
        np.testing.assert_allclose(value, slow, rtol=1e-6)
        assert np.all((low <= value) & (value <= high)) and np.all(low < high)
    never = summary(columns | {"per_image/prediction_adversarial": label})
    assert never["curve/attack_succeeded_images"] == 0 and np.isnan(never["curve/attack_succeeded"]).all()


@pytest.mark.parametrize(
    ("offset", "slope", "text", "images"), [(2.0, -1.0, "1.00 [1.00, 1.00]", "30"), (1.0, 0.0, "-", "0 of 30")]
)
def test_the_table_prints_the_controls_beside_the_correlation(
    tmp_path: Path, offset: float, slope: float, text: str, images: str
) -> None:
    result = write_result(tmp_path / "x.h5", rows(known_model(offset, slope), batch(30), NUDGE))
    row = attention_rank.table_row(result)
    endings = {"Spearman": "", "relative": "_relative", "given norm": "_partial", "under noise": "_noise"}
    for heading, end in (endings | {"mean map": "_position"}).items():
        interval = result[f"test/spearman{end}"]
        assert row[heading] == ("-" if np.isnan(interval[0]) else "{:.2f} [{:.2f}, {:.2f}]".format(*interval))
    # The noise knows nothing of fragility, so that not even attention to robust features alone is called so.
    assert (row["Spearman"], row["attention goes to"], row["images"]) == (text, "cannot tell", images)
    assert row["effective positions"] == f"{result['test/effective_positions'][0]:.1f} of 20"


class Statistics(dict[str, Any]):
    """What a file of so many images holds."""

    count = 25


CORRELATIONS = ("spearman", "spearman_relative", "spearman_partial", "spearman_noise")
NEGATIVE = dict.fromkeys(CORRELATIONS, (-0.4, -0.5, -0.3))


@pytest.mark.parametrize(
    ("changes", "page", "direction"),
    [
        ({}, (0.01, 0.99), "more robust features"),
        ({}, (0.06, 0.94), "cannot tell"),
        (NEGATIVE, (0.99, 0.01), "less robust features"),
        (NEGATIVE, (0.01, 0.99), "cannot tell"),
        *(({name: (0.1, -0.01, 0.3)}, (0.01, 0.99), "cannot tell") for name in CORRELATIONS),
        *((NEGATIVE | {name: (-0.1, -0.3, 0.01)}, (0.99, 0.01), "cannot tell") for name in CORRELATIONS),
        *(({name: (np.nan,) * 3}, (0.01, 0.99), "cannot tell") for name in CORRELATIONS),
        ({"undefined": 5}, (0.01, 0.99), "more robust features"),
        ({"undefined": 6}, (0.01, 0.99), "cannot tell"),
    ],
)
def test_a_direction_is_named_where_all_measures_agree(
    changes: dict[str, Any], page: tuple[float, float], direction: str
) -> None:
    values = dict.fromkeys(CORRELATIONS, (0.4, 0.3, 0.5)) | {"undefined": 0} | changes
    values |= {"page_more_robust": page[0], "page_less_robust": page[1]}
    statistics: Any = Statistics({f"test/{name}": value for name, value in values.items()})
    assert attention_rank.judge_direction(statistics) == direction


def write_result(path: Path, arrays: dict[str, AnyArray]) -> hdf5.Result:
    schema, count = attention_rank.SCHEMA, len(arrays["per_image/label"])
    axes: dict[str, Any] = {"position": H * W, "y": H, "x": W, "color": C}
    examples = attention_rank.examples(Columns(arrays), split(count), NUDGE)
    with writer.open_rows(path, schema, count, axes, {}, {}) as file:
        file.append(arrays)
        file.finish(summary(arrays) | examples, {})
    return hdf5.read(path, schema.label)


def test_weights_are_attention_or_else_grad_cam() -> None:
    with_attention: dict[str, Any] = {"variant": "at-att", "recipe": {"eps": EPS}}
    without_attention = with_attention | {"variant": "at"}
    assert RankSettings().resolve(with_attention) == RankSettings(EPS, EPS / 4, norm="linf", spatial_weight="attention")
    assert RankSettings().resolve(without_attention) == RankSettings(
        EPS, EPS / 4, norm="linf", spatial_weight="grad-cam"
    )
    assert RankSettings(spatial_weight="grad-cam").resolve(with_attention).spatial_weight == "grad-cam"
    with pytest.raises(UserError, match="'at' has no attention: use --spatial-weight grad-cam"):
        RankSettings(spatial_weight="attention").resolve(without_attention)


def work(model: checkpoint.Checkpoint, digits: Dataset, folder: Path, batch_size: int = 16) -> Work:
    plain: dict[str, Any] = {"split": "test", "limit": None, "device": torch.device("cpu"), "batch_size": batch_size}
    return Work(attention_rank.ANALYSIS, model, digits, folder, settings=RankSettings(eps=8 / 255, steps=2), **plain)


@pytest.fixture(scope="module")
def result_paths(
    digits: Dataset, models: dict[str, checkpoint.Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return {name: work(models[name], digits, folder).run() for name in models}


@pytest.fixture(scope="module", params=["at-att", "at"])
def result_path(request: pytest.FixtureRequest, result_paths: dict[str, Path]) -> Path:
    return result_paths[request.param]


def test_the_file_says_whose_weights_it_holds(result_path: Path) -> None:
    config = hdf5.read(result_path).config
    expected = {"at-att": "attention", "at": "grad-cam"}[config["checkpoint"]["job"]["variant"]]
    assert config["settings"]["spatial_weight"] == expected
    assert result_path.name.endswith("-test-eps0.03137.h5") or result_path.name.endswith("-test-steps2.h5")


def test_the_statistics_follow_from_the_stored_rows(result_path: Path, digits: Dataset) -> None:
    result = hdf5.read(result_path, attention_rank.SCHEMA.label)
    columns = Columns({path: result[path] for path in PER_IMAGE})
    statistics = summarize(columns, digits.test) | attention_rank.examples(columns, digits.test, RankSettings())
    assert statistics.keys() == {column.path for column in attention_rank.SCHEMA.summary}
    for name, values in statistics.items():
        np.testing.assert_array_equal(result[name], values, err_msg=name)


def test_every_stored_curve_is_a_slow_double_loop(result_path: Path) -> None:
    result = hdf5.read(result_path)
    weights, distances, norm, noise, control = (
        result[f"per_image/{name}"].astype(np.float64)
        for name in ("attention", "distance", "feature_norm", "noise_distance", "attention_shuffled")
    )
    finite = np.isfinite(weights).all(1)
    weights, distances, norm, noise, control = (array[finite] for array in (weights, distances, norm, noise, control))
    assert result["curve/images"] == finite.sum() > 30
    maps_by_image = [np.delete(weights, image, axis=0) for image in range(len(weights))]
    prior = [[sum(maps[:, place]) / len(maps) for place in range(64)] for maps in maps_by_image]
    expected = {
        "relative": slow_curve(weights, distances / norm),
        "noise": slow_curve(weights, noise),
        "position_null": slow_curve(prior, distances),
        "shuffled_null": slow_curve(control, distances),
    }
    paper = slow_curve(weights, distances)
    np.testing.assert_allclose(result["curve/attention_mean"], paper, rtol=1e-9)
    np.testing.assert_array_equal(result["rank"], range(64))
    assert np.all(result["curve/attention_low"] <= paper) and np.all(paper <= result["curve/attention_high"])
    for name, curve in expected.items():
        value, low, high = result[f"curve/{name}"].T
        np.testing.assert_allclose(value, curve, rtol=1e-6, err_msg=name)
        assert np.all((low <= value + 1e-12) & (value <= high + 1e-12)), name
    position = [stats.spearmanr(*pair).statistic for pair in zip(prior, -distances, strict=True)]
    assert result["test/spearman_position"][0] == pytest.approx(np.mean(position), abs=1e-6)
    ratio = paper[:8].mean() / paper[-8:].mean()
    value, low, high = result["test/slope_ratio"]
    assert value == pytest.approx(ratio, rel=1e-6) and low < ratio < high


def test_stored_correlations_are_scipys(result_path: Path) -> None:
    result = hdf5.read(result_path)
    weights, distances, norm, noise, control = (
        result[f"per_image/{name}"]
        for name in ("attention", "distance", "feature_norm", "noise_distance", "attention_shuffled")
    )
    finite = np.isfinite(weights).all(1)
    for name, first, distance in (
        ("spearman", weights, distances),
        ("spearman_relative", weights, distances / norm),
        ("spearman_noise", weights, noise),
        ("spearman_shuffled", control, distances),
    ):
        expected = [stats.spearmanr(a, -d).statistic for a, d in zip(first[finite], distance[finite], strict=True)]
        np.testing.assert_allclose(result[f"per_image/{name}"][finite], expected, atol=1e-6)
        assert result[f"test/{name}"][0] == pytest.approx(np.mean(expected), abs=1e-6)
        assert result[f"test/{name}"][1] < np.mean(expected) < result[f"test/{name}"][2]
    partial = [slow_partial(*row) for row in zip(weights[finite], -distances[finite], norm[finite], strict=True)]
    np.testing.assert_allclose(result["per_image/spearman_partial"][finite], partial, atol=1e-5)
    assert result["test/spearman_partial"][0] == pytest.approx(np.mean(partial), abs=1e-5)
    correlations = result["per_image/spearman"][finite]
    assert result["test/spearman_positive"][0] == (correlations > 0).mean()
    assert result["test/undefined"] == (~finite).sum()


def test_examples_are_the_first_image_of_each_class(result_path: Path, digits: Dataset) -> None:
    result = hdf5.read(result_path)
    labels = digits.test.labels.tolist()
    index: Any = result["examples/index"]
    assert index.tolist() == [labels.index(label) for label in range(10)]
    np.testing.assert_array_equal(result["examples/image"], digits.test.images[index])
    np.testing.assert_array_equal(result["examples/attention"], result["per_image/attention"][index])
    np.testing.assert_array_equal(result["examples/spearman"], result["per_image/spearman"][index])


def test_rows_do_not_depend_on_the_batch_size(
    result_path: Path, models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    expected = hdf5.read(result_path)
    model = models[expected.config["checkpoint"]["job"]["variant"]]
    other = hdf5.read(work(model, digits, tmp_path, batch_size=7).run())
    for path in PER_IMAGE:
        values = expected[path]
        tolerance = 0 if values.dtype.kind == "i" else 2e-3 if "spearman" in path or "effective" in path else 1e-4
        np.testing.assert_allclose(other[path], values, rtol=0, atol=tolerance, err_msg=path)


def test_a_stopped_run_goes_on_to_the_same_file(
    result_path: Path, models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    model = models[hdf5.read(result_path).config["checkpoint"]["job"]["variant"]]
    starts = []

    def fail_second(model: Classifier, batch: Batch, settings: RankSettings) -> dict[str, AnyArray]:
        starts.append(batch.indices.start)
        if len(starts) == 2:
            raise RuntimeError("as a crash would")
        return rows(model, batch, settings)

    first_run = work(model, digits, tmp_path)
    first_run.analysis = replace(first_run.analysis, rows=fail_second)
    with pytest.raises(RuntimeError, match="crash"):
        first_run.run()
    second_run = work(model, digits, tmp_path)
    second_run.analysis = replace(second_run.analysis, rows=fail_second)
    second_run.run()
    assert starts == [0, 16, 16, 32]
    assert hdf5.attributes(second_run.path)["content_sha256"] == hdf5.attributes(result_path)["content_sha256"]


def test_grad_cam_is_drawn_beside_attention_on_scales_of_its_own(result_paths: dict[str, Path]) -> None:
    attentive, other = (hdf5.read(result_paths[name]) for name in ("at-att", "at"))
    plots = {name: draw([other, attentive]).figure for name, draw in figures.list_plots("attention-rank").items()}
    assert list(plots) == ["curve", "correlations", "outcomes", "maps"]
    (attention, grad_cam), spread = plots["curve"].axes, plots["correlations"].axes[0]
    for axes, result, name in ((attention, attentive, "at-att seed 0"), (grad_cam, other, "at seed 0, Grad-CAM")):
        assert [line.get_label() for line in axes.lines] == [name, "uniform"]
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), result["curve/attention_mean"])
    assert [text.get_text() for text in spread.get_yticklabels()] == ["at seed 0, Grad-CAM", "at-att seed 0"]
    maps = [axes.images[-1] for axes in plots["maps"].axes if axes.images][1:]
    for image, result in zip(maps, (attentive, other), strict=True):
        assert image.get_clim() == (0, pytest.approx(np.nanpercentile(result["examples/attention"], 99)))
    bars = [axes for axes in plots["maps"].axes if "line: uniform" in axes.get_xlabel()]
    assert [axes.get_xlabel().split("\n")[0] for axes in bars] == ["attention", "Grad-CAM"]
    assert [axes.lines[0].get_xdata()[0] for axes in bars] == [1 / 64] * 2
