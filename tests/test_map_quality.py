"""Sensitivity and infidelity against known answers and slow second implementations."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, H, K, N, W, assert_unchanged, seed_network
from captum.metrics import infidelity as captum_infidelity
from networks import Array, Linear, array, pixels, settle
from torch import Tensor, nn

from interpret_robust.analyses import map_quality
from interpret_robust.analyses.map_quality import (
    MOVES,
    SHUFFLE,
    SQUARES,
    QualitySettings,
    forecast,
    make_square_masks,
    rows,
    summarize,
)
from interpret_robust.attribution import captum_methods, gradients
from interpret_robust.attribution.gradients import compute_map
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import NotFiniteError, UserError
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel

LABELS = torch.tensor([0, 6, 3, 3, 1])
START = 40
SAMPLES = 6


def images() -> Tensor:
    return pixels(N, C, H, W, seed=2)


def batch(part: slice = slice(0, N)) -> Batch:
    return Batch(images()[part], LABELS[part], range(START + part.start, START + part.stop), None)


def model() -> WrappedModel:
    network: Convolutions = seed_network(Convolutions)
    settle(network)
    return WrappedModel(network, Preprocess((0.0,), (1.0,)), "body")


def linear() -> WrappedModel:
    return WrappedModel(Linear(C * H * W, K), Preprocess((0.0,), (1.0,)))


def settings(source: str = "gradient", seed: int = 0, radius: float = 0.1) -> QualitySettings:
    return QualitySettings(source, radius, SAMPLES, seed)


def measure(network: WrappedModel, quality: QualitySettings, part: slice = slice(0, N)) -> dict[str, Array]:
    return {name.removeprefix("per_image/"): values for name, values in rows(network, batch(part), quality).items()}


@pytest.fixture
def linear_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The label's logit in the place of the cross-entropy: linear in pixels for a linear network."""

    def label_logit(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.gather(1, labels[:, None])[:, 0]

    for module in (gradients, captum_methods, map_quality):
        monkeypatch.setattr(module, "cross_entropy", label_logit)
    monkeypatch.setattr(gradients, "loss_gradient", partial(loss_gradient, loss=label_logit))


@pytest.mark.usefixtures("linear_loss")
def test_the_gradient_of_a_linear_network_stands_still_and_foretells_everything() -> None:
    columns = measure(linear(), settings())
    assert columns["change"].min() > 1e-3
    np.testing.assert_allclose(columns["sensitivity"], 0, atol=1e-5)
    np.testing.assert_allclose(columns["infidelity"], 0, atol=1e-5 * columns["change"].max())
    assert (columns["infidelity_shuffled"] > 0.05 * columns["change"]).all()


@pytest.mark.usefixtures("linear_loss")
def test_contributions_foretell_the_change_to_black_and_not_that_to_the_mean() -> None:
    """Weight times pixel sums to what a square gives when it is made black; here it gets the mean color."""
    columns = measure(linear(), settings("captum:InputXGradient"))
    assert (columns["infidelity"] > 1e-3 * columns["change"]).all()
    weight = array(linear().backbone.get_parameter("layer.weight"))
    for place, (image, label) in enumerate(zip(array(images()), LABELS.tolist(), strict=True)):
        (stream,) = make_streams(0, [START + place], SQUARES)
        masks = array(make_square_masks(stream, SAMPLES, H, W))[:, 0]
        slope, mean = weight[label].reshape(C, H, W), image.mean((1, 2), keepdims=True)
        foretold = np.array([(mask * slope * image).sum() for mask in masks])
        change = np.array([(mask * slope * (image - mean)).sum() for mask in masks])
        factor = (foretold * change).mean() / (foretold**2).mean()
        np.testing.assert_allclose(columns["infidelity"][place], ((factor * foretold - change) ** 2).mean(), rtol=1e-2)
        np.testing.assert_allclose(columns["change"][place], (change**2).mean(), rtol=1e-3)


def loss_of(network: nn.Module, image: Tensor, label: int) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(network(image[None]), torch.tensor([label])))


