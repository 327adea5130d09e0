"""Alignment of image and gradient: closed forms of linear networks, slow loops, and zeros that mean nothing."""

import cmath
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import count_passes
from scipy import stats
from torch import Tensor, nn

from interpret_robust import figures
from interpret_robust.analyses import alignment
from interpret_robust.analyses.alignment import ANALYSIS, SCHEMA, AlignmentSettings, Pairs, rows, summarize
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval
from interpret_robust.core.rank_statistics import bootstrap_spearman
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch, to_pixels
from interpret_robust.figures import drawing
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.folding import fold
from interpret_robust.models.resnet import PerImageStandardization
from interpret_robust.results import hdf5, writer
from interpret_robust.results.columns import Columns

N, C, H, W, K = 7, 3, 4, 5, 4
PerImage = dict[str, AnyArray]


class Flat(nn.Module):
    """A head that pools nothing: the classifier sees every pixel."""

    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, local.flatten(1)


class UnitLength(nn.Module):
    """Scaled to length one: does not change with the image's scale, but with a shift."""

    def forward(self, images: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
        return images / length


class ZeroMean(nn.Module):
    """Without its mean: does not change with a shift, but with the image's scale."""

    def forward(self, images: Tensor) -> Tensor:
        return images - images.mean((1, 2, 3), keepdim=True)


def linear(front: nn.Module | None = None, factor: float = 1.0) -> Classifier:
    """Logits W x + b, of what `front` makes of the image."""
    torch.manual_seed(0)
    model = Classifier(front or nn.Identity(), Flat(), nn.Linear(C * H * W, K)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(factor)
    return model


def data(count: int = N) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, H, W, C), np.uint8)
    return Split(images, np.arange(count) % K)


def batch(split: Split) -> Batch:
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255
    return Batch(images, torch.from_numpy(split.labels), range(len(split)), None)


def rows_of(model: Classifier, split: Split, source: str = "gradient") -> PerImage:
    """The rows of a split, each image paired with the next."""
    columns = rows(model, batch(split), Pairs(split, (np.arange(len(split)) + 1) % len(split), source))
    assert columns.keys() == {column.path for column in SCHEMA.per_image}
    return {name.removeprefix("per_image/"): values for name, values in columns.items()}


def summary(columns: PerImage, split: Split, source: str = "gradient") -> dict[str, Any]:
    named_columns = Columns({f"per_image/{name}": values for name, values in columns.items()})
    return summarize(named_columns, split, AlignmentSettings(source=source))


def doubles(values: Tensor) -> AnyArray:
    array: AnyArray = values.detach().double().numpy()
    return array


def cosine(a: AnyArray, b: AnyArray) -> float:
    dot = sum(x * y for x, y in zip(a.ravel(), b.ravel(), strict=True))
    return float(dot / math.sqrt(sum(x * x for x in a.ravel()) * sum(y * y for y in b.ravel())))


# --- a linear network, where everything is known


def test_scores_of_a_linear_network_are_the_closed_forms() -> None:
    model, split = linear(), data()
    columns, images = rows_of(model, split), doubles(batch(split).images)
    weight, bias = doubles(model.classifier.weight), doubles(model.classifier.bias)
    for n in range(N):
        x, partner, label = images[n].ravel(), images[(n + 1) % N], split.labels[n]
        scores = weight @ x + bias
        winner = int(scores.argmax())
        p = np.exp(scores) / np.exp(scores).sum()
        gradient = weight.T @ (p - np.eye(K)[label])
        radii = [
            (scores[winner] - scores[j]) / np.linalg.norm(weight[winner] - weight[j]) for j in range(K) if j != winner
        ]
        per_pixel = np.sqrt((gradient.reshape(C, H, W) ** 2).sum(0))
        expected = {
            "label": label,
            "prediction": winner,
            "partner": (n + 1) % N,
            "cosine": cosine(x - x.mean(), -gradient),
            "cosine_shuffled": cosine(partner - partner.mean(), -gradient),
            "alpha": abs(x @ weight[winner]) / np.linalg.norm(weight[winner]),
            "alpha_shuffled": abs(partner.ravel() @ weight[winner]) / np.linalg.norm(weight[winner]),
            "edge_cosine": cosine(slow_edges(images[n]), per_pixel),
            "edge_cosine_shuffled": cosine(slow_edges(partner), per_pixel),
            "linearized_robustness": min(radii),
            "total_variation": slow_variation(gradient.reshape(C, H, W)),
            "gini": slow_gini(gradient),
            "high_frequency": slow_high_frequency(gradient.reshape(C, H, W)),
            "degenerate": 0,
        }
        for name, value in expected.items():
            assert columns[name][n] == pytest.approx(value, rel=2e-5, abs=2e-6), name


