"""Re-initialized networks, and the scores of their maps: what changes, what must not, and when the gate opens."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import pixels, settle
from scipy import stats
from torch import Tensor, nn
from torch.nn.utils import prune

from interpret_robust import figures
from interpret_robust.analyses import randomization
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.randomization import (
    RANDOM_NETWORKS,
    SCORES,
    WINDOW,
    Cascade,
    RandomizationSettings,
    choose_seeds,
    normalize_ranks,
    predict_another_mean,
    rows,
    structural_similarity,
    summarize,
)
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.attribution.regions import find_object_positions
from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import column_means, finite_column_means
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.figures.drawing import compose, draw
from interpret_robust.models import Classifier, build, checkpoint
from interpret_robust.models.copying import copy_of
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.reinitialize import doubt_about_random, list_stages, randomize, randomize_network
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns

CPU = torch.device("cpu")
Make = Callable[..., Path]


def small(seed: int = 0) -> Classifier:
    """A network whose weights are not those of any initialization."""
    model = build("small", "nonlinear", (3, 20, 24), 7, seed=seed)
    settle(model, seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(2)
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


def compare(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, bool]:
    return {name: torch.equal(values, second[name]) for name, values in first.items()}


SMALL = ["classifier", "head", "norm", "units.2", "units.1", "units.0", "stem"]
PREFIXES = ["classifier.", "head.", *(f"backbone.{name}." for name in SMALL[2:])]


def test_stages_go_from_the_classifier_to_the_first_layer() -> None:
    assert [name for name, _ in list_stages(small())] == SMALL
    cnn = build("cnn", "average", (1, 16, 20), 4, seed=0)
    assert [name for name, _ in list_stages(cnn)] == ["classifier", "head", "conv2", "conv1"]
    without_head = build("narrow", "average", (3, 16, 20), 4, seed=0)
    units = [f"units.{number}" for number in range(14, -1, -1)]
    assert [name for name, _ in list_stages(without_head)] == ["classifier", "norm", *units, "stem"]


@pytest.mark.parametrize("count", [0, 1, 3, len(SMALL)])
def test_stages_above_are_random_and_those_below_as_trained(count: int) -> None:
    model, images = small(), pixels(30, 3, 20, 24)
    equalities = compare(state(model), state(randomize(model, count, images, 5)))
    for name, is_same in equalities.items():
        stage = next(number for number, prefix in enumerate(PREFIXES) if name.startswith(prefix))
        assert is_same == (stage >= count), name


def test_each_stage_goes_on_from_the_one_before() -> None:
    model, images = small(), pixels(30, 3, 20, 24)
    first, second = (state(randomize(model, count, images, 5)) for count in (2, len(SMALL)))
    parameters = {name: values for name, values in first.items() if "running" not in name and "num_b" not in name}
    copies = [name for name, equal in compare(parameters, second).items() if equal]
    assert copies == [name for name in parameters if name.startswith(("head.", "classifier."))]


def test_random_weights_are_a_function_of_the_seed_alone() -> None:
    model, images = small(), pixels(30, 3, 20, 24)
    weights, generator = state(model), torch.get_rng_state()
    first = randomize_network(model, images, 1)
    torch.rand(3)
    second, other = randomize_network(small(seed=3), images, 1), randomize_network(model, images, 2)
    assert all(compare(state(first), state(second)).values()), "nothing of the trained weights is left"
    assert not any(
        equal
        for name, equal in compare(state(first), state(other)).items()
        if name.endswith(("conv1.weight", "stem.weight"))
    )
    torch.set_rng_state(generator)
    randomize_network(model, images, 1)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(compare(state(model), weights).values())
    assert not any(module.training for module in [*first.modules(), *model.modules()])


def test_layers_are_drawn_as_torch_draws_them() -> None:
    network = randomize_network(small(), pixels(30, 3, 20, 24), 1)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weights, bound = layer.weight.detach(), layer.weight[0].numel() ** -0.5
            assert 0.8 * bound < float(weights.abs().max()) <= bound
            assert weights.numel() < 100 or abs(float(weights.std()) - bound / 3**0.5) < 0.15 * bound
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()


class EmbeddingBackbone(nn.Module):
    """A backbone with weights of its own, as transformers have, and a sequence within a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(3 + 0.5 * torch.randn(100, 100, generator=torch.Generator().manual_seed(0)))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 5, 1)))

    def forward(self, images: Tensor) -> Tensor:
        local: Tensor = self.body(images) + self.embedding.mean()
        return local


