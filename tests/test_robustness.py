"""The attack table: its rows against the definition done slowly, its counts, and what it says of them."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Array, InDouble, Linear, array, pixels
from scipy.stats import binomtest
from torch import Tensor, nn

from interpret_robust import analyses, figures
from interpret_robust.analyses.engine.settings import AttackSettings
from interpret_robust.analyses.engine.validation import list_problems
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.gradient_maps import MapSettings
from interpret_robust.analyses.robustness import Context, TableSettings, prepare, rows, summarize, table_row
from interpret_robust.attacks.apgd import APGD, TargetedAPGD
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import LossName
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import as_stored
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.models import checkpoint
from interpret_robust.results import attack_outcomes, hdf5
from interpret_robust.results.columns import Columns
from interpret_robust.results.export import to_csv
from interpret_robust.study.report import gallery

CPU = torch.device("cpu")
SHAPE = (2, 5, 4)
EPS, STEP = 0.1, 0.03
SMALL_EPS = 0.004
Make = Callable[..., Path]


class Waves(nn.Module):
    """Four logits, sines of a convolution: many optima, and a forward pass that can fail."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.kernel = nn.Parameter(10 * torch.randn(6, SHAPE[0], 3, 3, generator=random))
        self.mix = nn.Parameter(torch.randn(4, 6, generator=random))
        self.calls, self.fails_at = 0, math.inf

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.fails_at:
            raise RuntimeError("out of memory, say")
        return F.conv2d(images, self.kernel, padding=1).sin().mean((2, 3)) @ self.mix.T


def batch_of(images: Tensor, labels: Tensor, start: int = 0) -> Batch:
    return Batch(images, labels, range(start, start + len(images)), None)


def make_context(settings: TableSettings, **targets: nn.Module) -> Context:
    dataset = SimpleNamespace(name="odd", class_names=tuple("abcdefgh"))
    work: Any = SimpleNamespace(settings=settings, evaluators=targets, dataset=dataset)
    return prepare(work)


def found_in(model: Any, batch: Batch, settings: TableSettings, **targets: nn.Module) -> dict[str, AnyArray]:
    """Rows by the last part of their paths."""
    columns = rows(model, batch, make_context(settings, **targets))
    return {path.removeprefix("per_image/"): values for path, values in columns.items()}


# --- rows


def loss_gradient(model: nn.Module, image: Array, label: int, loss: str) -> Array:
    """Of one image's loss, written out."""
    variable = torch.tensor(image, dtype=torch.float64, requires_grad=True)
    logits = model(variable[None])[0]
    rest = torch.cat([logits[:label], logits[label + 1 :]])
    value = logits.exp().sum().log() - logits[label] if loss == "cross-entropy" else rest.max() - logits[label]
    (gradient,) = torch.autograd.grad(value, variable)
    return array(gradient)


def walk(model: nn.Module, image: Array, label: int, start: Array, steps: int, loss: str) -> list[Array]:
    """Where PGD is after 0, 1, ... steps, one pixel box at a time."""
    low, high = np.maximum(image - EPS, 0), np.minimum(image + EPS, 1)
    places = [np.clip(image + EPS * start, low, high)]
    for _ in range(steps):
        ahead = places[-1] + STEP * np.sign(loss_gradient(model, places[-1], label, loss))
        places.append(np.clip(ahead, low, high))
    return places


