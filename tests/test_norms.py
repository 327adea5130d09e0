"""Balls in L2 and L1: projections against a slow one, uniform starts, closed forms on linear models, refusals."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from networks import Array, Linear, array, pixels
from scipy import stats
from torch import Tensor, nn
from trainer import train

from interpret_robust import analyses, cli
from interpret_robust.analyses import get
from interpret_robust.analyses.autoattack import AutoAttackSettings
from interpret_robust.analyses.engine.naming import name_file
from interpret_robust.analyses.engine.settings import AttackSettings
from interpret_robust.analyses.masking import MaskingSettings
from interpret_robust.analyses.robustness import TableSettings
from interpret_robust.attacks import cache
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.apgd import APGD, TargetedAPGD
from interpret_robust.attacks.noise import Noise, per_image_noise
from interpret_robust.attacks.norms import make_ball
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import Norm
from interpret_robust.core.configs import as_stored
from interpret_robust.core.errors import NotFiniteError, UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models import build, checkpoint
from interpret_robust.models.folding import fold
from interpret_robust.models.variants import find_variant
from interpret_robust.results import hdf5, names
from interpret_robust.study.report.commands import list_changes
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import PRESETS, change

SHAPE = (3, 4, 5)
NORMS: list[Norm] = ["linf", "l2", "l1"]
ROUND: list[Norm] = ["l2", "l1"]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
EPS = {"linf": 0.05, "l2": 0.3, "l1": 0.5}


def noise_for(images: Tensor, seed: int = 0, first: int = 0) -> Noise:
    return per_image_noise(seed, range(first, first + len(images)))


def pair(count: int = 40) -> tuple[Linear, Tensor, Tensor]:
    """A linear model of two classes, images so far from the box that no attack here meets it, and their labels."""
    model = Linear(math.prod(SHAPE))
    images = pixels(count, *SHAPE, seed=1, low=0.499, high=0.501)
    with torch.no_grad():
        model.layer.weight.mul_(1 + torch.rand(model.layer.weight.shape, generator=torch.Generator().manual_seed(5)))
    return model, images, torch.arange(count) % 2


def margins(model: nn.Module, images: Tensor, labels: Tensor) -> Array:
    logits = array(model(images).detach())
    difference: Array = logits[np.arange(len(labels)), labels] - logits[np.arange(len(labels)), 1 - labels]
    return difference


# --- projections


def onto_ball(change: Array, norm: str, eps: float) -> Any:
    """The nearest change in a ball that meets no box."""
    if norm == "linf":
        return np.clip(change, -eps, eps)
    if norm == "l2":
        return change * min(1, eps / max(float(np.linalg.norm(change)), 1e-300))
    if np.abs(change).sum() <= eps:
        return change
    sizes = np.sort(np.abs(change))[::-1]
    cuts = (sizes.cumsum() - eps) / np.arange(1, len(sizes) + 1)
    cut = cuts[(sizes > cuts).nonzero()[0][-1]]
    return np.sign(change) * np.maximum(np.abs(change) - cut, 0)


def slowly(point: Array, image: Array, norm: str, eps: float) -> Array:
    """The nearest point of ball and box by Dykstra's algorithm, which knows only how to project on each of them."""
    nearest, of_ball, of_box = point.copy(), np.zeros_like(point), np.zeros_like(point)
    for _ in range(4000):
        previous = nearest
        in_ball = image + onto_ball(nearest + of_ball - image, norm, eps)
        of_ball = nearest + of_ball - in_ball
        nearest = np.clip(in_ball + of_box, 0, 1)
        of_box = in_ball + of_box - nearest
        if np.abs(nearest - previous).max() < 1e-10 and np.abs(nearest - in_ball).max() < 1e-8:
            break
    return nearest