class Mean(nn.Module):
    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, local.mean((2, 3))


def test_weights_outside_layers_keep_their_mean_and_deviation() -> None:
    model = Classifier(EmbeddingBackbone(), Mean(), nn.Linear(5, 4))
    assert [name for name, _ in list_stages(model)] == ["classifier", "body.2.0", "body.0", "backbone"]
    network = randomize_network(model, pixels(9, 3, 6, 8), 1)
    old, new = state(model), state(network)
    assert not any(compare(old, new).values())
    embedding = new["backbone.embedding"]
    assert float(embedding.mean()) == pytest.approx(3, abs=0.02)
    assert float(embedding.std()) == pytest.approx(0.5, abs=0.02)
    together = torch.stack([embedding.flatten(), old["backbone.embedding"].flatten()])
    assert abs(float(torch.corrcoef(together)[0, 1])) < 0.05


def test_batch_norm_of_random_stages_is_calibrated_on_the_images() -> None:
    images = pixels(200, 3, 20, 24)
    backbone: Any = randomize_network(small(), images, 1).backbone
    with torch.no_grad():
        halves = backbone.stem(backbone.standardize(images)).split(100)
        local = backbone(images)
    for name, slow in (
        ("running_mean", [half.mean((0, 2, 3)) for half in halves]),
        ("running_var", [half.transpose(0, 1).flatten(1).var(1) for half in halves]),
    ):
        statistic = getattr(backbone.units[0].norm1, name)
        np.testing.assert_allclose(statistic, (slow[0] + slow[1]) / 2, rtol=1e-4, atol=1e-6)
    # The last norm's output, before the leaky ReLU of slope 0.1, has mean 0 and deviation 1 in each channel.
    activations = torch.where(local > 0, local, 10 * local)
    np.testing.assert_allclose(activations.mean((0, 2, 3)), 0, atol=0.1)
    np.testing.assert_allclose(activations.std((0, 2, 3)), 1, atol=0.1)


def test_unit_ranks_give_spearman() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (6, 30)), rng.random((6, 30))
    correlations = (normalize_ranks(first) * normalize_ranks(second)).sum(1)
    np.testing.assert_allclose(correlations, [stats.spearmanr(a, b)[0] for a, b in zip(first, second, strict=True)])
    degenerate = np.stack([np.ones(5), np.array([1, 2, np.nan, 4, 5]), np.arange(5)])
    assert np.isnan(normalize_ranks(degenerate)).all(1).tolist() == [True, True, False]


def test_structural_similarity_is_that_of_a_slow_loop() -> None:
    first, second = pixels(3, 9, 11, seed=1) ** 3, pixels(3, 9, 11, seed=2)
    second[2] = 5 * first[2]
    similarity = structural_similarity(first, second)
    for n in range(3):
        a, b = (maps[n].double().numpy() / float(maps[n].max()) for maps in (first, second))
        values = []
        for y in range(9 - WINDOW + 1):
            for x in range(11 - WINDOW + 1):
                p, q = (m[y : y + WINDOW, x : x + WINDOW].ravel() for m in (a, b))
                covariance = ((p - p.mean()) * (q - q.mean())).mean()
                top = (2 * p.mean() * q.mean() + 1e-4) * (2 * covariance + 9e-4)
                values.append(top / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4)))
        assert float(similarity[n]) == pytest.approx(np.mean(values), abs=1e-5)
    assert float(similarity[2]) == pytest.approx(1, abs=1e-5)
    assert bool(structural_similarity(torch.zeros(1, 9, 9), pixels(1, 9, 9)).isnan().all())