def starts(seed: int, index: int, purpose: int, count: int) -> list[Array]:
    """The first starts of an image, one after the other from its own stream, uniform in [-1, 1)."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, purpose])))
    return [2 * stream.random(SHAPE, dtype=np.float32).astype(np.float64) - 1 for _ in range(count)]


def test_rows_are_those_of_the_definition_done_slowly() -> None:
    source, copy = InDouble(Waves(0)), InDouble(Waves(1))
    images, labels = pixels(7, *SHAPE, low=-0.2, high=1.2).clamp(0, 1), torch.arange(7) % 4
    settings = TableSettings(EPS, STEP, seed=3, pgd="1,6", cw="2,5,9", restarts=3)
    table = found_in(source, batch_of(images, labels, start=11), settings, copy=copy)
    shape = (7, 3, 5, 2)
    expected = {"prediction": np.zeros(shape), "margin": np.zeros(shape)}
    expected |= {"perturbation": np.zeros(shape[:3]), "perturbation_l2": np.zeros(shape[:3])}
    trajectories: list[tuple[str, int, list[int], int]] = [("cross-entropy", 0, [1, 6], 0), ("margin", 3, [2, 5, 9], 2)]
    for row, label in enumerate(labels.tolist()):
        image = array(images[row])
        for loss, purpose, steps, first in trajectories:
            for restart, start in enumerate(starts(3, 11 + row, purpose, 3)):
                places = walk(source, image, label, start, max(steps), loss)
                for reading, step in enumerate(steps, first):
                    change = np.abs(places[step] - image)
                    expected["perturbation"][row, restart, reading] = change.max()
                    expected["perturbation_l2"][row, restart, reading] = math.sqrt((change**2).sum())
                    for target, model in enumerate((source, copy)):
                        logits = array(model(torch.tensor(places[step])[None])[0])
                        best_other = max(np.delete(logits, label))
                        expected["prediction"][row, restart, reading, target] = logits.argmax()
                        expected["margin"][row, restart, reading, target] = logits[label] - best_other
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, atol=1e-4, err_msg=name)
    for target, model in enumerate((source, copy)):
        logits = array(model(images))
        np.testing.assert_array_equal(table["prediction_natural"][:, target], logits.argmax(1))
        true = logits[range(7), labels]
        logits[range(7), labels] = -np.inf
        np.testing.assert_allclose(table["margin_natural"][:, target], true - logits.max(1), atol=1e-6)
    np.testing.assert_array_equal(table["label"], labels)
    assert table["gradients"].tolist() == [3 * (6 + 9)] * 7
    assert len({values.tobytes() for values in np.moveaxis(table["margin"], 0, -1).reshape(-1, 7)}) == 3 * 5 * 2


@pytest.mark.parametrize(("name", "loss", "purpose"), [("PGD", "cross-entropy", 0), ("CW", "margin", 3)])
def test_a_reading_is_bit_for_bit_the_attack_of_that_many_steps(name: str, loss: LossName, purpose: int) -> None:
    source, copy, images, labels = Waves(0), Waves(1), pixels(6, *SHAPE), torch.arange(6) % 4
    settings = TableSettings(EPS, STEP, seed=2, pgd="1,5,20", cw="1,5,20", restarts=2)
    table = found_in(source, batch_of(images, labels), settings, copy=copy)
    noise = {steps: per_image_noise(2, range(6), purpose) for steps in (1, 5, 20)}
    for restart in range(2):
        for steps in (1, 5, 20):
            adversarial = PGD(EPS, STEP, steps, loss=loss)(source, images, labels, noise[steps])
            reading = settings.readings().index(f"{name}-{steps}")
            change = array(torch.linalg.vector_norm((adversarial - images).flatten(1), dim=1))
            np.testing.assert_array_equal(table["perturbation_l2"][:, restart, reading], change)
            for target, model in enumerate((source, copy)):
                answers = array(model(adversarial).argmax(1))
                np.testing.assert_array_equal(table["prediction"][:, restart, reading, target], answers)


def test_pgd_20_is_the_attack_of_every_other_analysis() -> None:
    model, images, labels = Waves(0), pixels(6, *SHAPE), torch.arange(6) % 4
    settings = TableSettings(EPS, STEP, seed=5)
    table = found_in(model, batch_of(images, labels, start=3), settings)
    adversarial = AttackSettings(EPS, STEP, seed=5)(model, images, labels, range(3, 9))
    change = array(torch.linalg.vector_norm((adversarial - images).flatten(1), dim=1))
    np.testing.assert_array_equal(table["perturbation_l2"][:, 0, settings.readings().index("PGD-20")], change)


class GradientCounter(nn.Module):
    """A model that counts the gradients with respect to its images as they come back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients = model, 0

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            images.register_hook(self._count)  # type: ignore[no-untyped-call]
        logits: Tensor = self.model(images)
        return logits

    def _count(self, _: Tensor) -> None:
        self.gradients += 1