def test_linearized_robustness_of_a_linear_network_is_the_distance_to_its_boundary() -> None:
    model, split = linear(), data()
    images = batch(split).images
    radius = rows_of(model, split)["linearized_robustness"]
    weight = model.classifier.weight.detach()
    with torch.no_grad():
        scores = model(images)
        top = scores.argmax(1)
        for step, is_changed in ((0.999, False), (1.001, True)):
            flips = torch.zeros(N, dtype=torch.bool)
            for other in range(K):
                direction = weight[other] - weight[top]
                direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-9)
                adversarial = images + step * torch.from_numpy(radius)[:, None, None, None].float() * direction.view(
                    N, C, H, W
                )
                flips |= model(adversarial).argmax(1) != top
            assert flips.tolist() == [is_changed] * N


def test_linearized_robustness_is_one_pass_and_what_each_class_apart_gives(
    checkpoint_path: Path, digits: Dataset
) -> None:
    model = fold(checkpoint.read(checkpoint_path).model(torch.device("cpu")))
    images = to_pixels(torch.from_numpy(digits.test.images[:33]).permute(0, 3, 1, 2))
    with torch.no_grad():
        logits = model(images)
    with count_passes(model) as passes:
        robustness = alignment.linearized_robustness(model, images, logits)
    assert (passes.gradient, passes.forward) == (1, 0)
    top, rows_of_images = logits.argmax(1), torch.arange(33)
    distances = []
    for rival in range(10):
        pixels = images.clone().requires_grad_()
        scores = model(pixels)
        (slope,) = torch.autograd.grad((scores[rows_of_images, top] - scores[:, rival]).sum(), pixels)
        gap = doubles(logits[rows_of_images, top] - logits[:, rival])
        with np.errstate(invalid="ignore"):
            distances.append(gap / np.linalg.norm(doubles(slope).reshape(33, -1), axis=1))
    np.testing.assert_allclose(robustness, np.nanmin(distances, axis=0), rtol=5e-7)


def test_a_class_whose_logit_has_the_same_gradient_is_never_reached() -> None:
    model, split = linear(), data()
    images = batch(split).images
    with torch.no_grad():
        model.classifier.weight[1:] = model.classifier.weight[0]
        logits = model(images)
        assert np.isnan(alignment.linearized_robustness(model, images, logits)).all()
        model.classifier.weight[3].mul_(2)
        logits = model(images)
    top, weight = logits.argmax(1), doubles(model.classifier.weight)
    expected = [
        abs(float(logits[n, 3] - logits[n, [0, 1, 2]].max())) / np.linalg.norm(weight[3] - weight[0]) for n in range(N)
    ]
    reachable = top != 3
    np.testing.assert_allclose(
        alignment.linearized_robustness(model, images, logits)[reachable], np.array(expected)[reachable], rtol=1e-5
    )
    assert reachable.any()


def test_a_step_against_the_gradient_that_adds_the_image_has_cosine_one() -> None:
    split = data(K)
    images = doubles(batch(split).images)
    model = linear()
    deviations = images - images.mean((1, 2, 3), keepdims=True)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()
        model.classifier.weight[0] = torch.from_numpy(deviations[0].ravel())
    assert rows_of(model, split)["cosine"][0] == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        model.classifier.weight.neg_()
    assert rows_of(model, split)["cosine"][0] == pytest.approx(-1, abs=1e-6)


# --- each measure, written again from its definition