def test_means_over_finite_values() -> None:
    rng = np.random.default_rng(0)
    whole = rng.random((80, 3))
    np.testing.assert_allclose(finite_column_means(whole), column_means(whole), rtol=1e-12)
    holes = whole.copy()
    holes[::2, 1] = np.nan
    holes[:, 2] = np.nan
    value, low, high = finite_column_means(holes).T
    odd_rows = holes[1::2, 1]
    assert value[:2].tolist() == pytest.approx([whole[:, 0].mean(), odd_rows.mean()])
    error = odd_rows.std() / 40**0.5
    assert (low[1], high[1]) == pytest.approx((value[1] - 1.96 * error, value[1] + 1.96 * error), abs=0.3 * error)
    assert np.isnan([value[2], low[2], high[2]]).all()


def test_another_network_is_predicted_by_students_t() -> None:
    prediction = predict_another_mean(np.array([[1.0, 2, 3], [4, 4, 4]]))
    reach = 4.302652729911275 * (1 + 1 / 3) ** 0.5
    np.testing.assert_allclose(prediction, [[2, 2 - reach, 2 + reach], [4, 4, 4]])
    rng = np.random.default_rng(0)
    means = rng.normal(5, 2, (4000, 7))
    _, low, high = predict_another_mean(means[:, :6]).T
    assert ((means[:, 6] > low) & (means[:, 6] < high)).mean() == pytest.approx(0.95, abs=0.01)


H, W = 8, 12


class ByBrightness(nn.Module):
    """Attention by the first color of a pixel; the classifier sees all pixels."""

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        weight = local[:, 0].flatten(1)
        return weight / weight.sum(1, keepdim=True), local.flatten(1)


def linear(seed: int) -> Classifier:
    """Two logits W x."""
    model = Classifier(nn.Identity(), ByBrightness(), nn.Linear(2 * H * W, 2))
    with torch.no_grad():
        model.classifier.weight.copy_(torch.randn(2, 2 * H * W, generator=torch.Generator().manual_seed(seed)))
        model.classifier.weight *= 0.1
    return model.eval()