@pytest.mark.parametrize(
    ("changes", "gradients"),
    [
        ({}, 300),
        ({"restarts": 2}, 600),
        ({"pgd": "none"}, 100),
        ({"pgd": "7,3", "cw": "4", "restarts": 3}, 33),
        ({"pgd": "none", "cw": "none"}, 0),
    ],
)
def test_each_trajectory_is_walked_once(changes: dict[str, Any], gradients: int) -> None:
    source, copy = GradientCounter(Linear(40)), GradientCounter(Linear(40, seed=1))
    batch = batch_of(pixels(3, *SHAPE), torch.tensor([0, 1, 1]))
    table = found_in(source, batch, TableSettings(EPS, STEP, **changes), copy=copy)
    assert table["gradients"].tolist() == [gradients] * 3
    assert (source.gradients, copy.gradients) == (gradients, 0)


def test_on_a_linear_model_both_attacks_find_the_corner() -> None:
    model, images = Linear(40), pixels(60, *SHAPE, low=0.2, high=0.8)
    labels = model(images).argmax(1)
    eps = 0.02
    table = found_in(model, batch_of(images, labels), TableSettings(eps, eps / 4, pgd="8", cw="8", restarts=2))
    weight = array(model.layer.weight)
    margins = table["margin_natural"][:, 0] - eps * np.abs(weight[0] - weight[1]).sum()
    assert 0.1 < (margins > 0).mean() < 0.9
    for reading in range(2):
        for restart in range(2):
            np.testing.assert_allclose(table["margin"][:, restart, reading, 0], margins, atol=1e-5)
    np.testing.assert_array_equal((table["prediction"] == labels.numpy()[:, None, None, None])[:, 0, 0, 0], margins > 0)
    np.testing.assert_allclose(table["perturbation"], eps, atol=1e-6)
    np.testing.assert_allclose(table["perturbation_l2"], eps * math.sqrt(40), atol=1e-6)


def test_rows_do_not_depend_on_the_batch() -> None:
    source, copy = InDouble(Waves(0)), InDouble(Waves(1))
    images, labels = pixels(7, *SHAPE), torch.arange(7) % 4
    settings = TableSettings(EPS, STEP, pgd="2,7", cw="3", restarts=2)
    whole = found_in(source, batch_of(images, labels, start=20), settings, copy=copy)
    for first, last in ((0, 1), (1, 4), (4, 7)):
        part = batch_of(images[first:last], labels[first:last], start=20 + first)
        for name, values in found_in(source, part, settings, copy=copy).items():
            np.testing.assert_allclose(values, whole[name][first:last], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("fails_at", [math.inf, 1, 2, 6])
def test_models_and_random_state_are_left_as_found(fails_at: float) -> None:
    source, copy = Waves(0), Waves(1)
    source.fails_at = fails_at
    state = torch.get_rng_state()
    batch, settings = batch_of(pixels(3, *SHAPE), torch.tensor([0, 1, 3])), TableSettings(EPS, STEP, pgd="4", cw="2")
    if fails_at < math.inf:
        with pytest.raises(RuntimeError, match="out of memory"):
            rows(source, batch, make_context(settings, copy=copy))  # type: ignore[arg-type]
    else:
        rows(source, batch, make_context(settings, copy=copy))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    for model in (source, copy):
        assert model.training and not model._forward_pre_hooks
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not batch.images.requires_grad


def test_a_model_whose_answers_are_no_numbers_is_never_right() -> None:
    model = Linear(40)
    with torch.no_grad():
        model.layer.weight[0, 0] = math.nan
    batch, settings = batch_of(pixels(3, *SHAPE), torch.tensor([0, 1, 1])), TableSettings(EPS, STEP)
    columns = found_in(model, batch, settings)
    assert (columns["prediction_natural"] == -1).all()
    assert (columns["prediction"] == -1).all()
    assert (columns["perturbation"] == 0).all()


# --- statistics


def columns_of(label: AnyArray, natural: AnyArray, adversarial: AnyArray) -> Columns:
    return Columns(
        {"per_image/label": label, "per_image/prediction_natural": natural, "per_image/prediction": adversarial}
    )


def of_nothing() -> Split:
    return Split(np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int64))