@pytest.mark.parametrize(("source", "seed"), [("gradient", 0), ("gradient", 3), ("integrated-gradients", 3)])
def test_infidelity_is_a_slow_loop_over_squares(source: str, seed: int) -> None:
    columns, network = measure(model(), settings(source, seed)), model()
    for place, (image, label) in enumerate(zip(images(), LABELS.tolist(), strict=True)):
        signed_map = compute_map(source, network, image[None], LABELS[place : place + 1], [START + place], seed)[0]
        (order,) = make_streams(seed, [START + place], SHUFFLE)
        places = order.permutation(H * W)
        shuffled_map = torch.stack([plane.ravel()[torch.from_numpy(places)].reshape(H, W) for plane in signed_map])
        (stream,) = make_streams(seed, [START + place], SQUARES)
        masks = make_square_masks(stream, SAMPLES, H, W)
        for name, explanation in (
            ("infidelity", signed_map),
            ("infidelity_shuffled", shuffled_map),
            ("change", 0 * signed_map),
        ):
            foretold, change = [], []
            for mask in masks:
                mean = image.mean((1, 2), keepdim=True)
                other = torch.where(mask.bool(), mean, image)
                change.append(loss_of(network, image, label) - loss_of(network, other, label))
                of_square = explanation * (image - other) if source == "gradient" else explanation * mask
                foretold.append(float(of_square.sum()))
            forecasts, changes = np.array(foretold), np.array(change)
            factor = (forecasts * changes).mean() / (forecasts**2).mean() if forecasts.any() else 0
            slow = ((factor * forecasts - changes) ** 2).mean()
            np.testing.assert_allclose(columns[name][place], slow, rtol=2e-2, atol=1e-6)


def test_sensitivity_is_the_largest_change_of_a_slow_loop_over_moves() -> None:
    columns, network = measure(model(), settings(seed=3)), model()
    for place, image in enumerate(images()):
        label, index = LABELS[place : place + 1], [START + place]
        reference = array(compute_map("gradient", network, image[None], label, index, 3))
        (moves,) = make_streams(3, index, MOVES)
        changes = []
        for move in moves.uniform(-0.1, 0.1, (SAMPLES, C, H, W)):
            neighbor = image + torch.from_numpy(move.astype(np.float32))
            changes.append(
                np.linalg.norm(array(compute_map("gradient", network, neighbor[None], label, index, 3)) - reference)
            )
        np.testing.assert_allclose(columns["sensitivity"][place], max(changes) / np.linalg.norm(reference), rtol=1e-3)


def test_a_smaller_radius_moves_maps_less() -> None:
    small, large = (measure(model(), settings(radius=radius))["sensitivity"] for radius in (0.001, 0.1))
    assert (small < large).all() and (small > 0).all()


@pytest.mark.parametrize("source", ["gradient", "smooth-gradient", "captum:Occlusion", "captum:GradientShap"])
def test_what_is_measured_of_an_image_does_not_depend_on_its_batch(source: str) -> None:
    whole = measure(model(), settings(source))
    for place in range(2):
        alone = measure(model(), settings(source), slice(place, place + 1))
        for name, values in alone.items():
            np.testing.assert_allclose(values, whole[name][place : place + 1], rtol=1e-3, atol=1e-7)


def test_the_model_and_the_random_state_are_left_as_found() -> None:
    network, samples = model(), batch()
    with assert_unchanged(network, samples.images, samples.labels):
        columns = rows(network, samples, settings("captum:DeepLift"))
    assert columns["per_image/label"].tolist() == LABELS.tolist()
    with torch.no_grad():
        assert columns["per_image/prediction"].tolist() == network(images()).argmax(1).tolist()