def slow_edges(image: AnyArray) -> AnyArray:
    kernel = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    channels, height, width = image.shape
    edges = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            for color in range(channels):
                vertical = horizontal = 0.0
                for i in range(3):
                    for j in range(3):
                        y = min(max(row + i - 1, 0), height - 1)
                        x = min(max(column + j - 1, 0), width - 1)
                        horizontal += kernel[i][j] * image[color, y, x]
                        vertical += kernel[j][i] * image[color, y, x]
                edges[row, column] += vertical**2 + horizontal**2
    return np.sqrt(edges)


def slow_variation(image: AnyArray) -> float:
    channels, height, width = image.shape
    total = 0.0
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                total += abs(image[c, y + 1, x] - image[c, y, x]) if y + 1 < height else 0
                total += abs(image[c, y, x + 1] - image[c, y, x]) if x + 1 < width else 0
    return total / float(sum(abs(value) for value in image.ravel()))


def slow_gini(image: AnyArray) -> float:
    """Half the mean difference of two entries over the mean entry."""
    values = [abs(value) for value in image.ravel()]
    differences = sum(abs(a - b) for a in values for b in values)
    return float(differences / (2 * len(values) * sum(values)))


def slow_high_frequency(image: AnyArray) -> float:
    channels, height, width = image.shape
    high = whole = 0.0
    for row in range(height):
        for column in range(width):
            # Cycles per pixel: 3/4 of a cycle forwards is 1/4 backwards.
            radius = math.hypot(min(row, height - row) / height, min(column, width - column) / width)
            for c in range(channels):
                wave = sum(
                    image[c, y, x] * cmath.exp(-2j * math.pi * (row * y / height + column * x / width))
                    for y in range(height)
                    for x in range(width)
                )
                whole += abs(wave) ** 2
                high += abs(wave) ** 2 if radius > 0.25 else 0
    return high / whole


def maps() -> AnyArray:
    return np.random.default_rng(1).normal(size=(N, C, H, W))


MEASURES: dict[str, tuple[Callable[[AnyArray], AnyArray], Callable[[AnyArray], float]]] = {
    "total_variation": (alignment.total_variation, slow_variation),
    "gini": (alignment.gini, slow_gini),
    "high_frequency": (alignment.high_frequency, slow_high_frequency),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_its_slow_definition_and_ignores_the_gradient_s_size(name: str) -> None:
    fast, slow = MEASURES[name]
    np.testing.assert_allclose(fast(maps()), [slow(image) for image in maps()], rtol=1e-9)
    for factor in (-1, 1e-30, 1e6):
        np.testing.assert_allclose(fast(factor * maps()), fast(maps()), rtol=1e-9)
    assert np.isnan(fast(np.zeros((1, C, H, W)))).all()


def test_measures_of_maps_whose_answer_is_known() -> None:
    flat, dot, board = np.ones((3, 1, C, 8, 6))
    dot *= 0
    dot[0, 1, 4, 3] = -2
    board *= (-1) ** np.add.outer(np.arange(8), np.arange(6))
    measures = {name: [float(fast(image)[0]) for image in (flat, dot, board)] for name, (fast, _) in MEASURES.items()}
    size = C * 8 * 6
    assert measures["total_variation"] == pytest.approx([0, 4, (7 * 6 + 8 * 5) * 2 / 48])
    assert measures["gini"] == pytest.approx([0, (size - 1) / size, 0])
    assert measures["high_frequency"][::2] == pytest.approx([0, 1])
    assert measures["high_frequency"][1] == pytest.approx(alignment.white_noise(8, 6)["high_frequency"])


def test_white_noise_has_the_expected_measures() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 3, 12, 16))
    for name, expected in alignment.white_noise(12, 16).items():
        values = MEASURES[name][0](noise)
        assert values.mean() == pytest.approx(expected, abs=5 * values.std() / math.sqrt(300) + 2e-3)


def test_alpha_and_cosine_of_a_zero_map_are_undefined() -> None:
    zero = np.zeros_like(maps())
    assert np.isnan(alignment.cosine(maps(), zero)).all()
    assert np.isnan(alignment.alpha(maps(), zero)).all()


# --- shuffled pairs


def work(path: Path, dataset: Dataset, folder: Path, **changes: Any) -> Work:
    plain: dict[str, Any] = {"settings": AlignmentSettings(), "split": "test", "limit": None, "batch_size": 16}
    return Work(ANALYSIS, checkpoint.read(path), dataset, folder, device=torch.device("cpu"), **(plain | changes))