def test_statistics_are_counts_over_images_where_every_restart_must_fail() -> None:
    rng = np.random.default_rng(0)
    label, natural, adversarial = (rng.integers(0, 2, shape) for shape in (19, (19, 3), (19, 2, 4, 3)))
    natural[:17], adversarial[:15] = label[:17, None], label[:15, None, None, None]
    adversarial[3, 1, 2, 0] = 1 - label[3]
    summary = summarize(columns_of(label, natural, adversarial), of_nothing())
    counts = {"natural": np.zeros(3, int), "adversarial": np.zeros((4, 3), int), "worst": np.zeros(3, int)}
    for image in range(19):
        for target in range(3):
            good = natural[image, target] == label[image]
            counts["natural"][target] += good
            for reading in range(4):
                resists = all(adversarial[image, restart, reading, target] == label[image] for restart in range(2))
                counts["adversarial"][reading, target] += resists
                good = good and resists
            counts["worst"][target] += good
    assert summary.keys() == {f"accuracy/{name}" for name in counts}
    for name, expected in counts.items():
        values = summary[f"accuracy/{name}"]
        assert values.shape == (*expected.shape, 3)
        for place, count in np.ndenumerate(expected):
            interval = binomtest(int(count), 19).proportion_ci(method="wilson")
            np.testing.assert_allclose(values[place], [count / 19, interval.low, interval.high])
    assert (counts["worst"] < counts["adversarial"].min(0)).any()


# --- APGD


def by_apgd(restarts: int = 2) -> TableSettings:
    return TableSettings(SMALL_EPS, SMALL_EPS / 4, seed=3, pgd="1", cw="none", apgd="4", restarts=restarts)


def test_apgd_of_three_classes_is_refused_before_any_attack() -> None:
    dataset = SimpleNamespace(name="odd", class_names=("a", "b", "c"))

    def make_work(apgd: str) -> Any:
        settings = TableSettings(pgd="1", cw="none", apgd=apgd).resolve({})
        return SimpleNamespace(settings=settings, evaluators={}, dataset=dataset)

    with pytest.raises(UserError, match="odd has 3 classes, and APGD-T needs 4: leave --apgd out"):
        prepare(make_work("2"))
    assert prepare(make_work("none")).settings.apgd == "none"


def test_apgd_is_read_last_and_apgd_t_attacks_what_is_right_so_far() -> None:
    source, copy, images = Waves(0), Waves(1), pixels(40, *SHAPE)
    labels = source(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 4
    settings = by_apgd()
    assert settings.readings() == ("PGD-1", "APGD-CE-4", "APGD-T-4")
    table = found_in(source, batch_of(images, labels, 7), settings, copy=copy)
    best, right = images, source(images).argmax(1) == labels
    gradient_counts = torch.full((40,), 2)
    noises = {name: per_image_noise(3, range(7, 47), purpose) for name, purpose in (("PGD", 0), ("CE", 4), ("T", 5))}
    attacks: dict[str, Callable[[], tuple[Tensor, Any]]] = {
        "PGD": lambda: (PGD(SMALL_EPS, SMALL_EPS / 4, 1)(source, images, labels, noises["PGD"]), 0),
        "CE": lambda: APGD(SMALL_EPS, 4)(source, images, labels, noises["CE"]),
        "T": lambda: TargetedAPGD(SMALL_EPS, 4)(source, images, labels, noises["T"]),
    }
    image_counts = []
    for reading, name in enumerate(attacks):
        for restart in range(2):
            adversarial, gradients = attacks[name]()
            if name == "T":
                image_counts.append(int(right.sum()))
                gradients = torch.where(right, gradients, 0)
                adversarial = torch.where(right[:, None, None, None], adversarial, best)
            gradient_counts += gradients
            for target, model in enumerate((source, copy)):
                answers = model(adversarial).argmax(1)
                np.testing.assert_array_equal(table["prediction"][:, restart, reading, target], answers)
            wrong = source(adversarial).argmax(1) != labels
            right = right & ~wrong
            best = torch.where(wrong[:, None, None, None], adversarial, best)
    np.testing.assert_array_equal(table["gradients"], gradient_counts)
    assert 36 > image_counts[0] > image_counts[1] >= int(right.sum()) > 0


def test_the_white_box_accuracy_of_apgd_t_is_that_of_the_worst_case() -> None:
    images = pixels(40, *SHAPE)
    source: Any = Waves(0)
    labels = source(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 4
    columns = rows(source, batch_of(images, labels), make_context(by_apgd(1), copy=Waves(1)))
    summary = summarize(Columns(columns), of_nothing())
    np.testing.assert_array_equal(summary["accuracy/adversarial"][2, 0], summary["accuracy/worst"][0])
    survivors = columns["per_image/prediction"][:, :, :2, 0] == labels.numpy()[:, None, None]
    assert 0 < summary["accuracy/worst"][0, 0] < survivors.all((1, 2)).mean()


def test_with_apgd_no_row_depends_on_the_batch() -> None:
    images, source = pixels(11, *SHAPE), Waves(0)
    labels = source(images).argmax(1)
    whole = found_in(source, batch_of(images, labels), by_apgd())
    parts = [
        found_in(source, batch_of(images[cut], labels[cut], cut.start), by_apgd())
        for cut in (slice(0, 3), slice(3, 11))
    ]
    for name, values in whole.items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), values, atol=1e-4)


