"""Feature deletion: slow loops, and networks of which it is known what their decision rests on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpret_robust.analyses import feature_deletion
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.feature_deletion import (
    CONTRASTS,
    ORDERS,
    DeletionSettings,
    Reference,
    choose_counts,
    predict_without,
    rank_positions,
    rows,
    summarize,
)
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.curves import area_under
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.figures.drawing import draw
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns

CPU = torch.device("cpu")
N, C, H, W = 6, 3, 4, 5
P = H * W
Make = Callable[..., Path]


class FirstChannel(nn.Module):
    """Attention in proportion to the first channel, which must be positive."""

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        weight = local[:, 0].flatten(1)
        attention = weight / weight.sum(1, keepdim=True)
        return attention, (local.flatten(2) * attention[:, None]).sum(2)


class Ramp(DeletionSettings):
    """Moves the second channel of position p by p times a hundredth, so that distance grows along positions."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int]) -> Tensor:
        adversarial = images.clone()
        adversarial[:, 1] += torch.arange(P).reshape(H, W) / 100
        return adversarial


def known_model(seed: int = 0) -> Classifier:
    """A model whose local features are its images, and whose answers change with little."""
    model = Classifier(nn.Identity(), FirstChannel(), nn.Linear(C, 4))
    with torch.no_grad():
        model.classifier.weight.copy_(torch.randn(4, C, generator=torch.Generator().manual_seed(seed)))
        model.classifier.bias.copy_(-model.classifier.weight.sum(1) / 2)
    return model.eval()


def images(count: int = N) -> Tensor:
    return torch.rand((count, C, H, W), generator=torch.Generator().manual_seed(1)) + 0.01


def batch(count: int = N) -> Batch:
    return Batch(images(count), torch.arange(count) % 4, range(3, 3 + count), None)


def reference(fill: float = 0.4) -> Reference:
    prior = np.random.default_rng(2).random(P)
    return Reference(Ramp(spatial_weight="attention"), torch.full((C,), fill) * torch.arange(1, C + 1), prior)


def split(count: int) -> Split:
    return Split(np.zeros((count, H, W, C), np.uint8), np.arange(count) % 4)


@pytest.mark.parametrize(
    ("positions", "counts"),
    [
        (64, tuple(range(0, 65, 4))),
        (5, (0, 1, 2, 3, 4, 5)),
        (20, (0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 14, 15, 16, 18, 19, 20)),
    ],
)
def test_counts_go_from_nothing_to_everything(positions: int, counts: tuple[int, ...]) -> None:
    assert choose_counts(positions) == counts


def test_ranks_are_those_of_sorting_each_image() -> None:
    rng = np.random.default_rng(0)
    weights, distance, prior = rng.integers(0, 4, (N, P)) / 10, rng.random((N, P)), rng.random(P)
    weights[2] = np.nan
    ranks = rank_positions(weights, distance, prior, 7, range(3, 3 + N))
    for n in range(N):
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([7, 3 + n, 1])))
        chance = stream.random(P).tolist()
        attention = [0.0] * P if n == 2 else weights[n].tolist()
        keys: dict[str, list[float]] = {
            "attended": [-w for w in attention],
            "unattended": attention,
            "robust": distance[n].tolist(),
            "fragile": (-distance[n]).tolist(),
            "prior": (-prior).tolist(),
            "random": [0.0] * P,
        }
        for order, name in enumerate(ORDERS):
            slow = sorted(range(P), key=lambda p: (keys[name][p], chance[p]))
            assert [slow.index(p) for p in range(P)] == ranks[order, n].tolist(), name
    # Without weights, or with equal ones, attention says nothing: the order is the random one.
    np.testing.assert_array_equal(ranks[ORDERS.index("attended"), 2], ranks[ORDERS.index("random"), 2])
    np.testing.assert_array_equal(
        rank_positions(weights[4:], distance[4:], prior, 7, range(7, 3 + N)), ranks[:, 4:], "not of the batch"
    )
    other = rank_positions(weights, distance, prior, 8, range(3, 3 + N))
    random = ORDERS.index("random")
    assert (other[random] != ranks[random]).mean() > 0.8
    assert all((ranks[random, n] != ranks[random, m]).any() for n in range(N) for m in range(n))