@pytest.fixture(scope="module")
def checkpoint_path(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained"), "at-att")


def test_every_image_is_paired_with_another_one_by_the_seed(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    partners = []
    for seed in (0, 0, 1):
        pairs = alignment.prepare(
            work(checkpoint_path, digits, tmp_path, settings=AlignmentSettings(seed=seed), limit=39)
        )
        assert not (pairs.partner == np.arange(39)).any()
        assert sorted(pairs.partner) == list(range(39))
        partners.append(pairs.partner.tolist())
    assert partners[0] == partners[1] != partners[2]
    images = pairs.images(range(5, 8))
    np.testing.assert_allclose(images, digits.test.images[pairs.partner[5:8]].transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_one_image_and_a_negative_seed_are_refused(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two"):
        work(checkpoint_path, digits, tmp_path, limit=1).run()
    with pytest.raises(UserError, match="seed is -1"):
        work(checkpoint_path, digits, tmp_path, settings=AlignmentSettings(seed=-1))


# --- what is zero by construction


@pytest.mark.parametrize(
    ("front", "scale", "shift"),
    [(nn.Identity(), 0, 0), (UnitLength(), 1, 0), (ZeroMean(), 0, 1), (PerImageStandardization(), 1, 1)],
)
def test_invariance_is_detected_and_its_zeros_are_not_reported(front: nn.Module, scale: int, shift: int) -> None:
    split = data(30)
    model = linear(front, 10)
    if isinstance(front, ZeroMean | UnitLength):
        with torch.no_grad():
            model.classifier.bias.zero_()
    columns = rows_of(model, split)
    statistics = summary(columns, split)
    assert (statistics["invariant/scale"], statistics["invariant/shift"]) == (scale, shift)
    # The sums behind the scores, before anyone leaves them out.
    assert (np.abs(columns["alpha"]).max() < 1e-4) == bool(scale)
    assert (np.abs(columns["cosine"]).max() < 1e-5) == bool(scale and shift)
    assert columns["alpha_shuffled"].mean() > 0.01 and np.abs(columns["cosine_shuffled"]).mean() > 0.01
    for kind in ("own", "shuffled", "difference"):
        assert np.isnan(statistics[f"alpha/{kind}"]).all() == bool(scale)
        assert np.isnan(statistics[f"cosine/{kind}"]).all() == bool(scale and shift)
        assert np.isfinite(statistics[f"edge_cosine/{kind}"]).all()
    assert np.isnan(statistics["robustness/spearman_alpha"]).all() == bool(scale)


@pytest.mark.parametrize("source", ["smooth-gradient", "integrated-gradients", "captum:Occlusion"])
def test_of_maps_that_are_no_gradients_only_alpha_is_zero_by_construction(source: str) -> None:
    split, model = data(30), linear(PerImageStandardization(), 10)
    columns = rows_of(model, split, source)
    statistics = summary(columns, split, source)
    assert np.abs(columns["cosine"]).max() > 0.01
    assert statistics["cosine/own"] == bootstrap_mean(columns["cosine"])
    assert statistics["cosine/shuffled"] == bootstrap_mean(columns["cosine_shuffled"])
    assert np.abs(columns["alpha"]).max() < 1e-4 and np.isnan(statistics["alpha/own"]).all()


def test_changes_of_the_logits_are_relative_to_their_spread() -> None:
    split, model = data(), linear()
    columns, images = rows_of(model, split), batch(split).images
    with torch.no_grad():
        logits = doubles(model(images))
        for name, versions in (
            ("scale_change", [0.5 * images, 0.9 * images]),
            ("shift_change", [images - 0.1, images + 0.1]),
        ):
            for n in range(N):
                spread = np.linalg.norm(logits[n] - logits[n].mean())
                distances = [np.linalg.norm(doubles(model(other))[n] - logits[n]) for other in versions]
                assert columns[name][n] == pytest.approx(max(distances) / spread, rel=1e-4)
    statistics = summary(columns, split)
    assert statistics["invariant/scale_change"] == columns["scale_change"].max()
    assert statistics["invariant/shift_change"] == columns["shift_change"].max()


def test_one_image_that_changes_is_enough_to_be_no_invariance() -> None:
    split = data()
    columns = rows_of(linear(PerImageStandardization()), split)
    columns["scale_change"] = columns["scale_change"].copy()
    columns["scale_change"][3] = 0.01
    statistics = summary(columns, split)
    assert (statistics["invariant/scale"], statistics["invariant/shift"]) == (0, 1)
    assert np.isfinite(statistics["alpha/own"].value)


def test_zero_gradients_are_counted_and_left_out() -> None:
    split = data(30)
    model = linear(factor=1e4)  # so sure of itself that the cross-entropy of what it predicts is flat
    columns = rows_of(model, split)
    right = columns["prediction"] == split.labels
    assert 0 < right.sum() < 30
    np.testing.assert_array_equal(columns["degenerate"], right)
    for name in ("cosine", "cosine_shuffled", "edge_cosine", "total_variation", "gini", "high_frequency"):
        np.testing.assert_array_equal(np.isnan(columns[name]), right, err_msg=name)
    assert np.isfinite(columns["alpha"]).all() and np.isfinite(columns["linearized_robustness"]).all()
    statistics = summary(columns, split)
    assert statistics["count/degenerate"] == right.sum()
    assert statistics["cosine/own"].value == pytest.approx(columns["cosine"][~right].mean())


def test_a_model_that_says_the_same_of_everything_gives_no_number() -> None:
    split, model = data(), linear(factor=0)
    with torch.no_grad():
        model.classifier.bias.zero_()
    columns = rows_of(model, split)
    for name in ("cosine", "alpha", "edge_cosine", "linearized_robustness"):
        assert np.isnan(columns[name]).all()
    statistics = summary(columns, split)
    assert (statistics["invariant/scale"], statistics["invariant/shift"], statistics["count/degenerate"]) == (0, 0, N)
    assert np.isnan(statistics["curve/edge_cosine_mean"]).all()


# --- statistics


def test_bootstrap_spearman_is_scipy_s_with_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 8, 30).astype(float)
    second = first + 4 * rng.normal(size=30)
    holes = np.array([*first, np.nan, 3, np.inf]), np.array([*second, 1, np.nan, 2])
    value, low, high = bootstrap_spearman(*holes, seed=4, resamples=200)
    assert value == pytest.approx(stats.spearmanr(first, second)[0])
    draws = np.random.default_rng(4)
    correlations = [stats.spearmanr(first[i], second[i])[0] for i in (draws.integers(30, size=30) for _ in range(200))]
    np.testing.assert_allclose((low, high), np.quantile(correlations, [0.025, 0.975]), rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1.0, 2, 3, 4, 9], [2.0, 3, 5, 7, 8], 1.0),
        ([1.0, 2, 3, 4, 9], [8.0, 7, 5, 3, 2], -1.0),
        ([1.0, 2, 3], [5.0, 5, 5], np.nan),
        ([1.0, np.nan, 3], [np.nan, 2.0, 5], np.nan),
        ([], [], np.nan),
    ],
)
def test_bootstrap_spearman_of_what_is_known(first: list[float], second: list[float], expected: float) -> None:
    np.testing.assert_allclose(bootstrap_spearman(np.array(first), np.array(second)), [expected] * 3, atol=1e-12)