@pytest.mark.parametrize("norm", NORMS)
def test_a_projection_is_the_nearest_point_of_ball_and_box(norm: Norm) -> None:
    images = pixels(6, 2, 3, 4, seed=2, low=-0.3, high=1.3).clamp(0, 1)
    assert bool((images == 0).any() and (images == 1).any())
    changes = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    for size, eps in ((0.1, 0.2), (1.0, 0.7), (5.0, 1.5), (0.01, 0.9)):
        points, ball = images + size * changes, make_ball(norm, eps)
        projection = ball.project(points.clone(), *ball.bounds(images))
        flat = (array(part).reshape(6, -1) for part in (points, images))
        expected = [slowly(point, image, norm, eps) for point, image in zip(*flat, strict=True)]
        np.testing.assert_allclose(array(projection).reshape(6, -1), np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("norm", ROUND)
def test_a_projection_has_the_length_of_the_radius_where_it_can(norm: Norm) -> None:
    """Also where the pixels' changes and rooms are of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    images = pixels(30, 3, 11, 13) ** 4
    points = images + torch.randn(images.shape, generator=generator) ** 5
    farthest = points.clamp(0, 1) - images
    for eps in (0.01, 0.5, 3.0):
        ball = make_ball(norm, eps)
        projection = ball.project(points.clone(), *ball.bounds(images))
        assert projection.min() >= 0 and projection.max() <= 1
        lengths = np.linalg.norm(array(projection - images).reshape(30, -1), ORDERS[norm], axis=1)
        reach = np.linalg.norm(array(farthest).reshape(30, -1), ORDERS[norm], axis=1)
        assert (reach > eps).all()
        np.testing.assert_allclose(lengths, eps, rtol=1e-6, atol=ball.tolerance(images[0].numel()))


@pytest.mark.parametrize("norm", NORMS)
def test_inside_a_point_stays_and_a_ball_of_radius_zero_is_its_image(norm: Norm) -> None:
    images, points = pixels(4, *SHAPE), pixels(4, *SHAPE, seed=1)
    for eps, expected in ((0.0, images), (60.0 if norm != "linf" else 1.0, points)):
        ball = make_ball(norm, eps)
        projection = ball.project(points.clone(), *ball.bounds(images))
        torch.testing.assert_close(projection, expected, rtol=0, atol=1e-7)


# --- starts


@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_uniform_in_the_ball(norm: Norm) -> None:
    images = torch.full((4000, 2, 2, 3), 0.5)
    size, ball = images[0].numel(), make_ball(norm, 0.4)
    random = torch.Generator().manual_seed(1)
    starts = ball.start(images, lambda like: 2 * torch.rand(like.shape, generator=random) - 1, *ball.bounds(images))
    change = array(starts - images).reshape(len(images), -1)
    lengths = np.linalg.norm(change, ORDERS[norm], axis=1)
    assert stats.kstest((lengths / 0.4) ** size, "uniform").pvalue > 0.01
    assert abs(change.mean()) < 0.005
    mean_size = {"linf": 0.2, "l2": None, "l1": 0.4 / (size + 1)}[norm]
    if mean_size:
        np.testing.assert_allclose(np.abs(change).mean(0), mean_size, rtol=0.1)
    else:
        np.testing.assert_allclose((change**2).mean(0), 0.4**2 / (size + 2), rtol=0.1)


@pytest.mark.parametrize("norm", NORMS)
def test_noise_at_its_very_ends_gives_a_point_of_the_ball(norm: Norm) -> None:
    images, ends = pixels(3, *SHAPE), torch.full((3, *SHAPE), 1 - 2.0**-23)
    ends[:, :, ::2] = -1
    ends[2] = 0
    ball = make_ball(norm, 0.2)
    if norm != "linf":
        ends[2, 0, 0, 0] = 0.5
    start = ball.start(images, lambda _: ends, *ball.bounds(images))
    assert bool(start.isfinite().all())
    assert bool((ball.length(start - images) <= 0.2 + ball.tolerance(60)).all())


# --- closed forms on a linear model


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_margin_falls_by_eps_times_the_dual_norm(norm: Norm, loss: Any, targeted: bool) -> None:
    model, images, labels = pair()
    eps = EPS[norm] if norm != "l1" else 0.3
    aims = 1 - labels if targeted else labels
    attack = PGD(eps, steps=12, random_start=False, loss=loss, norm=norm, targeted=targeted)
    adversarial = attack(model, images, aims)
    weight = array(model.layer.weight)
    fall = eps * np.linalg.norm(weight[0] - weight[1], DUAL[norm])
    change = margins(model, images, labels) - margins(model, adversarial, labels)
    np.testing.assert_allclose(change, fall, rtol=2e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_of_two_classes_an_attack_towards_the_other_is_one_away_from_the_true_one(norm: Norm) -> None:
    """On black and white pixels, each of which the box stops on one side."""
    model, images = Linear(math.prod(SHAPE)), pixels(40, *SHAPE, seed=1).round()
    labels, eps = model(images).argmax(1), {"linf": 0.2, "l2": 0.7, "l1": 3.0}[norm]
    adversarial = PGD(eps, norm=norm, loss="margin")(model, images, labels)
    targeted_attack = PGD(eps, norm=norm, loss="margin", targeted=True)
    assert torch.equal(targeted_attack(model, images, 1 - labels), adversarial)
    assert (model(images).argmax(1) != labels).sum() == 0
    assert 20 < (model(adversarial).argmax(1) != labels).sum() < 40


def test_in_l1_a_targeted_step_goes_where_a_pixel_can_fall_or_rise_towards_the_target() -> None:
    """Black and white in turn, and a target that only every second pair of pixels can come nearer to."""
    model, images = Linear(200), torch.tensor([0.0, 1.0]).repeat(100).view(1, 1, 10, 20)
    with torch.no_grad():
        size = torch.arange(1.0, 201)
        model.layer.weight[1] = size * torch.tensor([1.0, -1, -1, 1]).repeat(50)  # up, down, and twice out of the box
        model.layer.weight[0] = 0
        model.layer.bias.zero_()
    attack = PGD(1.0, step_size=0.5, steps=1, norm="l1", random_start=False, targeted=True, loss="margin")
    change = (attack(model, images, torch.tensor([1])) - images).flatten()
    assert change.nonzero().flatten().tolist() == [196, 197]  # a hundredth, the steepest that can move
    torch.testing.assert_close(change[[196, 197]], torch.tensor([0.25, -0.25]))


def test_in_l2_the_steps_are_of_the_named_length_and_along_the_gradient() -> None:
    model, images, labels = pair(4)
    walk = dict(PGD(0.3, 0.07, 6, random_start=False, norm="l2").iterates(model, images, labels, noise_for(images)))
    weight = array(model.layer.weight)
    direction = (weight[1 - labels] - weight[labels]) / np.linalg.norm(weight[0] - weight[1])
    for step, iterate in walk.items():
        expected = array(images).reshape(4, -1) + min(0.07 * step, 0.3) * direction
        np.testing.assert_allclose(array(iterate).reshape(4, -1), expected, atol=1e-6)


def test_in_l1_a_step_takes_the_steepest_hundredth_that_the_box_lets_go() -> None:
    shape = (2, 3, 10, 10)  # three pixels are a hundredth
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    points = torch.full(shape, 0.5)
    steepest = gradient.flatten(1).abs().argsort(1, descending=True)
    points.view(2, -1)[0, steepest[0, 0]] = float(gradient.view(2, -1)[0, steepest[0, 0]] > 0)  # it cannot go on
    step = make_ball("l1", 1.0).direction(gradient, points).view(2, -1)
    for image, places in ((0, steepest[0, 1:4]), (1, steepest[1, :3])):
        expected = torch.zeros(300)
        expected[places] = gradient.view(2, -1)[image, places].sign() / 3
        torch.testing.assert_close(step[image], expected)


@pytest.mark.parametrize("norm", ROUND)
def test_from_random_starts_pgd_comes_to_the_best_point_of_ball_and_box(norm: Norm) -> None:
    """The best of a linear model lies where no small step along the gradient, projected, leads away."""
    model, images, labels = pair(8)
    images = pixels(8, *SHAPE, seed=4, low=-0.1, high=1.1).clamp(0, 1)
    ball = make_ball(norm, 1.5)
    adversarial = PGD(1.5, 0.05, steps=150, norm=norm)(model, images, labels)
    weight = model.layer.weight.detach()
    gradient = (weight[1 - labels] - weight[labels]).view_as(images)
    farther = ball.project(images + 1000 * gradient, *ball.bounds(images)) if norm == "l2" else None
    if farther is not None:
        gain = array(((farther - images) * gradient).flatten(1).sum(1))
    else:  # the steepest pixels go to the end of their room, one after the other
        order = gradient.abs().flatten(1).argsort(1, descending=True)
        room = torch.where(gradient > 0, 1 - images, images).flatten(1).gather(1, order)
        spending = torch.minimum((1.5 - room.cumsum(1) + room).clamp_min(0), room)
        gain = array((spending * gradient.abs().flatten(1).gather(1, order)).sum(1))
    attack_gain = array(((adversarial - images) * gradient).flatten(1).sum(1))
    np.testing.assert_allclose(attack_gain, gain, rtol=2e-3)
    assert (attack_gain <= gain * (1 + 1e-5)).all()


@pytest.mark.parametrize("attack", [APGD, TargetedAPGD])
def test_apgd_in_l2_finds_what_a_linear_model_loses(attack: Callable[..., Any]) -> None:
    model, images = Linear(60, 5), pixels(40, *SHAPE, seed=1, low=0.45, high=0.55)
    labels = model(images).argmax(1)
    weight, logits = array(model.layer.weight), array(model(images).detach())
    truth = labels.numpy()
    norms = np.linalg.norm(weight[truth][:, None] - weight[None], axis=2)
    norms[np.arange(40), truth] = np.inf
    distance = (logits[np.arange(40), truth][:, None] - logits) / norms
    distance[np.arange(40), truth] = np.inf
    radii = distance.min(1)
    eps = float(np.median(radii))
    clear = np.abs(radii / eps - 1) > 0.05
    best = attack(eps, 60, norm="l2")(model, images, labels, noise_for(images)).adversarial
    errors = array(model(best).argmax(1) != labels).astype(bool)
    if attack is TargetedAPGD:
        np.testing.assert_array_equal(errors[clear], (radii < eps)[clear])
    assert 5 < errors.sum() < 35 and not errors[clear & (radii > eps)].any()


# --- what an attack leaves alone


@pytest.mark.parametrize("norm", ROUND)
def test_an_image_does_not_depend_on_its_batch_nor_the_attack_on_random_numbers(norm: Norm) -> None:
    model, images, labels = (
        build("small", find_variant("at").head, (3, 20, 16), 5, seed=0).eval(),
        *(
            pixels(14, 3, 20, 16),
            torch.arange(14) % 5,
        ),
    )
    attack = PGD(EPS[norm], steps=2, restarts=2, norm=norm)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    whole = attack(model, images, labels, noise_for(images))
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    parts = [
        attack(model, images[s], labels[s], noise_for(images[s], first=s.start)) for s in (slice(0, 9), slice(9, 14))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    repeat = attack(model, images, labels, noise_for(images))
    assert torch.equal(repeat, whole)
    assert not torch.equal(attack(model, images, labels, noise_for(images, seed=1)), whole)


class Flat(nn.Module):
    """The same logits for all images."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([0 * images.flatten(1).sum(1), 0 * images.flatten(1).sum(1) + 1], 1)


class NanGradient(nn.Module):
    """Numbers, and a gradient that is none: the root of zero."""

    def forward(self, images: Tensor) -> Tensor:
        total = images.flatten(1)[:, :2].sum(1)
        return torch.stack([total, (0 * total).sqrt()], 1)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_gradient_no_step_is_taken_and_nan_is_told(norm: Norm) -> None:
    images, labels = pixels(3, *SHAPE), torch.tensor([0, 1, 1])
    attack = PGD(EPS[norm], steps=2, random_start=False, norm=norm)
    torch.testing.assert_close(attack(Flat(), images, labels), images, rtol=0, atol=1e-7)
    with pytest.raises(NotFiniteError):
        attack(NanGradient(), images, labels)


def test_gradients_too_small_to_square_are_followed_in_l2() -> None:
    gradient = 1e-30 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    step = make_ball("l2", 1.0).direction(gradient, torch.zeros_like(gradient))
    torch.testing.assert_close(torch.linalg.vector_norm(step.flatten(1), dim=1), torch.ones(2))


def test_cycles_are_not_looked_for_in_round_balls_and_the_cache_tells_norms_apart() -> None:
    images, labels = pixels(36, 3, 20, 16), torch.arange(36) % 5
    model = fold(build("small", find_variant("at-att").head, (3, 20, 16), 5, seed=0).eval())
    readings = {}
    with cache.share_attacks(model, "model"):
        for norm in NORMS:
            counts = torch.zeros(36, dtype=torch.int64)
            attack = PGD(0.01, 0.01, 24, norm=norm)
            ((_, readings[norm]),) = attack.iterates(model, images, labels, noise_for(images), [24], counts)
            assert (int(counts.min()) < 24) == (norm == "linf")
            assert int(counts.max()) <= 24
    cache._readings.clear()
    for norm, iterate in readings.items():
        check_adversarial(model, iterate, images, 0.01, norm)
    with pytest.raises(ValueError, match="left its ball"):
        check_adversarial(model, readings["linf"], images, 0.01, "l2")


def test_of_restarts_towards_a_target_the_nearest_is_kept() -> None:
    model, images, labels = pair(12)
    draws = [2 * pixels(12, *SHAPE, seed=seed) - 1 for seed in (7, 8, 9)]
    left = iter(draws)
    nearest = PGD(0.1, steps=0, restarts=3, targeted=True)(model, images, 1 - labels, lambda _: next(left))
    of_each = np.stack([margins(model, images + 0.1 * draw, labels) for draw in draws])
    np.testing.assert_allclose(margins(model, nearest, labels), of_each.min(0), atol=1e-5)


# --- training and analyses


def test_a_recipe_in_another_norm_keeps_the_steps_share_and_tells_its_norm(digits: Dataset) -> None:
    base = PRESETS["quick"]
    recipe = change(base, {"norm": "l2", "eps": 0.5})
    assert recipe.attack_step == pytest.approx(0.5 * 5 / 8)
    assert recipe.attack(0.2) == PGD(0.25, 0.15625, 2, norm="l2")  # half of the ramp
    assert "norm" not in as_stored(base) and as_stored(recipe)["norm"] == "l2"
    assert change(base, {"norm": "l2", "eps": 0.5, "attack_step": 0.1}).attack_step == 0.1
    names_of = [Job(digits, "small", find_variant(name), 0, recipe).name for name in ("at", "natural")]
    assert names_of == [f"{digits.name}-small-at-l2-seed0", f"{digits.name}-small-natural-seed0"]


def test_the_commands_train_and_ask_in_l2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, digits: Dataset
) -> None:
    def irt(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["irt", *words, "--root", str(tmp_path)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        assert not exit_info.value.code
        return capsys.readouterr().out

    data = tmp_path / "some.npz"
    splits = {"train": digits.train, "test": digits.test}
    arrays = {f"x_{part}": split.images for part, split in splits.items()}
    write_npz(data, arrays | {f"y_{part}": split.labels for part, split in splits.items()})
    training = ["--dataset", str(data), "--set", "epochs=1", "--set", "batch_size=60", "--set", "attack_steps=2"]
    irt("train", "at", "--norm", "l2", "--eps", "0.5", *training)
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert "-at-l2-seed0" in path.name
    recipe = checkpoint.read(path).job["recipe"]
    assert (recipe["norm"], recipe["eps"]) == ("l2", 0.5)
    evaluation = ["evaluate", str(path), "--dataset", str(data), "--pgd", "2", "--cw", "none", "--limit", "5"]
    assert "L2 eps 0.5, step 0.0625" in irt(*evaluation)
    assert "eps 8/255, step 2/255" in irt(*evaluation, "--eps", "8/255")
    in_l2, in_linf = sorted((tmp_path / "analyses").iterdir(), key=lambda file: len(file.name))
    result = hdf5.read(in_l2)
    assert result.config["settings"]["norm"] == "l2" and "norm" not in hdf5.read(in_linf).config["settings"]
    assert "trained in L2" in names.label(result)
    assert 0.3 < result["per_image/perturbation_l2"].max() <= 0.5 + 1e-5
    assert result["per_image/perturbation"].max() > 0.01


def test_training_in_a_ball_that_holds_all_images_does_not_begin(digits: Dataset, tmp_path: Path) -> None:
    recipe = change(PRESETS["quick"], {"norm": "l2", "eps": 60.0, "batch_size": 20})
    job = Job(digits, "small", find_variant("at"), 0, recipe)
    with pytest.raises(UserError, match="eps is 60: in L2 no two images of 3072 numbers"):
        train(job, tmp_path, source=digits.name, device=torch.device("cpu"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "recipe", "expected"),
    [
        ({}, {"eps": 0.1}, ("linf", 0.1, 0.025)),
        ({}, {"eps": 0.8, "norm": "l2"}, ("l2", 0.8, 0.1)),
        ({"eps": 0.1}, {"eps": 0.8, "norm": "l2"}, ("linf", 0.1, 0.025)),
        ({"norm": "l2"}, {"eps": 0.8, "norm": "l2"}, ("l2", 0.8, 0.1)),
        ({"norm": "l1", "eps": 12.0}, {"eps": 0.1}, ("l1", 12.0, 1.2)),
    ],
)
def test_the_ball_is_that_of_training_or_the_named_one(
    settings: dict[str, Any], recipe: dict[str, Any], expected: tuple[str, float, float]
) -> None:
    attack = AttackSettings(**settings).resolve({"recipe": recipe})
    assert (attack.norm, attack.eps, attack.step_size) == pytest.approx(expected)
    assert attack.pgd().norm == expected[0]
    record = as_stored(attack)
    assert record.get("norm", "linf") == expected[0] and ("norm" in record) == (expected[0] != "linf")
    assert AttackSettings(**record).resolve({"recipe": recipe}) == attack


def test_the_command_of_a_file_names_a_ball_that_is_not_that_of_training() -> None:
    """Also where the radius is the same number in another norm."""
    for recipe, changes in (({"eps": 0.5, "norm": "l2"}, {"eps": 0.5}), ({"eps": 0.1}, {"eps": 0.5, "norm": "l2"})):
        job = {"recipe": recipe}
        record = as_stored(TableSettings(**changes).resolve(job))
        result: Any = SimpleNamespace(analysis="robustness", config={"settings": record}, job=job)
        assert TableSettings(**list_changes(result)).resolve(job) == TableSettings(**record).resolve(job)


def test_files_of_two_norms_have_two_names(tmp_path: Path) -> None:
    job = {"recipe": {"eps": 0.1}}
    choices = [TableSettings(), *(TableSettings(eps=0.5, norm=norm) for norm in NORMS)]
    paths = [name_file(tmp_path, get("robustness"), "m", job, "test", settings, None) for settings in choices]
    assert len({path.name for path in paths}) == 4
    assert "l2" in paths[2].name and "l1" in paths[3].name and "linf" not in paths[1].name


def test_a_ball_is_written_with_its_norm() -> None:
    assert names.format_ball({"eps": 8 / 255}) == "eps 8/255"
    assert names.format_ball({"eps": 128 / 255, "norm": "l2"}) == "L2 eps 0.502"
    assert names.format_ball({"eps": 12.0, "norm": "l1"}) == "L1 eps 12"


def test_the_how_to_lists_which_norms_each_analysis_takes() -> None:
    text = (Path(__file__).parents[1] / "docs" / "how-to.md").read_text(encoding="utf-8")
    header, _, *lines = text.partition("| analysis | linf |")[2].partition("\n\n")[0].splitlines()
    columns = ["linf", *(cell.strip() for cell in header.strip(" |").split("|"))]
    table = {}
    for line in lines:
        name, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
        table[name] = dict(zip(columns, cells, strict=True))

    def is_taken(settings: Any, norm: str) -> str:
        try:
            return "yes" if settings(eps=0.5, norm=norm).resolve({"variant": "at-att"}).norm == norm else "no"
        except UserError:
            return "no"

    attackers = {name: get(name).settings for name in analyses.list_names() if hasattr(get(name).settings(), "norm")}
    assert table == {name: {norm: is_taken(kind, norm) for norm in columns} for name, kind in attackers.items()}
    assert columns == ["linf", "l2", "l1"]


# --- nonsense


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: PGD(8, norm="linf"), "eps is 8: it must lie within 0 and 1"),
        (lambda: PGD(0.5, norm=cast(Norm, "L2")), "unknown norm 'L2': did you mean 'l2'?"),
        (lambda: PGD(-0.5, 0.1, norm="l2"), "eps is -0.5: it must not be negative"),
        (lambda: PGD(math.inf, 0.1, norm="l1"), "eps is inf: it must not be"),
        (
            lambda: PGD(8.0, norm="l2")(*pair(2)),
            "in L2 no two images of 60 numbers in [0, 1] are farther apart than 7.746",
        ),
        (lambda: PGD(61.0, norm="l1")(*pair(2)), "farther apart than 60, so give less"),
        (lambda: APGD(0.5, norm="l1"), "APGD is for linf and l2"),
        (lambda: TableSettings(0.5, norm="l1", apgd="5").resolve({}), "APGD is for linf and l2"),
        (lambda: MaskingSettings(0.0, norm="l2").resolve({}), "eps is 0, queries 300: both must be above zero"),
        (
            lambda: AutoAttackSettings(12.0, norm="l1").resolve({}),
            "torchattacks, which has all of its attacks in linf and l2",
        ),
        (lambda: AttackSettings(norm="l2").resolve({"recipe": {"eps": 0.1}}), "such as --eps 0.5"),
        (lambda: AttackSettings(0.1, norm="l3").resolve({}), "unknown norm 'l3': known are l1, l2, linf"),
        (lambda: change(PRESETS["quick"], {"norm": "l2"}), "norm is l2: give a radius in it too, such as eps=0.5"),
        (lambda: change(PRESETS["quick"], {"norm": "l22", "eps": 1.0}), "unknown norm 'l22': did you mean 'l2'?"),
    ],
)
def test_nonsense_gets_a_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert sentence in str(error.value)
