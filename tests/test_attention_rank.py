"""Attention against robustness rank: slow loops, and models of which the answer is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from interpret_robust import results
from interpret_robust.analyses import attention_rank
from interpret_robust.analyses.attention_rank import (
    attention_by_rank,
    object_positions,
    position_norm,
    relative,
    rows,
    summarise,
)
from interpret_robust.attacks import AttackSettings
from interpret_robust.datasets import Dataset, Split
from interpret_robust.models import Classifier
from interpret_robust.results import AnyArray
from interpret_robust.streaming import Batch, Work
from interpret_robust.training import checkpoint

N, C, H, W = 6, 3, 4, 5


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
class Nudge(AttackSettings):
    """Moves each position by a tenth of its fragility, which is then its distance."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int]) -> Tensor:
        moved = images.clone()
        moved[:, 0] += images[:, 0] / 10
        return moved


def known_model(offset: float, slope: float) -> Classifier:
    """A model whose local features are its images."""
    torch.manual_seed(0)
    return Classifier(nn.Identity(), ByFragility(offset, slope), C, 4).eval()


def batch(count: int = N, masks: AnyArray | None = None) -> Batch:
    images = torch.rand((count, C, H, W), generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(count) % 4, range(count), masks)


def split(count: int = N) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, H, W, C), np.uint8)
    return Split(images, np.arange(count) % 4)


def numbers(tensor: Tensor) -> AnyArray:
    values: AnyArray = tensor.detach().numpy().astype(np.float64)
    return values


def test_position_norm_is_over_channels_with_positions_row_major() -> None:
    local = numbers(batch().images)
    slow = [
        [sum(local[n, c, h, w] ** 2 for c in range(C)) ** 0.5 for h in range(H) for w in range(W)] for n in range(N)
    ]
    np.testing.assert_allclose(position_norm(batch().images), slow, rtol=1e-6)


def test_relative_distance_is_the_distance_where_there_is_no_norm() -> None:
    distance, norm = np.array([[3.0, 0.0, 2.0, 0.0]]), np.array([[2.0, 4.0, 0.0, 0.0]])
    np.testing.assert_array_equal(relative(distance, norm), [[1.5, 0.0, 2.0, 0.0]])


def test_rank_zero_is_the_smallest_distance_and_ties_keep_their_order() -> None:
    attention = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    distance = np.array([[9.0, 1.0, 5.0, 0.0], [2.0, 1.0, 2.0, 1.0]])
    np.testing.assert_array_equal(attention_by_rank(attention, distance), [[0.4, 0.2, 0.3, 0.1], [0.3, 0.1, 0.4, 0.2]])
    rng = np.random.default_rng(0)
    attention, distance = rng.random((N, 64)), rng.integers(0, 9, (N, 64))
    slow = [[a[p] for p in sorted(range(64), key=d.__getitem__)] for a, d in zip(attention, distance, strict=True)]
    np.testing.assert_array_equal(attention_by_rank(attention, distance), slow)


def test_a_position_is_on_the_object_where_the_mask_covers_a_quarter_of_it() -> None:
    grid, cell = (2, 3), (4, 2)
    masks = np.random.default_rng(0).random((N, 2 * 4, 3 * 2)) < 0.25
    masks[0] = False
    masks[0, 4:6, 4:5] = True  # two of the eight pixels of the last position: a quarter
    masks[0, 0, 2] = True  # one of the eight
    slow = np.zeros((N, 6), bool)
    for n in range(N):
        for row in range(grid[0]):
            for column in range(grid[1]):
                pixels = [masks[n, row * 4 + i, column * 2 + j] for i in range(cell[0]) for j in range(cell[1])]
                slow[n, row * 3 + column] = sum(pixels) >= 2
    np.testing.assert_array_equal(object_positions(masks, grid), slow)
    np.testing.assert_array_equal(slow[0], [False, False, False, False, False, True])
    assert 0.2 < slow[1:].mean() < 0.8