def test_without_apgd_a_file_is_that_of_before_there_was_any() -> None:
    settings = hdf5.read(Path(__file__).parent / "golden" / "robustness-2.h5").config["settings"]
    assert as_stored(TableSettings(EPS, STEP).resolve({})).keys() == settings.keys()
    assert as_stored(by_apgd())["apgd"] == "4"


@pytest.mark.parametrize("steps", ["0", "5,20", "often"])
def test_steps_of_apgd_are_one_number(steps: str) -> None:
    with pytest.raises(UserError, match=f"'{steps}'"):
        TableSettings(apgd=steps).resolve({"recipe": {"eps": 0.3}})


# --- settings


@pytest.mark.parametrize(
    ("options", "pgd", "cw", "names"),
    [
        ({}, "5,20,100,200", "30,100", "PGD-5 PGD-20 PGD-100 PGD-200 CW-30 CW-100"),
        ({"pgd": "20,5"}, "5,20", "30,100", "PGD-5 PGD-20 CW-30 CW-100"),
        ({"pgd": " 40, 100,40", "cw": "none"}, "40,100", "none", "PGD-40 PGD-100"),
        ({"pgd": "none", "cw": "007"}, "none", "7", "CW-7"),
        ({"pgd": "none", "cw": "none"}, "none", "none", ""),
    ],
)
def test_steps_are_put_in_order(options: Mapping[str, Any], pgd: str, cw: str, names: str) -> None:
    settings = TableSettings(**options).resolve({"recipe": {"eps": 0.3}})
    assert settings == TableSettings(0.3, 0.075, norm="linf", pgd=pgd, cw=cw)
    assert settings.readings() == tuple(names.split())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pgd": "0"}, "pgd: '0' is no list of steps: give numbers from 1 on, such as 5,20, or none."),
        ({"pgd": "5,-1"}, "pgd: '5,-1' is no list of steps"),
        ({"cw": "x"}, "cw: 'x' is no list of steps"),
        ({"cw": "1.5"}, "'1.5' is no list of steps"),
        ({"cw": "5,,20"}, "'5,,20' is no list of steps"),
        ({"restarts": 0}, "restarts is 0: there must be at least one."),
        ({"restarts": -2}, "restarts is -2: there must be at least one."),
        ({"seed": -1}, "seed is -1: it must not be negative."),
        ({"eps": 8.0}, "eps is 8: it must lie within 0 and 1"),
        ({"step_size": -0.1}, "step size is -0.1"),
    ],
)
def test_what_is_out_of_range_is_said(options: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        TableSettings(**options).resolve({"recipe": {"eps": 0.3}})
    assert sentence in str(error.value)


# --- files


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> list[checkpoint.Checkpoint]:
    """A source and two copies of it."""
    folder = tmp_path_factory.mktemp("trained")
    return [checkpoint.read(make_checkpoint(folder, "at-att", seed)) for seed in (0, 1, 2)]


def work(
    models: list[checkpoint.Checkpoint], dataset: Dataset, folder: Path, name: str = "robustness", **changes: Any
) -> Work:
    plain: dict[str, Any] = {"split": "train", "limit": None, "batch_size": 16, "device": CPU}
    settings = TableSettings(eps=2 / 255, pgd="3,6", cw="4", restarts=2)
    plain |= {"settings": settings, "evaluators": models[1:]}
    return Work(analyses.get(name), models[0], dataset, folder, **(plain | changes))


@pytest.mark.long
def test_a_file_says_what_each_target_makes_of_the_sources_images(
    checkpoints: list[checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    path = work(checkpoints, digits, tmp_path, batch_size=60).run()
    result = hdf5.read(path)
    assert list_problems(path) == []
    assert attack_outcomes.list_targets(result) == [model.path.stem for model in checkpoints]
    assert attack_outcomes.list_readings(result) == ["PGD-3", "PGD-6", "CW-4"]
    models = [model.model(CPU) for model in checkpoints]
    images = torch.tensor(digits.train.images / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    labels = torch.tensor(digits.train.labels)
    noise = per_image_noise(0, range(60))
    eps = 2 / 255
    adversarial = [PGD(eps, eps / 4, 6)(models[0], images, labels, noise) for _ in range(2)]
    with torch.no_grad():
        for target, model in enumerate(models):
            natural = (model(images).argmax(1) == labels).numpy()
            resists = [(model(example).argmax(1) == labels).numpy() for example in adversarial]
            np.testing.assert_array_equal(attack_outcomes.find_right(result, None, target), natural)
            np.testing.assert_array_equal(attack_outcomes.find_right(result, "PGD-6", target), resists[0] & resists[1])
            assert result["accuracy/adversarial"][1, target, 0] == pytest.approx((resists[0] & resists[1]).mean())
            worst = natural.copy()
            for name in ("PGD-3", "PGD-6", "CW-4"):
                worst &= attack_outcomes.find_right(result, name, target)
            np.testing.assert_array_equal(attack_outcomes.find_right_in_worst_case(result, target), worst)
            assert result["accuracy/worst"][target, 0] == pytest.approx(worst.mean())
    white, black = result["accuracy/worst"][0, 0], result["accuracy/worst"][1:, 0]
    assert white < min(black) - 0.1


@pytest.mark.parametrize(
    ("settings", "headline"),
    [
        ({"pgd": "3,20,21", "cw": "2"}, "PGD-20"),
        ({"pgd": "2,3", "cw": "4"}, "PGD-3"),
        ({"pgd": "none", "cw": "2,4"}, "CW-4"),
        ({"pgd": "none", "cw": "none"}, None),
    ],
)
def test_one_reading_stands_for_all(
    checkpoints: list[checkpoint.Checkpoint],
    digits: Dataset,
    tmp_path: Path,
    settings: dict[str, Any],
    headline: str | None,
) -> None:
    path = work(checkpoints[:1], digits, tmp_path, settings=TableSettings(**settings), limit=4).run()
    assert attack_outcomes.find_headline(hdf5.read(path)) == headline


def test_without_attacks_a_file_holds_natural_accuracies(
    checkpoints: list[checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    path = work(checkpoints, digits, tmp_path, settings=TableSettings(pgd="none", cw="none"), limit=20).run()
    result = hdf5.read(path)
    assert list_problems(path) == []
    assert result["per_image/prediction"].shape == (20, 1, 0, 3)
    np.testing.assert_array_equal(result["accuracy/worst"], result["accuracy/natural"])
    (bars,) = figures.get("robustness").draw([result]).numbers["at-att seed 0"].values()
    np.testing.assert_array_equal(bars, result["accuracy/natural"][0])
    assert f"{100 * result['accuracy/natural'][0, 0]:.1f} %" in " ".join(table_row(result).values())
    assert to_csv(path, tmp_path).left_out == []
    maps = work(checkpoints[:1], digits, tmp_path, "gradient-maps", settings=MapSettings(), limit=20)
    album = gallery.make_gallery([hdf5.read(maps.run()), result])
    assert album is not None
    assert album["told"]["models"][0]["adversarial"] is None