class Reads(nn.Module):
    """The class whose weights a map, taken about gray, resembles more."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.weight: Tensor = model.classifier.weight.detach()

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight.T


def test_rows_of_linear_networks_are_known() -> None:
    model, other, count = linear(0), linear(1), 30
    masks = np.random.default_rng(0).random((count, H, W)) < 0.3
    batch = Batch(pixels(count, 2, H, W), torch.arange(count) % 2, range(count), masks)
    cascade: Any = Cascade([model, other], Reads(model), "attention", (H, W))  # type: ignore[arg-type]
    table = {name.removeprefix("per_image/"): values for name, values in rows(model, batch, cascade).items()}
    # g = (1 - p) (w_other - w_label) for every image, so that its ranks are those of w_1 - w_0.
    first, second = ((m.classifier.weight[1] - m.classifier.weight[0]).detach().numpy() for m in (model, other))
    sizes = [np.linalg.norm(g.reshape(2, -1), axis=0) for g in (first, second)]
    np.testing.assert_array_equal(table["read"][:, 0], 1)
    np.testing.assert_array_equal(table["read"][:, 1], first @ second > 0)
    for name, expected in (
        ("gradient", stats.spearmanr(first, second)[0]),
        ("magnitude", stats.spearmanr(*sizes)[0]),
    ):
        np.testing.assert_allclose(table[name][:, 0], 1, atol=1e-6)
        np.testing.assert_allclose(table[name][:, 1], expected, atol=0.01)
    attention = batch.images[:, 0].flatten(1).numpy()
    for n in range(count):
        mask = masks[n].ravel()
        for network in range(2):
            on_object = sizes[network][mask].sum() / sizes[network].sum()
            assert table["gradient_on_object"][n, network] == pytest.approx(on_object, abs=1e-5)
            share = attention[n][mask].sum() / attention[n].sum()
            assert table["weights_on_object"][n, network] == pytest.approx(share, abs=1e-5)
            assert table["weights"][n, network] == pytest.approx(1)
        assert table["object_area"][n] == table["object_positions"][n] == masks[n].mean()
    np.testing.assert_array_equal(table["label"], batch.labels)
    assert {f"per_image/{name}" for name in table} == {column.path for column in randomization.SCHEMA.per_image}
    bare = rows(model, replace(batch, masks=None), cascade)
    for name in ("gradient_on_object", "weights_on_object", "object_area", "object_positions"):
        assert np.isnan(bare[f"per_image/{name}"]).all()


def made_up(cascade: dict[str, list[float]], count: int = 400) -> dict[str, AnyArray]:
    """Rows whose means are those of `cascade` at each stage, and about 0.2, 0.04 apart, of random networks."""
    rng, random = np.random.default_rng(0), [0.14, 0.18, 0.22, 0.26, 0.2, 0.2]
    arrays = {
        f"per_image/{path}": np.array(cascade.get(path, cascade["else"]) + random)
        + 0.01 * rng.standard_normal((count, 10))
        for path, _ in SCORES.values()
    }
    wide = rng.standard_normal(count)
    for path in ("read", "gradient"):
        arrays[f"per_image/{path}"][:, 0] += wide - wide.mean()
    arrays["per_image/ssim"][0] = np.nan
    arrays["per_image/weights_on_object"][:] = np.nan
    area = np.full(count, 0.125)
    return arrays | {
        "per_image/label": np.arange(count) % 5,
        "per_image/object_area": area,
        "per_image/object_positions": 2 * area,
    }


def test_the_gate() -> None:
    arrays = made_up(
        {
            "else": [1.0, 0.5, 0.2, 0.2],  # falls with the second stage
            "read": [0.32, 0.9, 0.2, 0.2],  # above random networks, but its interval reaches among them
            "gradient": [0.08, 0.2, 0.2, 0.2],  # the same from below
            "ssim": [1.0, 0.2, 0.9, 0.25],  # falls, rises, and falls with the last
            "gradient_on_object": [0.9, 0.6, 0.6, 0.6],  # does not fall
        }
    )
    summary = summarize(Columns(arrays), Split(np.zeros((400, 1, 1, 1), np.uint8), np.arange(400) % 5))
    paths = [path for path, _ in SCORES.values()]
    gate = {
        path: tuple(int(summary[f"gate/{name}"][number]) for name in ("needed", "passed", "from_stage"))
        for number, path in enumerate(paths)
    }
    assert gate == {
        "magnitude": (1, 1, 2),
        "gradient": (0, 0, 0),
        "ssim": (1, 1, 3),
        "read": (0, 0, 2),
        "gradient_on_object": (1, 0, -1),
        "weights": (1, 1, 2),
        "weights_on_object": (-1, -1, -1),
    }
    random = summary["random/mean"][paths.index("magnitude")]
    assert random[0] == pytest.approx(0.2, abs=0.002)
    assert random[2] - random[0] == pytest.approx(
        2.5706 * np.std([0.14, 0.18, 0.22, 0.26, 0.2, 0.2], ddof=1) * (7 / 6) ** 0.5, rel=0.02
    )
    assert summary["cascade/undefined"][paths.index("ssim")].tolist() == [1] * 10
    assert summary["cascade/undefined"][paths.index("weights_on_object")].tolist() == [400] * 10
    np.testing.assert_allclose(summary["random/uninformed"], [0, 0, np.nan, np.nan, 0.125, 0, 0.25])
    mean = arrays["per_image/ssim"][1:, 0].mean()
    assert summary["cascade/mean"][paths.index("ssim"), 0, 0] == pytest.approx(mean)


def work(path: Path, dataset: Dataset, folder: Path, **changes: Any) -> Work:
    reader = changes.pop("reader")
    plain: dict[str, Any] = {"split": "train", "limit": 24, "batch_size": 16, "device": CPU}
    return Work(
        randomization.ANALYSIS,
        checkpoint.read(path),
        dataset,
        folder,
        settings=RandomizationSettings(**changes.pop("settings", {})),
        evaluators=[checkpoint.read(reader)],
        **(plain | changes),
    )


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return {
        "at": make_checkpoint(folder, "at"),
        "at-att": make_checkpoint(folder, "at-att"),
        "reader": make_checkpoint(folder, "natural", 1),
    }


@pytest.fixture(scope="module")
def results(checkpoints: dict[str, Path], digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return {
        name: work(checkpoints[name], digits, folder, reader=checkpoints["reader"]).run() for name in ("at", "at-att")
    }


def columns(path: Path) -> dict[str, AnyArray]:
    result = hdf5.read(path, randomization.SCHEMA.label)
    return {column.path: result[column.path] for column in randomization.SCHEMA.per_image}


@pytest.mark.long
def test_stages_are_named_and_their_networks_as_they_say(
    results: dict[str, Path], checkpoints: dict[str, Path], digits: Dataset
) -> None:
    result = hdf5.read(results["at-att"])
    names = [str(name) for name in result["stage"]]
    assert names == ["trained", *SMALL, *(f"random {number + 1}" for number in range(RANDOM_NETWORKS))]
    assert [str(name) for name in hdf5.read(results["at"])["stage"]] == [name for name in names if name != "head"]
    model, reader = (checkpoint.read(checkpoints[name]).model(CPU) for name in ("at-att", "reader"))
    # Folded as an analysis does: rounding may carry an activation over its kink, and a map with it.
    reader = fold(reader)
    all_images = torch.tensor(digits.train.images / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    images, labels = all_images[:24], torch.tensor(digits.train.labels[:24])
    mask = find_object_positions(digits.train.first(24).masks, (8, 8))  # type: ignore[arg-type]
    reference = loss_gradient(fold(model), images, labels)
    for name, raw_network in (
        ("trained", model),
        ("norm", randomize(model, 3, all_images, 0)),
        ("stem", randomize_network(model, all_images, 0)),
        ("random 2", randomize_network(model, all_images, 2)),
    ):
        stage, network = names.index(name), fold(raw_network)
        gradient = loss_gradient(network, images, labels)
        with torch.no_grad():
            read = reader(as_image(-gradient, "clip", 0.0)).argmax(1)
            attention = compute_position_weights(network, images, "attention").numpy()
        np.testing.assert_array_equal(result["per_image/evaluator_prediction"][:, stage], read)
        np.testing.assert_allclose(result["per_image/read"][:, stage], read == labels)
        on_object = (attention * mask).sum(1)
        np.testing.assert_allclose(result["per_image/weights_on_object"][:, stage], on_object, atol=1e-4)
        spearman = [stats.spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(gradient, reference, strict=True)]
        np.testing.assert_allclose(result["per_image/gradient"][:, stage], spearman, atol=1e-3)


@pytest.mark.parametrize("name", ["at", "at-att"])
def test_likeness_begins_at_one_and_ends_low(results: dict[str, Path], name: str) -> None:
    result = hdf5.read(results[name])
    for path in ("magnitude", "gradient", "ssim", "weights"):
        values = result[f"per_image/{path}"]
        finite = np.isfinite(values).all(1)
        assert finite.mean() > 0.9
        np.testing.assert_allclose(values[finite, 0], 1, atol=1e-5)
        assert values[finite, -1].mean() < 0.6
    score = list(SCORES).index("gradient magnitude")
    assert (result["gate/needed"][score], result["gate/passed"][score]) == (1, 1)
    row = randomization.table_row(result)
    stage = result["stage"][result["gate/from_stage"][score]]
    assert row["gradient magnitude"] == f"1.00 to {result['random/mean'][score, 0]:.2f}, {stage}"


def test_the_statistics_follow_from_the_stored_rows(results: dict[str, Path], digits: Dataset) -> None:
    for path in results.values():
        result = hdf5.read(path)
        for name, values in summarize(Columns(columns(path)), digits.train.first(24)).items():
            np.testing.assert_array_equal(result[name], values, err_msg=name)


def test_rows_do_not_depend_on_the_batch_size(
    results: dict[str, Path], checkpoints: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    reference = columns(results["at"])
    path = work(checkpoints["at"], digits, tmp_path, reader=checkpoints["reader"], batch_size=7, limit=18).run()
    for name, values in columns(path).items():
        tolerance = 0 if values.dtype.kind == "i" else 5e-3
        np.testing.assert_allclose(values, reference[name][:18], rtol=0, atol=tolerance, err_msg=name)


def test_a_stopped_run_goes_on_to_the_same_file(
    results: dict[str, Path], checkpoints: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    job, calls = work(checkpoints["at-att"], digits, tmp_path, reader=checkpoints["reader"]), [0]
    state_before, weights = torch.get_rng_state(), state(job.model)

    def fail(model: Classifier, batch: Batch, cascade: Any) -> dict[str, AnyArray]:
        calls[0] += 1
        if calls[0] == 2:
            raise RuntimeError("as a crash would")
        return rows(model, batch, cascade)

    job.analysis = replace(job.analysis, rows=fail)
    with pytest.raises(RuntimeError, match="crash"):
        job.run()
    assert torch.equal(torch.get_rng_state(), state_before)
    assert all(compare(weights, state(job.model)).values())
    assert not any(module.training for module in job.model.modules())
    path = work(checkpoints["at-att"], digits, tmp_path, reader=checkpoints["reader"]).run()
    assert hdf5.attributes(path)["content_sha256"] == hdf5.attributes(results["at-att"])["content_sha256"]


def test_another_seed_gives_other_random_networks(
    results: dict[str, Path], checkpoints: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    path = work(checkpoints["at"], digits, tmp_path, reader=checkpoints["reader"], settings={"seed": 1}, limit=9).run()
    first, other = columns(results["at"])["per_image/magnitude"][:9], columns(path)["per_image/magnitude"]
    np.testing.assert_allclose(other[:, 0], first[:, 0], atol=1e-6)
    assert (abs(other[:, 1:7] - first[:, 1:7]) > 1e-3).mean() > 0.9
    # No whole random network, the cascade's last and the independent ones, is one of the other seed.
    assert (abs(first[:, 6:, None] - other[:, None, 6:]) > 1e-3).mean(0).min() > 0.7


def test_no_two_seeds_have_a_random_network_in_common() -> None:
    assert list(choose_seeds(0)) == [0, 1, 2, 3, 4, 5, 6]
    seeds = [seed for number in (0, 1, 2, 3, 7, 2**60 - 1) for seed in choose_seeds(number)]
    assert len(set(seeds)) == len(seeds) == 42
    last = choose_seeds(2**63 - 1)[-1]
    assert 0 <= last < 2**64 and torch.Generator().manual_seed(last).initial_seed() == last


def test_the_figure_carries_its_numbers(results: dict[str, Path], tmp_path: Path) -> None:
    (picture,) = draw("randomization", list(results.values()), tmp_path, lambda _: None)
    sidecar = json.loads(picture.with_suffix(".json").read_text())
    assert set(sidecar["numbers"]) == {"at seed 0, Grad-CAM", "at-att seed 0"}
    result, numbers = hdf5.read(results["at"]), sidecar["numbers"]["at seed 0, Grad-CAM"]
    assert numbers["score"] == list(SCORES)
    for name in ("cascade/mean", "random/mean", "gate/passed"):
        np.testing.assert_array_equal(numbers[name], result[name])
    for phrase in ("24 train images of cluttered-digits", "cluttered-digits-small-natural-seed1 reads", "seed 0"):
        assert phrase in sidecar["caption"]


def test_random_networks_of_all_models_stand_in_the_gray_band(results: dict[str, Path]) -> None:
    """A model with attention has a stage more than one without."""
    figure = compose("randomization", [hdf5.read(path) for path in results.values()]).figure
    axes: Any = figure.axes[0]
    (band,) = [tick.get_position()[0] for tick in axes.get_xticklabels() if tick.get_text() == "random"]
    marks = [float(container.lines[0].get_xdata()[0]) for container in axes.containers]
    assert len(marks) == 2 and all(abs(mark - band) < 0.5 for mark in marks)


def test_each_model_has_its_own_level_of_weights_where_positions_differ(results: dict[str, Path]) -> None:
    first, second = (hdf5.read(results["at"]) for _ in range(2))
    baseline = first["random/uninformed"]
    place = list(SCORES).index("weights on object")
    second._small["random/uninformed"] = baseline + 0.125 * (np.arange(len(SCORES)) == place)
    panels: Any = figures.get("randomization").draw([first, second]).figure.axes
    dots = {
        axes.get_title(): [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] for axes in panels
    }
    assert dots["share of weights\non object"] == [baseline[place], baseline[place] + 0.125]
    assert dots["share of |g|\non object"] == [baseline[place - 2]]
    assert dots["gradient-map score"] == [0.1]


def cut(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("hold", [nn.utils.weight_norm, cut])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_weights_that_a_layer_does_not_reset_itself_are_drawn_too(hold: Any) -> None:
    """Weight normalization and pruning keep a layer's weights under other names, and compute `weight` of them."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())
    hold(network[0])
    images = torch.rand(4, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    model = WrappedModel(copy_of(network), Preprocess((0.0,), (1.0,)), "0")
    random = randomize_network(model, images, seed=0)
    for (name, weights), original in zip(random.named_parameters(), model.parameters(), strict=True):
        assert not torch.equal(weights, original), name
    random(images)  # computes `weight` anew
    kernels = torch.stack(
        [torch.as_tensor(network.backbone.get_submodule("0").weight).flatten() for network in (random, model)]
    )
    assert float(torch.corrcoef(kernels)[0, 1].abs()) < 0.3


class Hideout(nn.Module):
    """A network whose only convolution is kept in some place."""

    mask: Tensor
    blur: Tensor

    def __init__(self, place: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        kernel = torch.randn(8, 3, 3, 3, generator=generator)
        self.body, self.answer = nn.Identity(), nn.Linear(8, 7)
        self.box: list[Any] = [{"kernel": kernel}] if place == "list" else []
        self.array = kernel.numpy() if place == "array" else None
        if place == "buffer":
            self.register_buffer("kernel", kernel)
        elif place == "attribute":
            self.kernel = kernel
        self.take = (lambda: kernel) if place == "closure" else None
        # What is constant by construction: a mask and a filter, whose numbers repeat.
        self.register_buffer("mask", (torch.arange(20 * 24).reshape(20, 24) % 3 > 0).float())
        self.register_buffer("blur", torch.ones(3, 1, 3, 3) / 9)

    def get(self) -> Tensor:
        if self.take is not None:
            return self.take()
        if self.array is not None:
            return torch.from_numpy(self.array)
        kernel: Tensor = self.box[0]["kernel"] if self.box else self.kernel
        return kernel

    def forward(self, images: Tensor) -> Tensor:
        smooth = nn.functional.conv2d(images * self.mask, self.blur, padding=1, groups=3)
        logits: Tensor = self.answer(self.body(nn.functional.conv2d(smooth, self.get())).relu().mean((2, 3)))
        return logits


@pytest.mark.parametrize("place", ["buffer", "attribute", "list"])
def test_weights_that_are_no_parameters_are_drawn_too(place: str) -> None:
    """Their numbers come in a random order, what is constant by construction stays, and the model's own stay."""
    network, images = Hideout(place), pixels(9, 3, 20, 24)
    model = WrappedModel(network.eval(), Preprocess((0.0,), (1.0,)), "body")
    original = network.get().clone()
    assert doubt_about_random(model, images[:1]) is None
    networks: list[Any] = [randomize_network(model, images, seed).backbone for seed in (1, 2)]
    first, second = networks
    for kernel in (first.get(), second.get()):
        torch.testing.assert_close(kernel.flatten().sort().values, original.flatten().sort().values)
        assert float(torch.corrcoef(torch.stack([kernel.flatten(), original.flatten()]))[0, 1].abs()) < 0.3
    assert not torch.equal(first.get(), second.get())
    assert torch.equal(network.get(), original)
    assert torch.equal(first.mask, network.mask) and torch.equal(first.blur, network.blur)


@pytest.mark.parametrize("place", ["closure", "array"])
def test_weights_that_no_layer_holds_are_told(place: str) -> None:
    model = WrappedModel(Hideout(place).eval(), Preprocess((0.0,), (1.0,)), "body")
    doubt = doubt_about_random(model, pixels(1, 3, 20, 24))
    assert doubt is not None and doubt.startswith("uses 216 numbers that no layer holds")
    assert doubt_about_random(small(), pixels(1, 3, 20, 24)) is None


@pytest.mark.parametrize("hold", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_normalization_divides_by_the_largest_singular_value_of_new_weights(hold: Any) -> None:
    network = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 7))
    hold(network[0]), hold(network[4])
    images = pixels(9, 3, 6, 7)
    network(images)
    random = randomize_network(WrappedModel(copy_of(network).eval(), Preprocess((0.0,), (1.0,)), "0"), images, seed=3)
    random(images)
    for name in ("0", "4"):
        weight: Any = random.backbone.get_submodule(name).weight
        assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, abs=0.02)
        old_weight: Any = network.get_submodule(name).weight
        assert not torch.allclose(weight, old_weight)