def test_answers_are_those_of_a_slow_loop() -> None:
    model, local, fill = known_model(), images(), torch.tensor([0.3, 0.1, 0.9])
    ranks = np.argsort(np.random.default_rng(1).random((2, N, P)), axis=2)
    answers = predict_without(model, local, local, torch.from_numpy(ranks), fill)
    counts = choose_counts(P)
    assert answers.shape == (N, 2, len(counts))
    distinct = set()
    for n in range(N):
        for order in range(2):
            for step, count in enumerate(counts):
                left = local[n].clone()
                for p in range(P):
                    if ranks[order, n, p] < count:
                        left[:, p // W, p % W] = fill
                with torch.no_grad():
                    answer = int(model(left[None]).argmax())
                assert answers[n, order, step] == answer
                distinct.add(answer)
    assert len(distinct) > 1


def test_rows_take_orders_from_the_clean_image_and_answers_from_both() -> None:
    model, clean, replacement = known_model(), batch(), reference()
    columns = rows(model, clean, replacement)
    adversarial = Ramp()(model, clean.images, clean.labels, clean.indices)
    first = clean.images[:, 0].flatten(1).double().numpy()
    weights = first / first.sum(1, keepdims=True)
    distance = np.broadcast_to(np.arange(P) / 100, (N, P))
    np.testing.assert_allclose(columns["per_image/weights"], weights, rtol=1e-6)
    np.testing.assert_allclose(columns["per_image/distance"], distance, atol=1e-7)
    ranks = torch.from_numpy(
        rank_positions(columns["per_image/weights"], columns["per_image/distance"], replacement.prior, 0, clean.indices)
    )
    for condition, local in enumerate((clean.images, adversarial)):
        right = predict_without(model, local, local, ranks, replacement.fill) == clean.labels[:, None, None]
        np.testing.assert_array_equal(columns["per_image/correct"][:, condition], right)
    with torch.no_grad():
        np.testing.assert_array_equal(columns["per_image/prediction_clean"], model(clean.images).argmax(1))
        np.testing.assert_array_equal(columns["per_image/prediction_adversarial"], model(adversarial).argmax(1))
    assert (columns["per_image/correct"][:, 0] != columns["per_image/correct"][:, 1]).any()
    assert columns.keys() == {column.path for column in feature_deletion.SCHEMA.per_image}


def test_areas_are_trapezoids_over_the_share_removed() -> None:
    counts = (0, 1, 3, 4)
    curves = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]])
    np.testing.assert_allclose(area_under(curves, counts), [1, 0.5 / 4, 3.5 / 4, 1.5 / 4], rtol=1e-12)
    np.testing.assert_array_equal(area_under(curves[None, None], counts)[0, 0], area_under(curves, counts))


def one_position(count: int, position: AnyArray, position_of_robustness: AnyArray) -> dict[str, AnyArray]:
    """Rows of a model that needs one position and attends to it, and images of which one position is most robust."""
    indices = range(count)
    weights, distance = np.full((count, P), 0.01), np.tile(np.arange(1.0, P + 1), (count, 1))
    weights[indices, position], distance[indices, position_of_robustness] = 1, 0
    ranks = rank_positions(weights, distance, np.arange(P), 0, indices)
    of_needed = ranks[:, indices, position].T  # (N, order)
    correct = of_needed[:, :, None] >= np.array(choose_counts(P))
    return {
        "per_image/correct": np.stack([correct, np.zeros_like(correct)], 1).astype(np.uint8),
        "per_image/weights": weights,
    }