@pytest.fixture(scope="module")
def result_path(checkpoint_path: Path, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work(checkpoint_path, digits, tmp_path_factory.mktemp("finished")).run()


def per_image(path: Path) -> PerImage:
    result = hdf5.read(path, SCHEMA.label)
    return {column.path.removeprefix("per_image/"): result[column.path] for column in SCHEMA.per_image}


def test_the_statistics_follow_from_the_stored_rows(result_path: Path, digits: Dataset) -> None:
    result, columns = hdf5.read(result_path), per_image(result_path)
    for name, values in summary(columns, digits.test).items():
        np.testing.assert_array_equal(result[name], values, err_msg=name)
    edge = columns["edge_cosine"].astype(float)
    np.testing.assert_array_equal(result["edge_cosine/own"], bootstrap_mean(edge))
    gap = columns["edge_cosine"] - columns["edge_cosine_shuffled"]
    assert result["edge_cosine/difference"][0] == pytest.approx(gap.mean(), rel=1e-5)
    correlation = stats.spearmanr(columns["linearized_robustness"], edge)[0]
    assert result["robustness/spearman_edge_cosine"][0] == pytest.approx(correlation)
    order = sorted(range(40), key=columns["linearized_robustness"].__getitem__)
    for tenth in range(10):
        members = order[4 * tenth : 4 * tenth + 4]
        assert result["curve/edge_cosine_mean"][tenth] == pytest.approx(edge[members].mean(), rel=1e-6)
        robustness = columns["linearized_robustness"][members].mean()
        assert result["curve/linearized_robustness"][tenth] == pytest.approx(robustness, rel=1e-5)


def test_images_of_equal_robustness_go_into_tenths_by_chance_and_not_by_their_place() -> None:
    """Half of the images tie, and those that come first score higher: no tenth of the tie may show that."""
    count = 4000
    robustness = np.where(np.arange(count) % 2, 0.0, 1.0 + np.arange(count))
    curve = alignment._curve(robustness, np.linspace(1, 0, count))["curve/edge_cosine_mean"]
    np.testing.assert_allclose(curve[:5], 0.5, atol=4 * np.sqrt(1 / 12 / 400))
    np.testing.assert_allclose(curve[5:], np.linspace(0.9, 0.1, 5), atol=1e-3)


def test_rows_do_not_depend_on_the_batch_size(
    result_path: Path, checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    expected, other = per_image(result_path), per_image(work(checkpoint_path, digits, tmp_path, batch_size=7).run())
    for name, values in expected.items():
        tolerance = 0 if values.dtype.kind in "iu" else 2e-4
        np.testing.assert_allclose(other[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def test_a_stopped_run_goes_on_to_the_same_file(
    result_path: Path, checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    first_run = work(checkpoint_path, digits, tmp_path)

    def fail_late(model: Classifier, part: Batch, pairs: Pairs) -> dict[str, AnyArray]:
        if part.indices.start:
            raise RuntimeError("as a crash would")
        return rows(model, part, pairs)

    first_run.analysis = replace(ANALYSIS, rows=fail_late)
    with pytest.raises(RuntimeError, match="crash"):
        first_run.run()
    path = work(checkpoint_path, digits, tmp_path).run()
    assert hdf5.attributes(path)["content_sha256"] == hdf5.attributes(result_path)["content_sha256"]


def test_model_and_random_state_are_left_as_found(checkpoint_path: Path, digits: Dataset) -> None:
    model = checkpoint.read(checkpoint_path).model(torch.device("cpu"))
    images = batch(digits.test.first(5))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    rows(model, images, Pairs(digits.test, (np.arange(40) + 1) % 40))
    assert not model.training and not any(module.training for module in model.modules())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    np.testing.assert_equal(numpy_state, np.random.get_state())
    assert torch.equal(torch_state, torch.get_rng_state())


# --- the table and the picture


def test_the_table_says_what_is_zero_by_construction(result_path: Path) -> None:
    result = hdf5.read(result_path)
    row = alignment.table_row(result)
    assert row["cosine (shuffled)"] == "zero by construction (scale and shift invariant)"
    assert row["alpha (shuffled)"] == "zero by construction (scale invariant)"
    value, low, high = result["edge_cosine/own"]
    control = result["edge_cosine/shuffled"][0]
    assert row["edge cosine (shuffled)"] == f"{value:.2f} [{low:.2f}, {high:.2f}] ({control:.2f})"
    assert row["images"] == "40"


@pytest.fixture(scope="module")
def linear_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished file of a network that is not invariant, as if it were a checkpoint's."""
    split, path = data(30), tmp_path_factory.mktemp("linear") / "alignment-made-test.h5"
    columns = {f"per_image/{name}": values for name, values in rows_of(linear(), split).items()}
    config = {
        "checkpoint": {
            "name": "made",
            "job": {"variant": "natural", "seed": 0, "dataset": "made", "architecture": "x"},
        },
        "data": {"dataset": "made", "split": "test", "images": 30},
        "settings": {"seed": 0},
    }
    with writer.open_rows(path, SCHEMA, 30, {}, config, {}) as file:
        file.append(columns)
        file.finish(summarize(Columns(columns), split, AlignmentSettings()), {})
    return path


def test_the_table_gives_numbers_where_there_are_some(linear_file: Path) -> None:
    result = hdf5.read(linear_file)
    value, low, high = result["alpha/own"]
    expected = f"{value:.2f} [{low:.2f}, {high:.2f}] ({result['alpha/shuffled'][0]:.2f})"
    assert alignment.table_row(result)["alpha (shuffled)"] == expected


def test_the_picture_leaves_out_what_is_zero_by_construction_and_its_caption_has_the_numbers(
    result_path: Path, tmp_path: Path
) -> None:
    whole = figures.get("alignment").draw([hdf5.read(result_path)])
    panels = whole.figure.axes
    assert [axes.get_xlabel() for axes in panels[:2]] == ["cosine of edges and |gradient|", "total variation / L1 norm"]
    assert len(panels[0].containers) == 2
    assert "construction for all models: cosine of image and -gradient, Etmann's alpha, pixels." in whole.caption
    (picture,) = drawing.draw("alignment", [result_path], tmp_path, lambda _: None)
    caption, result = json.loads(picture.with_suffix(".json").read_text()), hdf5.read(result_path)
    numbers = caption["numbers"]["at-att seed 0"]
    assert numbers["alpha/own"] == [None] * 3 and numbers["invariant/scale"] == 1
    for name in ("edge_cosine/own", "smoothness/gini", "curve/edge_cosine_mean"):
        assert numbers[name] == result[name].tolist()
    assert "40 test images" in caption["caption"] and "seed 0" in caption["caption"]


def test_the_table_and_the_picture_give_the_cosine_of_maps_that_are_no_gradients(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    settings = AlignmentSettings(source="captum:Occlusion")
    result = hdf5.read(work(checkpoint_path, digits, tmp_path, settings=settings, limit=20).run())
    assert result["invariant/scale"] == result["invariant/shift"] == 1
    value, low, high = result["cosine/own"]
    cosines = result["per_image/cosine"]
    assert value == pytest.approx(cosines.mean(), abs=1e-6) and np.abs(cosines).max() > 0.01
    row = alignment.table_row(result)
    assert row["cosine (shuffled)"] == f"{Interval(value, low, high).plain()} ({result['cosine/shuffled'][0]:.2f})"
    assert row["alpha (shuffled)"] == "zero by construction (scale invariant)"
    picture = figures.get("alignment").draw([result])
    assert [axes.get_xlabel() for axes in picture.figure.axes[:2]] == [
        "cosine of image and -gradient",
        "cosine of edges and |gradient|",
    ]
    assert [mark[0].get_xdata()[0] for mark in picture.figure.axes[0].containers] == [
        result["cosine/shuffled"][0],
        value,
    ]
    assert "cosine of zero" not in picture.caption
    assert "for all models: Etmann's alpha, pixels." in picture.caption


def test_a_score_that_is_zero_by_construction_for_one_model_says_so_in_its_row(
    result_path: Path, linear_file: Path
) -> None:
    panels = figures.get("alignment").draw([hdf5.read(result_path), hdf5.read(linear_file)]).figure.axes
    assert [[text.get_text() for text in axes.texts] for axes in panels[:3]] == [["zero by construction"]] * 2 + [[]]
    assert [text.get_position()[1] for axes in panels[:2] for text in axes.texts] == [0, 0]
    assert [len(axes.containers) for axes in panels[:3]] == [2, 2, 4]


def test_the_dots_drawn_are_the_numbers_stored(linear_file: Path) -> None:
    result = hdf5.read(linear_file)
    figure = figures.get("alignment").draw([result]).figure
    cosine, alpha, edge = figure.axes[:3]
    for axes, name in ((cosine, "cosine"), (alpha, "alpha"), (edge, "edge_cosine")):
        control, score = (mark[0].get_xdata()[0] for mark in axes.containers)
        assert (score, control) == (result[f"{name}/own"][0], result[f"{name}/shuffled"][0])
        assert not axes.texts
    curve = figure.axes[6].lines[0]
    np.testing.assert_array_equal(curve.get_xdata(), result["curve/linearized_robustness"])
    np.testing.assert_array_equal(curve.get_ydata(), result["curve/edge_cosine_mean"])