def test_an_image_without_a_map_has_no_sensitivity() -> None:
    network = linear()
    with torch.no_grad():
        network.backbone.get_parameter("layer.weight").zero_()
    columns = measure(network, settings())
    assert np.isnan(columns["sensitivity"]).all()
    for name in ("infidelity", "infidelity_shuffled", "change"):
        np.testing.assert_allclose(columns[name], 0, atol=1e-12)


def test_squares_are_a_quarter_of_each_side_at_random_places() -> None:
    masks = array(make_square_masks(np.random.default_rng(0), 400, 10, 18))
    generator = np.random.default_rng(0)
    tops, lefts = generator.integers(0, 10 - 2 + 1, 400), generator.integers(0, 18 - 4 + 1, 400)
    for mask, top, left in zip(masks, tops, lefts, strict=True):
        slow = np.zeros((1, 10, 18))
        for row in range(2):
            for column in range(4):
                slow[0, top + row, left + column] = 1
        np.testing.assert_array_equal(mask, slow)
    assert set(tops) == set(range(9)) and set(lefts) == set(range(15))


def test_squares_of_tiny_images_have_a_pixel() -> None:
    assert array(make_square_masks(np.random.default_rng(0), 9, 3, 2)).sum((1, 2, 3)).tolist() == [1.0] * 9


@pytest.mark.parametrize("source", ["gradient", "captum:InputXGradient"])
def test_the_sign_of_the_best_factor_tells_a_map_from_minus_the_map(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plus = measure(model(), settings(source))
    monkeypatch.setattr(map_quality, "compute_map", lambda *arguments: -compute_map(*arguments))
    minus = measure(model(), settings(source))
    np.testing.assert_allclose(minus["factor"], -plus["factor"], rtol=1e-4)
    assert (plus["factor"] != 0).all()
    for name in ("sensitivity", "infidelity", "infidelity_shuffled", "change"):
        np.testing.assert_allclose(minus[name], plus[name], rtol=1e-4)


@pytest.mark.usefixtures("linear_loss")
def test_the_best_factor_of_an_exact_forecast_is_one() -> None:
    np.testing.assert_allclose(measure(linear(), settings())["factor"], 1, rtol=1e-4)


def test_infidelity_is_captums() -> None:
    random = np.random.default_rng(0)
    signed_map = torch.from_numpy(random.normal(size=(1, C, H, W)).astype(np.float32))
    perturbations = torch.from_numpy(random.normal(size=(SAMPLES, C, H, W)).astype(np.float32))
    weight = torch.from_numpy(random.normal(size=(C, H, W)).astype(np.float32))
    image = images()[:1]

    def score(point: Tensor) -> Tensor:
        return (point * weight).sum((1, 2, 3)).tanh()

    expected = captum_infidelity(
        score,
        lambda point: (perturbations, point - perturbations),
        image,
        signed_map,
        n_perturb_samples=SAMPLES,
        normalize=True,
    )
    changes = (score(image) - score(image - perturbations)).double()
    assert forecast(signed_map, perturbations, changes)[0] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("source", "largest"),
    [
        ("captum:DeepLift", 1e-3),
        ("captum:DeepLiftShap", 1e-3),
        ("integrated-gradients", 0.05),
        ("captum:IntegratedGradients", 0.05),
    ],
)
def test_completeness_is_the_sum_of_a_map_minus_the_change_of_the_loss(source: str, largest: float) -> None:
    columns, network = measure(model(), settings(source, 3)), model()
    for place, (image, label) in enumerate(zip(images(), LABELS.tolist(), strict=True)):
        (stream,) = make_streams(3, [START + place])
        if source.endswith("Shap"):
            stream.integers(2**31)
        shape = (8 if source.endswith("Shap") else 1, C, H, W)
        starts = (
            stream.random(shape, dtype=np.float32)
            if source in ("integrated-gradients", "captum:DeepLiftShap")
            else np.zeros(shape, np.float32)
        )
        change = loss_of(network, image, label) - np.mean(
            [loss_of(network, torch.from_numpy(start), label) for start in starts]
        )
        np.testing.assert_allclose(columns["promise"][place], change, rtol=1e-3, atol=1e-5)
        signed_map = compute_map(source, network, image[None], LABELS[place : place + 1], [START + place], 3)
        np.testing.assert_allclose(columns["gap"][place], float(signed_map.sum()) - change, atol=1e-4)
    assert np.abs(columns["gap"]).sum() < largest * np.abs(columns["promise"]).sum()