def test_what_a_decision_rests_on_costs_its_whole_area() -> None:
    count = 200
    positions = np.random.default_rng(0).integers(0, P, count)
    statistics = summarize(Columns(one_position(count, positions, positions)), split(count))
    areas = dict(zip(ORDERS, statistics["area/under"][0, :, 0], strict=True))
    first, last = 1 / P, 1 / P
    assert areas["attended"] == areas["robust"] == pytest.approx(first / 2)
    assert areas["unattended"] == areas["fragile"] == pytest.approx(1 - last / 2)
    assert areas["random"] == pytest.approx(0.5, abs=0.06)
    contrasts = dict(zip(CONTRASTS, statistics["area/between"][0], strict=True))
    assert contrasts["attended", "random"][0] == pytest.approx(areas["random"] - areas["attended"])
    assert contrasts["attended", "random"][1] > 0.4
    assert contrasts["fragile", "random"][2] < -0.4
    # Removed in the same order, image by image: no difference, and none in any resample of images.
    assert contrasts["attended", "robust"].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(statistics["area/under"][1], 0)
    np.testing.assert_array_equal(statistics["curve/accuracy"][0, :, 0], 1)
    np.testing.assert_array_equal(statistics["curve/accuracy"][0, :, -1], 0)
    assert statistics["count/without_weights"] == 0


def test_intervals_between_are_of_the_paired_differences() -> None:
    count, rng = 300, np.random.default_rng(1)
    found_rows = one_position(count, rng.integers(0, P, count), rng.integers(0, P, count))
    statistics = summarize(Columns(found_rows), split(count))
    areas = area_under(found_rows["per_image/correct"], choose_counts(P))
    for number, (first, second) in enumerate(CONTRASTS):
        difference = areas[:, 0, ORDERS.index(second)] - areas[:, 0, ORDERS.index(first)]
        value, low, high = statistics["area/between"][0, number]
        error = difference.std() / count**0.5
        assert value == pytest.approx(difference.mean())
        assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.4 * error)


def work(path: Path, dataset: Dataset, folder: Path, **changes: Any) -> Work:
    settings = DeletionSettings(steps=2, **changes.pop("settings", {}))
    plain: dict[str, Any] = {"split": "test", "limit": None, "batch_size": 16, "device": CPU}
    return Work(
        feature_deletion.ANALYSIS, checkpoint.read(path), dataset, folder, settings=settings, **(plain | changes)
    )