def test_rows_are_those_of_a_slow_loop() -> None:
    model, masks = known_model(2.0, -1.0), np.random.default_rng(0).random((N, 2 * H, 3 * W)) < 0.3
    images = batch().images
    found = rows(model, batch(masks=masks), Nudge())
    moved = Nudge()(model, images, torch.zeros(N), range(N))
    with torch.no_grad():
        np.testing.assert_array_equal(found["per_image/prediction_clean"], model(images).argmax(1))
        np.testing.assert_array_equal(found["per_image/prediction_adversarial"], model(moved).argmax(1))
    inside = object_positions(masks, (H, W))
    for n in range(N):
        cells, after = (numbers(x[n]).reshape(C, -1).T for x in (images, moved))
        distance = [float(np.sqrt(((a - b) ** 2).sum())) for a, b in zip(after, cells, strict=True)]
        norm = [float(np.sqrt((a**2).sum())) for a in cells]
        attention, attacked = ([(2 - a[0]) / sum(2 - b[0] for b in x) for a in x] for x in (cells, after))
        expected = {
            "label": n % 4,
            "attention": attention,
            "attention_adversarial": attacked,
            "distance": distance,
            "feature_norm": norm,
            "spearman": 1.0,
            "spearman_relative": -stats.spearmanr(attention, [d / m for d, m in zip(distance, norm, strict=True)])[0],
            "attention_on_object": sum(a for a, on in zip(attention, inside[n], strict=True) if on),
            "object_area": inside[n].mean(),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(found[f"per_image/{name}"][n], values, rtol=2e-6, atol=1e-7, err_msg=name)
    assert found.keys() == {column.path for column in attention_rank.SCHEMA.per_image}


@pytest.mark.parametrize(("offset", "slope", "sign"), [(2.0, -1.0, 1), (1.0, 1.0, -1)])
def test_attention_that_follows_robustness_is_found_with_its_sign(offset: float, slope: float, sign: int) -> None:
    found = summarise(rows(known_model(offset, slope), batch(30), Nudge()), split(30))
    assert tuple(found["test/spearman"]) == pytest.approx((sign, sign, sign), abs=1e-12)
    more, less = found["test/page_more_robust"], found["test/page_less_robust"]
    assert (more, less)[:: int(sign)] == pytest.approx((0, 1), abs=1e-12)
    assert np.all(sign * np.diff(found["curve/attention_mean"]) < 0)
    assert found["test/undefined"] == 0
    assert found["curve/uniform"] == 1 / (H * W)


def test_constant_attention_has_no_correlation_and_is_counted() -> None:
    arrays = rows(known_model(1.0, 0.0), batch(30), Nudge())
    found = summarise(arrays, split(30))
    assert np.isnan([found["test/spearman"], found["test/spearman_relative"]]).all()
    assert found["test/undefined"] == 30
    assert (found["test/page_more_robust"], found["test/page_less_robust"]) == (0.5, 0.5)
    np.testing.assert_allclose(found["curve/attention_mean"], 1 / (H * W), rtol=1e-6)

    some = {name: values.copy() for name, values in rows(known_model(2.0, -1.0), batch(30), Nudge()).items()}
    for name in ("per_image/attention", "per_image/spearman"):
        some[name][:4] = arrays[name][:4]
    found = summarise(some, split(30))
    assert (found["test/undefined"], found["test/spearman"].value) == (4, 1)


def test_without_masks_attention_on_the_object_is_unknown() -> None:
    found = summarise(rows(known_model(2.0, -1.0), batch(), Nudge()), split())
    assert np.isnan([*found["object/attention"], found["object/area"]]).all()


@pytest.mark.parametrize(
    ("offset", "slope", "told", "reading"),
    [
        (2.0, -1.0, "1.00 [1.00, 1.00]", "more robust features"),
        (1.0, 1.0, "-1.00 [-1.00, -1.00]", "less robust features"),
        (1.0, 0.0, "nan [nan, nan]", "cannot tell"),
    ],
)
def test_the_table_says_where_attention_goes(
    tmp_path: Path, offset: float, slope: float, told: str, reading: str
) -> None:
    path, schema = tmp_path / "x.h5", attention_rank.SCHEMA
    arrays = rows(known_model(offset, slope), batch(30), Nudge())
    with results.open_rows(path, schema, 30, {"position": H * W}, {}, {}) as file:
        file.append(arrays)
        file.finish(summarise(arrays, split(30)), {})
    row = attention_rank.table_row(results.read(path, schema.label))
    assert (row["Spearman"], row["attention goes to"], row["images"]) == (told, reading, "30")


@pytest.fixture(scope="module")
def finished(digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    work = Work(
        attention_rank.ANALYSIS,
        checkpoint.read(make_checkpoint(folder)),
        digits,
        folder,
        settings=AttackSettings(steps=2),
        split="test",
        limit=None,
        batch_size=16,
        device=torch.device("cpu"),
    )
    return work.run()


def test_the_statistics_follow_from_the_stored_rows(finished: Path, digits: Dataset) -> None:
    result = results.read(finished, attention_rank.SCHEMA.label)
    arrays = {column.path: result[column.path] for column in attention_rank.SCHEMA.per_image}
    for name, values in summarise(arrays, digits.test).items():
        np.testing.assert_array_equal(result[name], values, err_msg=name)


def test_the_stored_curve_is_a_slow_double_loop(finished: Path, digits: Dataset) -> None:
    result = results.read(finished)
    attention, distance = result["per_image/attention"].tolist(), result["per_image/distance"].tolist()
    images, positions = len(digits.test), 64
    curve = [0.0] * positions
    for weights, distances in zip(attention, distance, strict=True):
        for rank, place in enumerate(sorted(range(positions), key=distances.__getitem__)):
            curve[rank] += weights[place] / images
    np.testing.assert_allclose(result["curve/attention_mean"], curve, rtol=1e-9)
    np.testing.assert_array_equal(result["curve/rank"], range(positions))
    assert np.all(result["curve/attention_low"] <= curve) and np.all(curve <= result["curve/attention_high"])


def test_stored_correlations_are_scipys(finished: Path) -> None:
    result = results.read(finished)
    weights, moved, norm = (result[f"per_image/{name}"] for name in ("attention", "distance", "feature_norm"))
    for name, distance in (("spearman", moved), ("spearman_relative", moved / norm)):
        expected = [stats.spearmanr(a, -d).statistic for a, d in zip(weights, distance, strict=True)]
        np.testing.assert_allclose(result[f"per_image/{name}"], expected, atol=1e-6)
        assert result[f"test/{name}"][0] == pytest.approx(np.mean(expected), abs=1e-6)
        assert result[f"test/{name}"][1] < np.mean(expected) < result[f"test/{name}"][2]


def test_examples_are_the_first_image_of_each_class(finished: Path, digits: Dataset) -> None:
    result = results.read(finished)
    labels = digits.test.labels.tolist()
    index: Any = result["example/index"]
    assert index.tolist() == [labels.index(label) for label in range(10)]
    np.testing.assert_array_equal(result["example/image"], digits.test.images[index])
    np.testing.assert_array_equal(result["example/attention"], result["per_image/attention"][index])
    np.testing.assert_array_equal(result["example/spearman"], result["per_image/spearman"][index])
