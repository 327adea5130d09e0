"""Attention and gradients on the object and along planted patterns: slow loops, and networks whose answer is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpret_robust import figures
from interpret_robust.analyses import localization
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.localization import (
    ANALYSIS,
    OF_PATTERNS,
    SCHEMA,
    LocalizationSettings,
    Patterns,
    Search,
    average_classes,
    rows,
    summarize,
)
from interpret_robust.attribution.regions import find_center, find_object_positions, make_center_prior
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import rate, wilson
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.datasets.cluttered_digits import make_patterns
from interpret_robust.figures import drawing
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns

N, C, H, W, K = 14, 3, 8, 12, 4
GRID = (4, 3)
CELL = (H // GRID[0], W // GRID[1])
PerImage = dict[str, AnyArray]


class Bright(nn.Module):
    """Attention in proportion to the first channel; the classifier sees every position."""

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        weight = local[:, 0].flatten(1)
        return weight / weight.sum(1, keepdim=True), local.flatten(1)


class Flat(nn.Module):
    """A head that pools nothing: the classifier sees every pixel."""

    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, local.flatten(1)


def attentive() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.AvgPool2d(CELL), Bright(), nn.Linear(C * GRID[0] * GRID[1], K)).eval()


def linear(weight: AnyArray | None = None) -> Classifier:
    """Logits W x + b; with `weight` they are zero for an image that is 128/255 everywhere."""
    torch.manual_seed(0)
    model = Classifier(nn.Identity(), Flat(), nn.Linear(C * H * W, K)).eval()
    if weight is not None:
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(weight))
            model.classifier.bias.copy_(-model.classifier.weight.sum(1) * 128 / 255)
    return model


def data(count: int = N) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(20, 236, (count, H, W, C), np.uint8)
    masks = np.zeros((count, H, W), bool)
    for mask in masks:
        top, left = rng.integers(0, 5), rng.integers(0, 8)
        mask[top : top + rng.integers(2, 5), left : left + rng.integers(2, 8)] = True
    return Split(images, np.arange(count) % K, masks)


def batch(split: Split, images: Tensor | None = None) -> Batch:
    if images is None:
        images = torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255
    return Batch(images, torch.from_numpy(split.labels), range(len(split)), split.masks)


def patterns() -> AnyArray:
    signs = np.random.default_rng(3).choice([-0.02, 0.02], (K, H, W, C))
    return signs.astype(np.float32)


def rows_of(model: Classifier, split: Split, templates: AnyArray | None = None) -> PerImage:
    weights, grid = ("attention", GRID) if isinstance(model.head, Bright) else ("grad-cam", (H, W))
    search = Search(weights, grid, None if templates is None else Patterns(templates))
    columns = rows(model, batch(split), search)
    assert columns.keys() == {column.path for column in SCHEMA.per_image}
    return {name.removeprefix("per_image/"): values for name, values in columns.items()}


def summary(columns: PerImage, split: Split) -> dict[str, Any]:
    return summarize(Columns({f"per_image/{name}": values for name, values in columns.items()}), split)


def gradient_of(model: Classifier, split: Split) -> AnyArray:
    """Of the cross-entropy, one image at a time."""
    maps = []
    for image, label in zip(batch(split).images, torch.from_numpy(split.labels), strict=True):
        pixels = image[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(pixels), label[None]), pixels)
        maps.append(gradient[0].double().numpy())
    return np.stack(maps)


def test_attention_on_a_grid_that_does_not_divide_the_mask_counts_cells_by_their_area() -> None:
    split, grid = data(), (3, 5)
    torch.manual_seed(0)
    model = Classifier(nn.AdaptiveAvgPool2d(grid), Bright(), nn.Linear(C * grid[0] * grid[1], K)).eval()
    columns = rows(model, batch(split), Search("attention", grid, None))
    local = nn.functional.adaptive_avg_pool2d(batch(split).images.double(), grid)[:, 0].flatten(1).numpy()
    assert split.masks is not None
    fine = split.masks.repeat(grid[0], 1).repeat(grid[1], 2)  # every cell is H x W of these pixels
    for n in range(N):
        is_inside = [
            fine[n, H * i : H * (i + 1), W * j : W * (j + 1)].mean() >= 0.25
            for i in range(grid[0])
            for j in range(grid[1])
        ]
        assert columns["per_image/area"][n, 0] == np.mean(is_inside)
        share = local[n][is_inside].sum() / local[n].sum()
        assert columns["per_image/share"][n, 0] == pytest.approx(share, rel=1e-5)


def test_shares_hits_and_baselines_are_those_of_a_slow_loop() -> None:
    model, split = attentive(), data()
    columns, gradients = rows_of(model, split), gradient_of(model, split)
    images = batch(split).images.double().numpy()
    assert split.masks is not None
    positions = find_object_positions(split.masks, GRID)
    for n in range(N):
        bright = [
            images[n, 0, CELL[0] * i : CELL[0] * (i + 1), CELL[1] * j : CELL[1] * (j + 1)].mean()
            for i in range(GRID[0])
            for j in range(GRID[1])
        ]
        energy = [sum(gradients[n, c, y, x] ** 2 for c in range(C)) for y in range(H) for x in range(W)]
        magnitude = [sum(abs(gradients[n, c, y, x]) for c in range(C)) for y in range(H) for x in range(W)]
        for index, (values, is_inside, grid) in enumerate(
            [(bright, positions[n], GRID), (energy, split.masks[n].ravel(), (H, W))]
        ):
            prior, middle = make_center_prior(*grid).ravel(), np.flatnonzero(find_center(*grid).ravel())
            expected = {
                "share": sum(v for v, is_on in zip(values, is_inside, strict=True) if is_on) / sum(values),
                "hit": float(is_inside[values.index(max(values))]),
                "area": sum(is_inside) / len(is_inside),
                "center": sum(v for v, is_on in zip(prior, is_inside, strict=True) if is_on),
                "center_hit": sum(is_inside[place] for place in middle) / len(middle),
            }
            for name, value in expected.items():
                assert columns[name][n, index] == pytest.approx(value, rel=1e-4, abs=1e-9), name
        energy_inside = sum(m for m, is_inside in zip(magnitude, split.masks[n].ravel(), strict=True) if is_inside)
        assert columns["magnitude_share"][n] == pytest.approx(energy_inside / sum(magnitude), rel=1e-5)
    with torch.no_grad():
        np.testing.assert_array_equal(columns["prediction"], model(batch(split).images).argmax(1))
    np.testing.assert_array_equal(columns["label"], split.labels)
    assert 0 < columns["hit"].mean() < 1 and len(np.unique(columns["center_hit"])) > 1
    assert all(np.isnan(columns[name]).all() for name in OF_PATTERNS)


def test_attention_that_knows_nothing_has_the_share_of_its_baseline() -> None:
    split, model = data(), attentive()
    for name, values in (("area", np.ones((1, *GRID))), ("center", make_center_prior(*GRID)[None])):
        cells = torch.from_numpy(np.broadcast_to(values, (N, C, *GRID)).copy()).float()
        images = cells.repeat_interleave(CELL[0], 2).repeat_interleave(CELL[1], 3)
        columns = rows(model, batch(split, images), Search("attention", GRID, None))
        np.testing.assert_allclose(
            columns["per_image/share"][:, 0], columns[f"per_image/{name}"][:, 0], rtol=1e-5, err_msg=name
        )


# --- planted patterns


def test_the_gradient_of_a_network_of_patterns_lies_in_their_span_and_nowhere_else() -> None:
    split, templates = data(), patterns()
    flat = templates.transpose(0, 3, 1, 2).reshape(K, -1).astype(float)
    in_span = rows_of(linear(flat), split, templates)
    np.testing.assert_allclose(in_span["pattern_share"], 1, rtol=1e-6)
    np.testing.assert_allclose(in_span["pattern_chance"], K / (C * H * W), rtol=1e-12)
    other = np.random.default_rng(5).normal(size=(K, C * H * W))
    other -= other @ np.linalg.pinv(flat) @ flat
    out_of_span = rows_of(linear(other), split, templates)
    np.testing.assert_allclose(out_of_span["pattern_share"], 0, atol=1e-9)
    rotation = rows_of(
        linear(templates[:, ::-1, ::-1].transpose(0, 3, 1, 2).reshape(K, -1).astype(float)), split, templates
    )
    np.testing.assert_allclose(rotation["pattern_share_turned"], 1, rtol=1e-6)
    assert rotation["pattern_share"].max() < 0.5


def test_cosines_with_the_patterns_are_those_of_a_slow_loop() -> None:
    split, templates, model = data(), patterns(), linear()
    columns, gradients = rows_of(model, split, templates), gradient_of(model, split)
    for n in range(N):
        direction = -gradients[n].ravel()
        cosines = [
            direction @ p / np.linalg.norm(direction) / np.linalg.norm(p)
            for p in (pattern.transpose(2, 0, 1).ravel().astype(float) for pattern in templates)
        ]
        label = split.labels[n]
        assert columns["pattern_cosine"][n] == pytest.approx(cosines[label], rel=1e-5)
        rest = [cosine for k, cosine in enumerate(cosines) if k != label]
        assert columns["pattern_cosine_other"][n] == pytest.approx(sum(rest) / len(rest), rel=1e-4, abs=1e-8)


def test_random_directions_have_the_share_of_chance() -> None:
    directions = np.random.default_rng(0).normal(size=(2000, 3 * 32 * 32))
    templates = Patterns(make_patterns(0))
    columns = templates.measure_alignment(directions, np.zeros(2000, int))
    assert columns["pattern_chance"][0] == 10 / 3072
    for name in ("pattern_share", "pattern_share_turned"):
        assert columns[name].mean() == pytest.approx(10 / 3072, rel=0.05)
    np.testing.assert_allclose(
        templates.measure_alignment(1e-30 * directions[:3], np.zeros(3, int))["pattern_share"],
        columns["pattern_share"][:3],
        rtol=1e-9,
    )


def test_a_decision_made_of_patterns_follows_an_exchanged_one_and_one_made_without_stays() -> None:
    templates = patterns()
    gray = np.full((N, H, W, C), 128, np.uint8)
    split = replace(data(), images=(gray + np.rint(255 * templates[data().labels])).astype(np.uint8))
    flat = 1000 * templates.transpose(0, 3, 1, 2).reshape(K, -1).astype(float)
    follower = rows_of(linear(flat), split, templates)
    np.testing.assert_array_equal(follower["prediction"], split.labels)
    np.testing.assert_array_equal(follower["follows"], np.ones(N))
    np.testing.assert_array_equal(follower["stays"], np.zeros(N))
    blind = rows_of(linear(np.zeros_like(flat)), split, templates)
    np.testing.assert_array_equal(blind["stays"], split.labels == 0)
    np.testing.assert_array_equal(blind["follows"], (split.labels + 1) % K == 0)
    statistics = summary(follower, split)
    assert statistics["pattern/follows"] == wilson(N, N) and statistics["pattern/stays"] == wilson(0, N)


def test_an_exchanged_pattern_takes_the_place_of_the_own() -> None:
    templates, split = patterns(), data()
    plain = batch(split).images
    own_patterns, next_patterns = (
        torch.from_numpy(templates[(split.labels + k) % K]).permute(0, 3, 1, 2) for k in (0, 1)
    )
    batches: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            batches.append(images)
            return torch.zeros(len(images), K)

    Patterns(templates).rows(Spy(), batch(split, plain + own_patterns), np.ones((N, C, H, W)))
    torch.testing.assert_close(batches[-1], plain + next_patterns)


# --- what is undefined


def test_maps_without_values_are_counted_and_left_out() -> None:
    split = data(20)
    # So sure of itself that the cross-entropy of what it predicts is flat.
    model = linear(1e3 * np.random.default_rng(0).normal(size=(K, C * H * W)))
    columns = rows_of(model, split, patterns())
    right = columns["prediction"] == split.labels
    assert 0 < right.sum() < 20
    for name in ("share", "hit"):
        np.testing.assert_array_equal(np.isnan(columns[name][:, 1]), right)
    for name in ("magnitude_share", "pattern_share", "pattern_share_turned", "pattern_cosine", "pattern_cosine_other"):
        np.testing.assert_array_equal(np.isnan(columns[name]), right, err_msg=name)
    # Grad-CAM: channels weighted by their mean gradient; nowhere positive for some images.
    by_channel = model.classifier.weight.detach().reshape(K, C, -1).mean(2)[columns["prediction"]]
    cam = (by_channel[:, :, None] * batch(split).images.flatten(2)).sum(1)
    without_cam = (cam <= 0).all(1).numpy()
    assert 0 < without_cam.sum() < 20
    for name in ("share", "hit"):
        np.testing.assert_array_equal(np.isnan(columns[name][:, 0]), without_cam)
    statistics = summary(columns, split)
    np.testing.assert_array_equal(statistics["count/undefined"], [without_cam.sum(), right.sum()])
    for place, has_none in enumerate((without_cam, right)):
        for name, column in (("share/on_object", "share"), ("share/area", "area"), ("pointing/center", "center_hit")):
            assert statistics[name][place].value == pytest.approx(columns[column][~has_none, place].mean())
    assert tuple(statistics["pointing/hits"][1]) == wilson(int(columns["hit"][~right, 1].sum()), int((~right).sum()))

    zero = rows_of(linear(np.zeros((K, C * H * W))), split, patterns())
    statistics = summary(zero, split)
    np.testing.assert_array_equal(statistics["count/undefined"], [20, 20])
    for name in ("share/on_object", "share/above_area", "pointing/hits", "pointing/class_averaged", "pattern/share"):
        assert np.isnan(statistics[name]).all(), name
    assert np.isnan(statistics["share/area"]).all()  # a baseline is of the images that have a map


# --- statistics


def test_class_averaged_hits_weigh_classes_alike_and_their_interval_is_stratified() -> None:
    rates, counts = (0.9, 0.4), (70, 30)
    hits = np.concatenate([np.arange(n) < rate * n for rate, n in zip(rates, counts, strict=True)]).astype(float)
    labels = np.repeat([0, 2], counts)
    holes = np.full(9, np.nan)
    value, low, high = average_classes(np.concatenate([holes, hits]), np.concatenate([3 * np.ones(9, int), labels]))
    assert value == pytest.approx((63 / 70 + 12 / 30) / 2)
    rng, means = np.random.default_rng(1), []
    for _ in range(2000):
        draws = [rng.choice(hits[labels == label], count) for label, count in zip((0, 2), counts, strict=True)]
        means.append(sum(draw.mean() for draw in draws) / 2)
    np.testing.assert_allclose((low, high), np.quantile(means, [0.025, 0.975]), atol=0.012)
    assert np.isnan(average_classes(np.array([np.nan]), np.array([0]))).all()


def test_class_averaged_hits_have_no_interval_where_a_class_has_one_image() -> None:
    hits = np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 0.0])
    value, low, high = average_classes(hits, np.arange(10))
    assert value == pytest.approx(0.6)
    assert np.isnan((low, high)).all()
    hits, labels = np.tile(hits, 5), np.repeat([0, 1], 25)
    assert average_classes(hits, labels).has_ends
    assert not average_classes(np.append(hits, 1.0), np.append(labels, 2)).has_ends


def test_class_averaged_hits_that_agree_in_each_class_have_wilson_s_interval() -> None:
    labels = np.repeat([0, 1, 2, 3], [20, 30, 25, 40])
    of_twenty = wilson(80, 80)  # as many of each class as the smallest has
    assert average_classes(np.ones(115), labels) == of_twenty
    np.testing.assert_allclose(average_classes(np.zeros(115), labels), (0, 0, 1 - of_twenty.low))
    expected = (0.25, 0.25 * wilson(20, 20).low, 0.25 + 0.75 * wilson(0, 60).high)
    np.testing.assert_allclose(average_classes((labels == 2).astype(float), labels), expected)
    value, low, high = average_classes((np.arange(115) > 0).astype(float), labels)
    assert value == 1 - 1 / 80 and of_twenty.low < low < value < high == 1


def test_hit_rates_have_wilson_s_interval_over_what_is_defined() -> None:
    assert rate(np.array([1, 0, np.nan, 1])) == wilson(2, 3)
    assert np.isnan(rate(np.array([np.nan]))).all()


def work(path: Path, dataset: Dataset, folder: Path, **changes: Any) -> Work:
    plain: dict[str, Any] = {"settings": LocalizationSettings(), "split": "test", "limit": None, "batch_size": 16}
    return Work(ANALYSIS, checkpoint.read(path), dataset, folder, device=torch.device("cpu"), **(plain | changes))


@pytest.fixture(scope="module")
def checkpoint_paths(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return {variant: make_checkpoint(folder, variant) for variant in ("at", "at-att")}


@pytest.fixture(scope="module")
def dataset_with_patterns(digits: Dataset) -> Dataset:
    """`digits` as if its patterns had been planted."""
    return replace(digits, name="planted", patterns=make_patterns(0))


@pytest.fixture(scope="module")
def result_paths(
    checkpoint_paths: dict[str, Path],
    digits: Dataset,
    dataset_with_patterns: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return {
        "at": work(checkpoint_paths["at"], dataset_with_patterns, folder).run(),
        "at-att": work(checkpoint_paths["at-att"], dataset_with_patterns, folder).run(),
        "plain": work(checkpoint_paths["at-att"], digits, folder).run(),
    }


def per_image(path: Path) -> PerImage:
    result = hdf5.read(path, SCHEMA.label)
    return {column.path.removeprefix("per_image/"): result[column.path] for column in SCHEMA.per_image}


@pytest.mark.parametrize("name", ["at", "at-att", "plain"])
def test_the_statistics_follow_from_the_stored_rows(result_paths: dict[str, Path], digits: Dataset, name: str) -> None:
    result, columns = hdf5.read(result_paths[name]), per_image(result_paths[name])
    for path, values in summary(columns, digits.test).items():
        np.testing.assert_array_equal(result[path], values, err_msg=path)
    for index in range(2):
        share, area, center = (columns[column][:, index].astype(float) for column in ("share", "area", "center"))
        np.testing.assert_allclose(result["share/on_object"][index], bootstrap_mean(share))
        assert result["share/above_area"][index, 0] == pytest.approx(np.nanmean(share - area), rel=1e-5)
        assert result["share/above_center"][index, 0] == pytest.approx(np.nanmean(share - center), rel=1e-5)
        gap = np.nanmean(columns["hit"][:, index] - columns["center_hit"][:, index])
        assert result["pointing/above_center"][index, 0] == pytest.approx(gap, abs=1e-6)
    assert np.isfinite(result["pattern/chance"]) == (name != "plain")


def test_weights_are_attention_where_there_is_one_and_grad_cam_elsewhere(
    result_paths: dict[str, Path], checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    weights = {name: hdf5.read(path).config["settings"]["spatial_weight"] for name, path in result_paths.items()}
    assert weights == {"at": "grad-cam", "at-att": "attention", "plain": "attention"}
    cam = work(checkpoint_paths["at-att"], digits, tmp_path, settings=LocalizationSettings(spatial_weight="grad-cam"))
    assert "spatialweightgrad_cam" in cam.path.name
    with pytest.raises(UserError, match="no attention"):
        work(checkpoint_paths["at"], digits, tmp_path, settings=LocalizationSettings(spatial_weight="attention"))


def test_data_without_masks_is_refused(checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path) -> None:
    bare = replace(digits, test=replace(digits.test, masks=None))
    with pytest.raises(UserError, match="has no object masks"):
        work(checkpoint_paths["at"], bare, tmp_path)


@pytest.mark.parametrize("name", ["at", "at-att"])
def test_rows_do_not_depend_on_the_batch_size(
    result_paths: dict[str, Path],
    checkpoint_paths: dict[str, Path],
    dataset_with_patterns: Dataset,
    tmp_path: Path,
    name: str,
) -> None:
    expected, other = (
        per_image(result_paths[name]),
        per_image(work(checkpoint_paths[name], dataset_with_patterns, tmp_path, batch_size=7).run()),
    )
    for column, values in expected.items():
        tolerance = 0 if values.dtype.kind in "iu" or "hit" in column else 1e-4
        np.testing.assert_allclose(other[column], values, rtol=tolerance, atol=tolerance, err_msg=column)


def test_a_stopped_run_goes_on_to_the_same_file(
    result_paths: dict[str, Path], checkpoint_paths: dict[str, Path], dataset_with_patterns: Dataset, tmp_path: Path
) -> None:
    first_run = work(checkpoint_paths["at-att"], dataset_with_patterns, tmp_path)

    def fail_late(model: Classifier, part: Batch, search: Search) -> dict[str, AnyArray]:
        if part.indices.start:
            raise RuntimeError("as a crash would")
        return rows(model, part, search)

    first_run.analysis = replace(ANALYSIS, rows=fail_late)
    with pytest.raises(RuntimeError, match="crash"):
        first_run.run()
    path = work(checkpoint_paths["at-att"], dataset_with_patterns, tmp_path).run()
    assert hdf5.attributes(path)["content_sha256"] == hdf5.attributes(result_paths["at-att"])["content_sha256"]


def test_model_and_random_state_are_left_as_found(checkpoint_paths: dict[str, Path], digits: Dataset) -> None:
    model = checkpoint.read(checkpoint_paths["at"]).model(torch.device("cpu"))
    images = batch(digits.test.first(5))
    originals = {name: value.clone() for name, value in model.state_dict().items()}
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    rows(model, images, Search("grad-cam", (8, 8), Patterns(make_patterns(0))))
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, originals[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    np.testing.assert_equal(numpy_state, np.random.get_state())
    assert torch.equal(torch_state, torch.get_rng_state())


# --- the table and the picture


def test_the_table_gives_each_number_beside_its_baseline(result_paths: dict[str, Path]) -> None:
    result = hdf5.read(result_paths["at-att"])
    row = localization.table_row(result)
    (value, low, high), area = result["share/on_object"][0], result["share/area"][0, 0]
    assert (
        row["weights on object (area)"]
        == f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] ({100 * area:.1f} %)"
    )
    value, center = result["pointing/hits"][1, 0], result["pointing/center"][1, 0]
    assert row["gradient pointing (center)"].startswith(f"{100 * value:.1f} %")
    assert row["gradient pointing (center)"].endswith(f"({100 * center:.1f} %)")
    assert row["weights"] == "attention" and row["images"] == "40"
    extra = {"gradient along patterns (turned)", "follows exchanged pattern"}
    assert row.keys() - localization.table_row(hdf5.read(result_paths["plain"])).keys() == extra


def test_the_dots_drawn_are_the_numbers_stored(result_paths: dict[str, Path], tmp_path: Path) -> None:
    results = [hdf5.read(result_paths[name]) for name in ("at", "at-att")]
    axes = figures.get("localization").draw(results).figure.axes
    assert len(axes) == 4 + 3
    for panel, (name, index) in zip(
        axes, [("share/on_object", 0), ("share/on_object", 1), ("pointing/hits", 0), ("pointing/hits", 1)], strict=False
    ):
        dots = [mark[0].get_xdata()[0] for mark in panel.containers]
        assert dots == [100 * result[name][index, 0] for result in results]
        assert panel.lines[-2].get_xdata()[0] == 100 * results[0]["share/area"][index, 0]
    follows = [mark[0].get_xdata()[0] for mark in axes[6].containers]
    assert follows == [100 * result[f"pattern/{kind}"][0] for result in results for kind in ("stays", "follows")]
    assert len(figures.get("localization").draw([hdf5.read(result_paths["plain"])]).figure.axes) == 4

    (picture,) = drawing.draw("localization", [result_paths["at"], result_paths["at-att"]], tmp_path, lambda _: None)
    caption = json.loads(picture.with_suffix(".json").read_text())
    assert caption["numbers"].keys() == {"at seed 0, Grad-CAM", "at-att seed 0"}
    assert caption["numbers"]["at-att seed 0"]["pattern/follows"] == results[1]["pattern/follows"].tolist()
    assert "40 test images of planted" in caption["caption"] and "planted in the images" in caption["caption"]


def levels(axes: Any, stroke: str) -> list[tuple[list[float], list[float]]]:
    """Where lines of this stroke go, x and y."""
    lines = [line for line in axes.lines if line.get_linestyle() == stroke]
    return [tuple(np.asarray(line.get_data()).tolist()) for line in lines]


def test_the_picture_gives_each_row_its_own_area_and_center_where_positions_differ(
    result_paths: dict[str, Path],
) -> None:
    first, second = (hdf5.read(result_paths["plain"]) for _ in range(2))
    area, center, other_center = first["share/area"], first["share/center"], first["pointing/center"]
    second._small["share/area"] = area + np.array([[0.1], [0]])  # as of another grid of positions
    second._small["share/center"] = center + np.array([[0.2], [0]])
    second._small["pointing/center"] = other_center + np.array([[-0.1], [0]])
    picture = figures.get("localization").draw([first, second])
    for index, place, prior, gap in ((0, 0, center, 0.2), (2, 0, other_center, -0.1)):
        axes = picture.figure.axes[index]
        for stroke, level, change in (("--", area[place, 0], 0.1), (":", prior[place, 0], gap)):
            expected = [([100 * level] * 2, [-0.5, 0.5]), ([100 * (level + change)] * 2, [0.5, 1.5])]
            np.testing.assert_allclose(levels(axes, stroke), expected)
    for index, place, prior in ((1, 1, center), (3, 1, other_center)):  # of pixels: one line for both
        for stroke, level in (("--", area[place, 0]), (":", prior[place, 0])):
            assert levels(picture.figure.axes[index], stroke) == [([100 * level] * 2, [0, 1])]
    assert "Lines (in pieces where models differ in their positions" in picture.caption
    assert "Lines: the share of positions" in figures.get("localization").draw([first, first]).caption


def test_the_table_gives_the_number_of_maps_without_values(result_paths: dict[str, Path]) -> None:
    names = ("weights without values", "gradient without values")
    for path in result_paths.values():
        result = hdf5.read(path)
        counts = [int(count) for count in result["count/undefined"]]
        row = localization.table_row(result)
        assert [row.get(name, "0") for name in names] == [str(count) for count in counts]