def test_a_gradient_promises_no_completeness() -> None:
    columns = measure(model(), settings())
    assert np.isnan(columns["promise"]).all() and np.isnan(columns["gap"]).all()


def test_a_map_of_one_value_is_counted_and_one_of_zeros_is_another_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.0, 2.0, 0.0, 0.0])
    constants: dict[int, float] = {}

    def flat(_: Any, __: Any, inputs: Tensor, ___: Any, indices: list[int], ____: int) -> Tensor:
        return torch.full_like(
            inputs, constants.setdefault(indices[0], next(values) if indices[0] not in constants else 0.0)
        )

    monkeypatch.setattr(map_quality, "compute_map", flat)
    columns = measure(model(), settings())
    assert columns["constant"].tolist() == [True, False, True, False, False]
    assert np.isnan(columns["sensitivity"]).tolist() == [False, True, False, True, True]


def columns_of(**values: list[float]) -> Any:
    return {f"per_image/{name}": np.array(column, np.float32) for name, column in values.items()}


def test_statistics_are_means_of_shares_over_images() -> None:
    columns = columns_of(
        sensitivity=[0.5, np.nan, 1.5, 1.0],
        infidelity=[1, 0, 3, 1],
        infidelity_shuffled=[2, 0, 4, 4],
        change=[4, 0, 4, 8],
        factor=[1, np.nan, -2, -0.5],
        constant=[0, 0, 1, 0],
        promise=[2, -1, 0.5, 0.5],
        gap=[0.1, 0, -0.2, 0.1],
    )
    split = Split(np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int64))
    summary = summarize(columns, split)
    assert (summary["count/degenerate"], summary["count/constant"], summary["count/negative"]) == (1, 1, 2)
    assert summary["completeness/gap"] == pytest.approx(0.4 / 4)
    for name, shares in (
        ("sensitivity", [0.5, 1.5, 1.0]),
        ("unforetold", [0.25, 0.75, 0.125]),
        ("unforetold_shuffled", [0.5, 1.0, 0.5]),
        ("gain", [0.25, 0.25, 0.375]),
    ):
        found_mean = summary[f"mean/{name}"]
        assert found_mean.value == pytest.approx(np.mean(shares))
        np.testing.assert_allclose(found_mean, bootstrap_mean(np.array([*shares, np.nan])), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"radius": 0.0}, "radius 0, samples 50: give 0 to 1, and at least two samples"),
        ({"radius": 1.5}, "radius 1.5"),
        ({"samples": 1}, "samples 1"),
        ({"seed": -1}, "seed is -1"),
        ({"source": "captum:Nothing"}, "unknown attribution of captum 'Nothing'"),
    ],
)
def test_settings_out_of_range_are_the_users_error(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        QualitySettings(**changes).resolve({})
    assert QualitySettings().resolve({}) == QualitySettings()


def test_an_image_is_named_whose_last_moved_copy_alone_has_no_gradient() -> None:
    """A batch has fewer images than an image has moved copies."""

    class Root(nn.Module):
        def forward(self, copies: Tensor) -> Tensor:
            is_last = torch.arange(len(copies)) == SAMPLES - 1
            root: Tensor = torch.where(is_last[:, None], 0 * copies.flatten(1), copies.flatten(1)).sum(1).sqrt()
            return root[:, None] * torch.ones(K)

    network = WrappedModel(Root(), Preprocess((0.0,), (1.0,)))
    assert len(batch().images) < SAMPLES
    with pytest.raises(NotFiniteError) as information:
        rows(network, batch(), settings())
    assert information.value.places == [0]