@pytest.fixture(scope="module")
def checkpoint_paths(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return {name: make_checkpoint(folder, name) for name in ("at", "at-att")}


@pytest.fixture(scope="module")
def result_paths(
    checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("finished")
    return {name: work(path, digits, folder, split="train").run() for name, path in checkpoint_paths.items()}


def columns(path: Path) -> dict[str, AnyArray]:
    result = hdf5.read(path, feature_deletion.SCHEMA.label)
    return {column.path: result[column.path] for column in feature_deletion.SCHEMA.per_image}


@pytest.mark.long
@pytest.mark.parametrize("name", ["at", "at-att"])
def test_ends_of_the_stored_curves(result_paths: dict[str, Path], name: str) -> None:
    result = hdf5.read(result_paths[name])
    assert result.config["settings"]["spatial_weight"] == {"at": "grad-cam", "at-att": "attention"}[name]
    assert result["removed"].tolist() == list(range(0, 65, 4))
    label, curve = result["per_image/label"], result["curve/accuracy"]
    for row, condition in enumerate(("clean", "adversarial")):
        accuracy = (result[f"per_image/prediction_{condition}"] == label).mean()
        np.testing.assert_allclose(curve[row, :, 0], accuracy)
    last_step = result["per_image/correct"][..., -1].reshape(len(label), -1)
    assert (last_step == last_step[:, :1]).all(), "all removed: nothing of the image is left"
    assert (curve[0, :, 0] > 0.9).all()
    assert (curve[0, :, -1] < 0.5).all()
    assert (result["curve/low"] <= curve).all() and (curve <= result["curve/high"]).all()


def test_the_statistics_follow_from_the_stored_rows(result_paths: dict[str, Path], digits: Dataset) -> None:
    for path in result_paths.values():
        result = hdf5.read(path)
        for name, values in summarize(Columns(columns(path)), digits.train).items():
            np.testing.assert_array_equal(result[name], values, err_msg=name)


@pytest.mark.parametrize("name", ["at", "at-att"])
def test_what_replaces_a_feature_is_the_mean_of_training_images(
    checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path, name: str
) -> None:
    job = work(checkpoint_paths[name], digits, tmp_path, batch_size=7, limit=3)
    replacement = feature_deletion.prepare(job)
    images = torch.tensor(digits.train.images / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        local = job.model.features(images).local
    weights = compute_position_weights(job.model, images, job.settings.spatial_weight).nan_to_num()
    np.testing.assert_allclose(replacement.fill, local.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(replacement.prior, weights.mean(0), rtol=1e-3, atol=1e-6)
    zero = feature_deletion.prepare(work(checkpoint_paths[name], digits, tmp_path, settings={"fill": "zero"}))
    assert (zero.fill == 0).all() and zero.fill.shape == replacement.fill.shape
    assert (replacement.fill != 0).all()


def test_rows_do_not_depend_on_the_batch_size(
    result_paths: dict[str, Path], checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    expected = columns(result_paths["at-att"])
    other = columns(work(checkpoint_paths["at-att"], digits, tmp_path, split="train", batch_size=7, limit=25).run())
    for name, values in other.items():
        if name == "per_image/correct":  # an order may turn where two positions are equal but for rounding
            assert (values != expected[name][:25]).mean() < 0.001
        else:
            np.testing.assert_allclose(values, expected[name][:25], rtol=0, atol=1e-4, err_msg=name)


def test_a_stopped_run_goes_on_to_the_same_file(
    result_paths: dict[str, Path], checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    first_run, batches = work(checkpoint_paths["at"], digits, tmp_path, split="train"), [0]

    def fail_third(model: Classifier, part: Batch, preparation: Any) -> dict[str, AnyArray]:
        batches[0] += 1
        if batches[0] == 3:
            raise RuntimeError("as a crash would")
        return rows(model, part, preparation)

    first_run.analysis = replace(first_run.analysis, rows=fail_third)
    with pytest.raises(RuntimeError, match="crash"):
        first_run.run()
    path = work(checkpoint_paths["at"], digits, tmp_path, split="train").run()
    assert hdf5.attributes(path)["content_sha256"] == hdf5.attributes(result_paths["at"])["content_sha256"]


def test_nothing_is_left_changed(checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path) -> None:
    job = work(checkpoint_paths["at"], digits, tmp_path, limit=5)
    state = torch.get_rng_state()
    originals = {name: values.clone() for name, values in job.network.state_dict().items()}
    job.run()
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module.training for model in (job.network, job.model) for module in model.modules())
    assert all(torch.equal(values, originals[name]) for name, values in job.network.state_dict().items())
    assert all(weights.requires_grad and weights.grad is None for weights in job.network.parameters())


def test_attention_of_a_model_without_is_refused(
    checkpoint_paths: dict[str, Path], digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="'at' has no attention"):
        work(checkpoint_paths["at"], digits, tmp_path, settings={"spatial_weight": "attention"})


def test_the_tables_give_both_conditions(result_paths: dict[str, Path]) -> None:
    result = hdf5.read(result_paths["at-att"])
    intervals = 100 * result["area/between"][:, CONTRASTS.index(("robust", "random"))]
    ((adversarial,),) = feature_deletion.compare([result])
    for row, cells in enumerate((feature_deletion.table_row(result), adversarial)):
        value, low, high = intervals[row]
        assert cells["robust against random"] == f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
        assert cells["features"] == ("clean", "adversarial")[row]
    assert adversarial["model"] == "cluttered-digits-small-at-att-seed0"


def test_the_figure_carries_its_numbers(result_paths: dict[str, Path], tmp_path: Path) -> None:
    (picture,) = draw("feature-deletion", list(result_paths.values()), tmp_path, lambda _: None)
    caption = json.loads(picture.with_suffix(".json").read_text())
    assert set(caption["numbers"]) == {"at seed 0, Grad-CAM", "at-att seed 0"}
    assert (
        "In place of attention, Grad-CAM of the predicted class is used for cluttered-digits-small-at-seed0."
        in (caption["caption"])
    )
    result, numbers = hdf5.read(result_paths["at-att"]), caption["numbers"]["at-att seed 0"]
    assert numbers["order"] == list(ORDERS)
    for name in ("curve/accuracy", "area/between"):
        np.testing.assert_array_equal(numbers[name], result[name])
    for phrase in ("60 train images of cluttered-digits", "64 local features", "PGD-2", "8/255", "mean local feature"):
        assert phrase in caption["caption"]
