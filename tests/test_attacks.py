"""The attack: closed forms on a linear model, its boxes, its randomness, what it leaves alone, a foreign PGD."""

import math
import random as python_random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import InDouble, Linear, array, count_passes, pixels, settle
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.analyses.engine.settings import AttackSettings
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.network import switch_batch_norm
from interpret_robust.attacks.noise import Noise, generator_noise, per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import LossName, Norm
from interpret_robust.core.errors import NotFiniteError, UserError
from interpret_robust.models import build
from interpret_robust.models.classifier import NO_CLASS, predict_classes
from interpret_robust.models.losses import loss_gradient, margin_loss

EPS, STEP = 8 / 255, 2 / 255
SHAPE = (3, 4, 5)
LOSSES: list[LossName] = ["cross-entropy", "margin"]
CPU = torch.device("cpu")


def labels_of(count: int, classes: int = 2) -> Tensor:
    return torch.arange(count) % classes


def noise_for(images: Tensor, seed: int = 0) -> Noise:
    return per_image_noise(seed, range(len(images)))


def replay(*draws: Tensor) -> Noise:
    """Noise that gives these draws one after the other."""
    left = iter(draws)
    return lambda images: next(left)


def direction(model: Linear, labels: Tensor) -> Tensor:
    """Where each image's loss grows: the sign of the other class's weights minus the true one's."""
    weight = model.layer.weight.detach()
    return (weight[1 - labels] - weight[labels]).sign().reshape(len(labels), *SHAPE)


class Squiggle(nn.Module):
    """A small random convolution network with sines: many optima, all modules that keep state."""

    def __init__(self, channels: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.convolution = nn.Conv2d(channels, 6, 3, padding=1)
            self.norm = nn.BatchNorm2d(6)
            self.dropout = nn.Dropout(0.5)
            self.classifier = nn.Linear(6, 4)
            with torch.no_grad():
                self.convolution.weight *= 20
        self.calls = 0
        self.fails_at = math.inf

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.fails_at:
            raise RuntimeError("out of memory, say")
        waves = self.norm(self.convolution(images)).sin().mean((2, 3))
        logits: Tensor = self.classifier(self.dropout(waves))
        return logits


# --- closed forms on a linear model


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("random_start", [True, False])
def test_on_a_linear_model_pgd_finds_the_corner_exactly(loss: LossName, random_start: bool) -> None:
    model, images, labels = Linear(60), pixels(40, *SHAPE, low=0.1, high=0.9), labels_of(40)
    attack = PGD(EPS, STEP, steps=8, random_start=random_start, loss=loss)  # from any start, 2 eps are 8 steps
    adversarial = attack(model, images, labels, noise_for(images))
    assert torch.equal(adversarial, images + EPS * direction(model, labels))


@pytest.mark.parametrize("loss", LOSSES)
def test_on_a_linear_model_accuracy_is_that_of_the_closed_form_margin(loss: LossName) -> None:
    model, images = Linear(60), pixels(200, *SHAPE, low=0.1, high=0.9)
    labels = model(images).argmax(1)
    adversarial = PGD(EPS, STEP, steps=8, loss=loss)(model, images, labels, noise_for(images))
    logits, weight = array(model(images)), array(model.layer.weight)
    margins = np.abs(logits[:, 0] - logits[:, 1]) - EPS * np.abs(weight[0] - weight[1]).sum()
    assert 0.2 < (margins > 0).mean() < 0.8
    np.testing.assert_array_equal(array(model(adversarial).argmax(1) == labels), margins > 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_at_the_border_the_corner_is_clipped_to_pixels(loss: LossName) -> None:
    model, images, labels = Linear(60), pixels(10, *SHAPE, low=-0.02, high=1.02).clamp(0, 1), labels_of(10)
    assert bool((images == 0).any()) and bool((images == 1).any())
    adversarial = PGD(EPS, STEP, steps=8, loss=loss)(model, images, labels, noise_for(images))
    assert torch.equal(adversarial, (images + EPS * direction(model, labels)).clamp(0, 1))


def test_iterates_walk_a_step_at_a_time_up_to_the_ball() -> None:
    model, images, labels = Linear(60), pixels(4, *SHAPE, low=0.1, high=0.9), labels_of(4)
    walk = list(PGD(EPS, STEP, 6, random_start=False).iterates(model, images, labels, noise_for(images)))
    assert len(walk) == 7
    for step, iterate in walk:
        expected = images + min(step * STEP, EPS) * direction(model, labels)
        torch.testing.assert_close(iterate, expected, rtol=0, atol=2e-7)


def test_first_iterate_is_the_start_that_the_noise_names() -> None:
    images, noise = pixels(5, *SHAPE), 2 * pixels(5, *SHAPE, seed=1) - 1
    ((_, start),) = PGD(EPS, STEP, 0).iterates(Linear(60), images, labels_of(5), replay(noise))
    np.testing.assert_allclose(array(start), np.clip(array(images) + EPS * array(noise), 0, 1), atol=1e-7)


@pytest.mark.parametrize(
    ("attack", "case"),
    [
        (PGD(EPS, STEP, 0, random_start=False), "no step"),
        (PGD(EPS, 0.0, 3, random_start=False), "steps of length zero"),
        (PGD(0.0, STEP, 3), "a ball of radius zero"),
        (PGD(0.0, STEP, 3, restarts=3), "a ball of radius zero, thrice"),
    ],
)
def test_an_attack_without_room_returns_the_images(attack: PGD, case: str) -> None:
    images = pixels(3, *SHAPE)
    assert torch.equal(attack(Linear(60), images, labels_of(3), noise_for(images)), images), case


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_images_that_ask_for_gradients_leave_no_graph(norm: Norm) -> None:
    images, labels, model = pixels(4, *SHAPE), labels_of(4, 3), Squiggle()
    plain, adversarial = (
        PGD(0.1, steps=3, norm=norm)(model, batch, labels) for batch in (images, images.clone().requires_grad_())
    )
    assert torch.equal(plain, adversarial) and not adversarial.requires_grad and adversarial.grad_fn is None


def test_gradient_is_that_of_the_sum_whatever_the_batch_and_grad_mode() -> None:
    model, images, labels = Linear(60, classes=3), pixels(5, *SHAPE), labels_of(5, 3)
    probability = array(model(images).softmax(1))
    expected = (probability - np.eye(3)[labels.numpy()]) @ array(model.layer.weight)
    with torch.no_grad():
        gradient = loss_gradient(model, images, labels)
    assert not gradient.requires_grad
    np.testing.assert_allclose(array(gradient).reshape(5, -1), expected, atol=1e-7)


def test_margin_loss_equals_a_loop() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 5)).round(1)  # rounded: some are ties
    logits[7] = 1.0
    labels = np.arange(50) % 5
    expected = []
    for row, true in zip(logits, labels, strict=True):
        expected.append(max(row[label] for label in range(5) if label != true) - row[true])
    margins = margin_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    np.testing.assert_array_equal(array(margins), expected)
    assert margins[7] == 0


# --- the boxes


@pytest.mark.parametrize("eps", [0.0, 1 / 255, EPS, 0.3, 1.0])
@pytest.mark.parametrize("share", [0.1, 0.25, 3.0])
@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("loss", LOSSES)
def test_adversarial_images_stay_in_the_ball_and_are_pixels(
    eps: float, share: float, steps: int, loss: LossName
) -> None:
    images, labels = pixels(6, *SHAPE, low=-0.3, high=1.3).clamp(0, 1), labels_of(6, 4)
    for seed, (random_start, restarts) in enumerate(((True, 1), (False, 1), (True, 3))):
        attack = PGD(eps, share * eps, steps, restarts, random_start=random_start, loss=loss)
        adversarial = attack(Squiggle(seed=seed), images, labels, noise_for(images))
        assert adversarial.dtype == torch.float32
        assert adversarial.min().item() >= 0 and adversarial.max().item() <= 1
        assert np.abs(array(adversarial) - array(images)).max() <= eps + 1e-7


@pytest.mark.parametrize("wrong", [0.5 + EPS + 1e-5, 0.5 - EPS - 1e-5, math.inf])
def test_a_single_pixel_outside_its_ball_is_an_error(wrong: float) -> None:
    images = torch.full((2, *SHAPE), 0.5)
    adversarial = images.clone()
    check_adversarial(Linear(math.prod(SHAPE)), adversarial + EPS, images, EPS)
    adversarial[1, 2, 3, 4] = wrong
    with pytest.raises(ValueError, match=r"left its ball of 0\.0313725"):
        check_adversarial(Linear(math.prod(SHAPE)), adversarial, images, EPS)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("restarts", [1, 2])
def test_an_image_that_is_answered_with_no_number_stays_as_it_is(random_start: bool, restarts: int) -> None:
    """It is never right, attacked or not; the others are attacked as without it."""
    model, images, labels = Linear(60), pixels(3, *SHAPE), labels_of(3)
    images[1] = 0.5

    class NoNumber(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            middle = ((batch - 0.5).abs() <= EPS + 1e-6).flatten(1).all(1, keepdim=True)
            logits: Tensor = model(batch) + torch.zeros(len(batch), 1).where(~middle, math.nan)
            return logits

    attack = PGD(EPS, STEP, 3, restarts, random_start=random_start)
    adversarial = attack(NoNumber(), images, labels, noise_for(images))
    plain = attack(model, images, labels, noise_for(images))
    assert torch.equal(adversarial[1], images[1])
    assert torch.equal(adversarial[[0, 2]], plain[[0, 2]])
    assert predict_classes(NoNumber()(adversarial)).tolist()[1] == NO_CLASS


def test_gradients_that_are_no_numbers_are_an_error_that_names_the_images() -> None:
    class Root(nn.Module):
        """Its answer at an image of one color is a number, and its gradient is not."""

        def forward(self, batch: Tensor) -> Tensor:
            flat = batch.flatten(1)
            deviation = (flat - flat[:, :1]).square().sum(1).sqrt()
            return torch.stack([deviation, 1 - deviation], 1)

    images = pixels(3, *SHAPE)
    images[1] = 0.5
    attack = PGD(EPS, STEP, 3, random_start=False)
    with pytest.raises(
        NotFiniteError, match=r"gradients of the loss are not finite numbers on 1 image \(.*: 1\)"
    ) as info:
        attack(Root(), images, labels_of(3))
    assert info.value.places == [1]


@pytest.mark.parametrize(("clean", "wrong"), [(0.01, -1e-5), (0.99, 1 + 1e-5)])
def test_a_single_value_that_is_no_pixel_is_an_error(clean: float, wrong: float) -> None:
    images = torch.full((2, *SHAPE), clean)
    adversarial = images.clone()
    adversarial[1, 2, 3, 4] = wrong
    with pytest.raises(ValueError, match=r"or \[0, 1\]"):
        check_adversarial(Linear(math.prod(SHAPE)), adversarial, images, EPS)


# --- restarts


def test_each_image_keeps_the_start_of_its_own_smallest_margin() -> None:
    model, images, labels = Linear(60), pixels(30, *SHAPE), labels_of(30)
    draws = [2 * pixels(30, *SHAPE, seed=seed) - 1 for seed in range(3)]
    starts = [(images + EPS * draw).clamp(0, 1) for draw in draws]
    logits, row = np.stack([array(model(start)) for start in starts]), np.arange(30)
    choice = (logits[:, row, 1 - labels] - logits[:, row, labels]).argmax(0)
    assert set(choice) == {0, 1, 2}  # different images prefer different starts
    expected = torch.stack(starts)[choice, row]
    adversarial = PGD(EPS, STEP, steps=0, restarts=3)(model, images, labels, replay(*draws))
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_restarts_are_never_worse_than_any_single_start(loss: LossName) -> None:
    model, images, labels = Squiggle(), pixels(20, *SHAPE), labels_of(20, 4)
    draws = [2 * pixels(20, *SHAPE, seed=seed) - 1 for seed in range(4)]
    model.eval()

    def margins(attack: PGD, *noise: Tensor) -> Tensor:
        return margin_loss(model(attack(model, images, labels, replay(*noise))), labels).detach()

    singles = torch.stack([margins(PGD(0.1, 0.03, 2, loss=loss), draw) for draw in draws])
    assert len(set(singles.argmax(0).tolist())) > 1
    assert torch.equal(margins(PGD(0.1, 0.03, 2, restarts=4, loss=loss), *draws), singles.amax(0))


# --- randomness


def test_per_image_noise_depends_on_seed_and_index_alone() -> None:
    images = torch.zeros(1, *SHAPE)
    reference = {index: per_image_noise(5, [index])(images)[0] for index in (0, 3, 10_000)}
    company = per_image_noise(5, [10_000, 7, 3, 0])(torch.ones(4, *SHAPE))
    for row, index in ((0, 10_000), (2, 3), (3, 0)):
        assert torch.equal(company[row], reference[index])
    distinct = [*company, per_image_noise(6, [3])(images)[0], per_image_noise(3, [5])(images)[0]]
    for place, draw in enumerate(distinct):
        assert all(float((draw == other).double().mean()) < 0.1 for other in distinct[:place])


def test_per_image_noise_goes_on_in_each_stream() -> None:
    single, pair = per_image_noise(0, [4]), per_image_noise(0, [3, 4])
    images = torch.zeros(2, *SHAPE)
    first, second = single(images[:1]), single(images[:1])
    assert torch.equal(torch.stack([pair(images)[1], pair(images)[1]]), torch.cat([first, second]))
    assert not torch.equal(first, second)


def test_per_image_noise_for_another_purpose_is_another() -> None:
    images = torch.zeros(2, *SHAPE)
    draws = [per_image_noise(0, [3, 4], purpose)(images) for purpose in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert float((draws[0] == draws[2]).double().mean()) < 0.1


@pytest.mark.parametrize(
    "noise",
    [per_image_noise(0, range(100)), generator_noise(torch.Generator().manual_seed(0))],
    ids=["per image", "generator"],
)
def test_noise_is_uniform_in_minus_one_to_one(noise: Noise) -> None:
    draw = noise(torch.zeros(100, 3, 10, 10))
    assert draw.dtype == torch.float32 and draw.shape == (100, 3, 10, 10)
    assert draw.min().item() >= -1 and draw.max().item() < 1
    shares = np.histogram(array(draw), bins=10, range=(-1, 1))[0] / draw.numel()
    np.testing.assert_allclose(shares, 0.1, atol=5 * math.sqrt(0.09 / draw.numel()))


def test_generator_noise_is_drawn_from_its_generator_alone() -> None:
    images, state = torch.zeros(2, *SHAPE), torch.get_rng_state()
    draws = [generator_noise(torch.Generator().manual_seed(seed))(images) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), state)


def small_in_double() -> nn.Module:
    return InDouble(settle(build("small", "nonlinear", (3, 16, 20), 10, seed=0)))


@pytest.mark.parametrize(
    ("model", "shape"),
    [(Linear(60, classes=3), SHAPE), (small_in_double(), (3, 16, 20))],
    ids=["linear", "small network in float64"],
)
@pytest.mark.parametrize("restarts", [1, 2])
def test_rows_do_not_depend_on_the_batch(model: nn.Module, shape: tuple[int, ...], restarts: int) -> None:
    images, labels = pixels(7, *shape), labels_of(7, 3)
    attack = PGD(EPS, EPS / 4, steps=3, restarts=restarts)
    whole = attack(model, images, labels, per_image_noise(0, range(7)))
    parts = [
        attack(model, images[part], labels[part], per_image_noise(0, range(7)[part]))
        for part in (slice(0, 3), slice(3, 7))
    ]
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(torch.cat(parts), whole)


# --- what is left alone


def run_mixed(model: Squiggle, attack: PGD, images: Tensor, labels: Tensor, *, fails: bool) -> None:
    """Attack a model whose modules are in different modes."""
    model.train()
    model.norm.eval()
    model.classifier.eval()
    model.calls, model.fails_at = 0, 2 if fails else math.inf
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            attack(model, images, labels, noise_for(images))
    else:
        attack(model, images, labels, noise_for(images))


def global_state() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state(), python_random.getstate()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("restarts", [1, 2])
def test_nothing_is_changed_by_the_attack_nor_by_its_failure(fails: bool, restarts: int) -> None:
    model, images, labels = Squiggle(), pixels(4, *SHAPE), labels_of(4, 4)
    model.convolution.bias.requires_grad_(False)  # type: ignore[union-attr]
    model.classifier.weight.grad = torch.full_like(model.classifier.weight, 7.0)
    state, surroundings = deepcopy(model.state_dict()), global_state()
    images_before, labels_before = images.clone(), labels.clone()
    run_mixed(model, PGD(EPS, STEP, 3, restarts), images, labels, fails=fails)
    np.testing.assert_equal(global_state(), surroundings)
    assert {name: module.training for name, module in model.named_modules()} == {
        "": True,
        "convolution": True,
        "norm": False,
        "dropout": True,
        "classifier": False,
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name != "convolution.bias")
        if name == "classifier.weight":
            assert parameter.grad is not None and bool((parameter.grad == 7).all())
        else:
            assert parameter.grad is None
    assert torch.equal(images, images_before) and torch.equal(labels, labels_before)
    assert not images.requires_grad and images.grad is None


@pytest.mark.parametrize("fails", [False, True])
def test_training_mode_is_taken_back_and_only_running_statistics_change(fails: bool) -> None:
    model, images = Squiggle(), pixels(4, *SHAPE)
    state = deepcopy(model.state_dict())
    run_mixed(model, PGD(EPS, STEP, 3, batch_norm="train"), images, labels_of(4, 4), fails=fails)
    assert [module.training for module in model.modules()] == [True, True, False, True, False]
    names = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, state[name])}
    assert names == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert model.norm.num_batches_tracked == (1 if fails else 3)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_every_module_is_in_the_asked_mode_meanwhile(mode: Any) -> None:
    model = Squiggle()
    model.norm.eval()
    with switch_batch_norm(model, mode):
        assert {module.training for module in model.modules()} == {mode == "train"}


def test_in_training_mode_the_batchs_own_statistics_decide() -> None:
    model, images, labels = Squiggle(), pixels(4, *SHAPE), labels_of(4, 4)
    model.dropout.p = 0.0
    settle(model)
    expected = loss_gradient(deepcopy(model).train(), images, labels, margin_loss).sign()
    attack = PGD(EPS, STEP, 1, random_start=False, loss="margin", batch_norm="train")
    adversarial = attack(model, images, labels, noise_for(images))
    torch.testing.assert_close(adversarial, (images + STEP * expected).clamp(0, 1), rtol=0, atol=2e-7)


# --- number formats


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.uint8])
def test_iterates_are_float32_whatever_the_images_are(dtype: torch.dtype) -> None:
    images = pixels(3, *SHAPE).round() if dtype == torch.uint8 else pixels(3, *SHAPE)
    images = images.to(dtype)
    model, labels, attack = Linear(60), labels_of(3), PGD(EPS, STEP, 3)
    adversarial = attack(model, images, labels, noise_for(images))
    assert adversarial.dtype == torch.float32
    assert torch.equal(adversarial, attack(model, images.float(), labels, noise_for(images)))


def test_bfloat16_logits_are_attacked_in_float32() -> None:
    class Half(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).bfloat16()

    model, images, labels = Half(60), pixels(10, *SHAPE, low=0.1, high=0.9), labels_of(10)
    for loss in LOSSES:
        adversarial = PGD(EPS, STEP, 8, restarts=2, loss=loss)(model, images, labels, noise_for(images))
        assert torch.equal(adversarial, images + EPS * direction(model, labels))


# --- how often a model is run


@pytest.mark.parametrize("restarts", [1, 3])
def test_passes_of_a_model_are_counted(restarts: int) -> None:
    model, images, labels = Squiggle().eval(), pixels(4, *SHAPE), labels_of(4, 4)
    with count_passes(model) as passes:
        PGD(EPS, STEP, 5, restarts=restarts)(model, images, labels, noise_for(images))
    comparisons = 0 if restarts == 1 else restarts  # the margin of each restart's last point
    assert (passes.gradient, passes.forward) == (5 * restarts, comparisons)
    assert model.calls == 5 * restarts + comparisons
    model(images)
    assert (passes.gradient, passes.forward) == (5 * restarts, comparisons)


def test_counting_ends_after_an_exception_too() -> None:
    model, images, labels = Squiggle().eval(), pixels(4, *SHAPE), labels_of(4, 4)
    model.fails_at = 3
    with pytest.raises(RuntimeError, match="out of memory"), count_passes(model) as passes:
        PGD(EPS, STEP, 5)(model, images, labels, noise_for(images))
    assert passes.gradient == 3
    assert not model._forward_pre_hooks


# --- settings


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PGD(8, 2, 5), "eps is 8: it must lie within 0 and 1, in units of pixels in [0, 1] (8/255, not 8)."),
        (lambda: PGD(-0.1, 0.1, 5), "eps is -0.1: it must lie within 0 and 1"),
        (lambda: PGD(math.nan, 0.1, 5), "eps is nan: it must lie within 0 and 1"),
        (lambda: PGD(0.1, -0.1, 5), "step size is -0.1: it must not be negative or infinite."),
        (lambda: PGD(0.1, math.nan, 5), "step size is nan: it must not"),
        (lambda: PGD(0.1, math.inf, 5), "step size is inf: it must not"),
        (lambda: PGD(0.1, 0.1, -1), "steps -1, restarts 1: steps must not be negative"),
        (
            lambda: PGD(0.1, 0.1, 5, restarts=0),
            "steps 5, restarts 0: steps must not be negative, restarts at least one.",
        ),
        (
            lambda: PGD(0.1, 0.1, 5, loss="margn"),  # type: ignore[arg-type]
            "unknown loss 'margn': did you mean 'margin'? known are cross-entropy, margin.",
        ),
        (
            lambda: PGD(0.1, 0.1, 5, batch_norm="Train"),  # type: ignore[arg-type]
            "unknown batch norm mode 'Train': did you mean 'train'? known are eval, train.",
        ),
        (lambda: AttackSettings(eps=8).resolve({}), "eps is 8: it must lie within 0 and 1"),
        (lambda: AttackSettings(eps=0.1, steps=-1).resolve({}), "steps -1"),
    ],
)
def test_what_is_out_of_range_is_said(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("settings", "eps", "step_size"),
    [
        (AttackSettings(), 0.3, 0.075),
        (AttackSettings(eps=0.1), 0.1, 0.025),
        (AttackSettings(step_size=0.01), 0.3, 0.01),
        (AttackSettings(eps=0.0), 0.0, 0.0),
    ],
)
def test_open_settings_follow_the_training(settings: AttackSettings, eps: float, step_size: float) -> None:
    attack_settings = settings.resolve({"recipe": {"eps": 0.3}})
    assert attack_settings.pgd() == PGD(eps, step_size, 20)


def test_settings_attack_with_the_noise_of_their_seed_and_the_images_indices() -> None:
    model, images, labels = Linear(60), pixels(3, *SHAPE), labels_of(3)
    adversarial = AttackSettings(EPS, STEP, steps=1, seed=4)(model, images, labels, [5, 9, 2])
    expected = PGD(EPS, STEP, 1)(model, images, labels, per_image_noise(4, [5, 9, 2]))
    assert torch.equal(adversarial, expected)
    assert not torch.equal(adversarial, AttackSettings(EPS, STEP, steps=1, seed=5)(model, images, labels, [5, 9, 2]))


# --- a foreign implementation


NetworkAndImages = tuple[nn.Module, Tensor, Tensor]


@pytest.mark.long
def test_robust_accuracy_agrees_with_torchattacks(robust_network: NetworkAndImages) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, images, labels = robust_network
    adversarial = PGD(EPS, STEP, 20)(model, images, labels, noise_for(images))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=20, random_start=True)(images, labels)
    with torch.no_grad():
        margins = [array(margin_loss(model(points), labels)) for points in (adversarial, reference)]
    correct = [margin < 0 for margin in margins]
    assert 0.03 < correct[0].mean() < 0.5  # neither all nor none: there is something to agree about
    # The same attack from other random starts. Of the images that only one of the two fools, each is as likely
    # to be fooled by either, so their difference is binomial: three standard deviations. The margins, paired
    # image by image, say the same without the threshold, and far more sharply.
    only_ours, only_theirs = (correct[1] & ~correct[0]).sum(), (correct[0] & ~correct[1]).sum()
    assert only_ours + only_theirs <= 5
    assert abs(only_ours - only_theirs) <= 3 * math.sqrt(only_ours + only_theirs)
    differences = margins[0] - margins[1]
    assert abs(differences.mean()) < 3 * differences.std() / math.sqrt(len(differences))
    assert differences.std() < 0.1 * margins[0].std()


@pytest.mark.long
def test_without_random_start_the_images_are_those_of_torchattacks(robust_network: NetworkAndImages) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, images, labels = robust_network
    adversarial = PGD(EPS, STEP, 20, random_start=False)(model, images, labels, noise_for(images))
    reference = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=20, random_start=False)(images, labels)
    # They average the loss and we sum it: gradients differ in their last bits, so the sign of one that is
    # nearly zero may turn and the two walks part there. All but 0.5 % of pixels must agree to float32 rounding.
    assert ((adversarial - reference).abs() < 1e-6).double().mean().item() > 0.995


def test_in_float64_every_pixel_is_that_of_torchattacks(robust_network: NetworkAndImages) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, images, labels = InDouble(deepcopy(robust_network[0])), robust_network[1][:30], robust_network[2][:30]
    adversarial = PGD(EPS, STEP, 10, random_start=False)(model, images, labels, noise_for(images))
    reference = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=10, random_start=False)(images, labels)
    torch.testing.assert_close(adversarial, reference, rtol=0, atol=1e-6)


class InPlace(nn.Module):
    """Works on its pixels themselves, as many networks normalize."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.linear = nn.Linear(3 * 5 * 4, 7)

    def forward(self, images: Tensor) -> Tensor:
        if self.way == "sub":
            images.sub_(0.5)
        elif self.way == "channel":
            images[:, 1] *= -2
        elif self.way == "relu":
            images = F.relu(images.sub_(0.4), inplace=True)
        logits: Tensor = self.linear(images.flatten(1))
        return logits


class CopyFirst(nn.Module):
    """The same network on a copy of its own."""

    def __init__(self, network: InPlace) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images * 1)
        return logits


@pytest.mark.parametrize("way", ["sub", "channel", "relu"])
@pytest.mark.parametrize(
    "attack", [PGD(0.1, steps=3), PGD(0.1, steps=2, restarts=2, loss="margin", random_start=False)]
)
def test_a_network_may_change_its_pixels_in_place(way: str, attack: PGD) -> None:
    torch.manual_seed(0)
    network = InPlace(way).eval()
    images, labels = pixels(6, 3, 5, 4), labels_of(6, 7)
    originals = images.clone()
    adversarial = attack(network, images, labels)
    assert torch.equal(images, originals)
    assert torch.equal(adversarial, attack(CopyFirst(network), images, labels))
    assert (adversarial - images).abs().max() > 0.04


def test_labels_of_any_width_and_of_one_column_are_classes() -> None:
    torch.manual_seed(0)
    network, images, labels = InPlace("none"), pixels(6, 3, 5, 4), labels_of(6, 7)
    attack = PGD(0.1, steps=2)
    expected = attack(network, images, labels)
    for kind in (torch.int64, torch.int32, torch.int16, torch.uint8):
        for column in (labels.to(kind), labels.to(kind)[:, None]):
            assert torch.equal(attack(network, images, column), expected)
    assert attack(network, images[:0], labels[:0]).shape == (0, 3, 5, 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: (255 * x, y), r"they must lie in 0 to 1 \(divide 0 to 255 by 255\)"),
        (lambda x, y: ((255 * x).byte(), y), r"they must lie in 0 to 1 \(divide 0 to 255 by 255\)"),
        (lambda x, y: (x[:, 0], y), r"images have shape \(6, 5, 4\): give \(N, C, H, W\), gray ones with C 1"),
        (lambda x, y: (x.numpy(), y), "images are of type ndarray: give a tensor"),
        (lambda x, y: (x, y.tolist()), "labels are of type list: give a tensor"),
        (lambda x, y: (x, y[:5]), "there are 5 labels for 6 images: give one for each"),
        (lambda x, y: (x, F.one_hot(y, 7)), "there are 42 labels for 6 images"),
        (lambda x, y: (x, y.float()), "labels are of type torch.float32: give integers"),
        (lambda x, y: (x, y - 100), "a label is -100: classes count from 0"),
        (lambda x, y: (x, 0 * y + 13), "a label is 13, and the model has 7 classes, which count from 0"),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_images_and_labels_that_do_not_fit_get_a_sentence(
    change: Callable[..., Any], sentence: str, loss: LossName
) -> None:
    with pytest.raises(UserError, match=sentence):
        PGD(0.1, steps=1, loss=loss)(InPlace("none"), *change(pixels(6, 3, 5, 4), labels_of(6, 7)))


def test_images_with_channels_last_that_a_network_does_not_take_get_a_sentence() -> None:
    network = nn.Sequential(nn.Conv2d(3, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images, labels = pixels(6, 3, 5, 4), labels_of(6, 7)
    with pytest.raises(UserError, match=r"images have shape \(6, 5, 4, 3\), channels last: give \(N, C, H, W\)"):
        PGD(0.1, steps=1)(network, images.permute(0, 2, 3, 1), labels)


class Changed(nn.Module):
    """A linear network, and what `change` makes of its logits."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(3 * 5 * 4, 7), change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.linear(images.flatten(1)))


def changed(change: Callable[[Tensor], Any] = lambda logits: logits) -> Changed:
    torch.manual_seed(0)
    return Changed(change).eval()


def test_inference_mode_of_a_program_does_not_end_an_attack() -> None:
    attack, images, labels = PGD(0.1, steps=3), pixels(6, 3, 5, 4), labels_of(6, 7)
    expected = attack(changed(), images, labels)
    network = changed()
    with torch.inference_mode():
        adversarial = attack(network, images.clone(), labels.clone())
        assert torch.is_inference_mode_enabled()
    assert torch.equal(adversarial, expected)


def test_a_network_that_was_made_in_inference_mode_is_one_sentence() -> None:
    with torch.inference_mode():
        network = changed()
    with pytest.raises(UserError, match=r"was made in torch.inference_mode, .*: build or load it outside\."):
        PGD(0.1, steps=1)(network, pixels(6, 3, 5, 4), labels_of(6, 7))


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits[:, :, None, None], lambda logits: logits.to_sparse()],
    ids=["convolutions", "sparse"],
)
def test_logits_of_another_form_are_attacked_as_plain_ones(change: Callable[[Tensor], Tensor]) -> None:
    attack, images, labels = PGD(0.1, steps=3, restarts=2), pixels(6, 3, 5, 4), labels_of(6, 7)
    assert torch.equal(attack(changed(change), images, labels), attack(changed(), images, labels))


def test_a_network_in_double_precision_gets_pixels_so() -> None:
    attack, images, labels = PGD(0.1, 0.02, 3, random_start=False), pixels(6, 3, 5, 4), labels_of(6, 7)
    network = changed().double()
    adversarial = attack(network, images, labels)
    assert adversarial.dtype == torch.float32
    expected = images
    for _ in range(3):
        leaf = expected.double().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf), labels, reduction="sum"), leaf)
        step = expected + 0.02 * gradient.sign().float()
        expected = torch.minimum(torch.maximum(step, images - 0.1), images + 0.1).clamp(0, 1)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            changed(lambda logits: (logits, None)),
            r"answers with a tuple: let it return the logits \(N, classes\)",
        ),
        (changed(lambda logits: {"logits": logits}), "answers with a dict: let it return the logits"),
        (changed(lambda logits: logits[:, 0]), r"answers 6 images with a tensor of shape \(6,\): let it return logits"),
        (changed(lambda logits: logits[:4]), r"answers 6 images with a tensor of shape \(4, 7\)"),
        (changed(lambda logits: torch.complex(logits, logits)), "answers with complex numbers"),
        (changed().half(), r"has weights in float16, and images are float32: give model\.float\(\)\."),
        (changed().bfloat16(), "has weights in bfloat16"),
        (lambda images: images, r"the model is <function .*>.*: give a torch\.nn\.Module\."),
    ],
)
def test_a_model_that_cannot_be_attacked_is_one_sentence(model: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PGD(0.1, steps=1)(model, pixels(6, 3, 5, 4), labels_of(6, 7))


def test_what_a_network_itself_raises_is_not_changed() -> None:
    class Faulty(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("of its own")
            return images.flatten(1)[:, :7]

    with pytest.raises(RuntimeError, match="of its own"):
        PGD(0.1, steps=1)(Faulty(), pixels(6, 3, 5, 4), labels_of(6, 7))


def test_an_image_of_tiny_gradients_is_attacked_like_any_other() -> None:
    """Logits that are larger by a factor change no decision, and leave gradients near 1e-9."""
    generator = torch.Generator().manual_seed(0)
    images, weights = torch.rand(7, 3, 4, 5, generator=generator) * 0.6 + 0.2, torch.randn(60, generator=generator)
    labels = ((images.flatten(1) - 0.5) @ weights < 0).long()

    class Sure(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, pixels: Tensor) -> Tensor:
            margin = self.scale * ((pixels.flatten(1) - 0.5) @ weights)
            return torch.stack([margin, -margin], 1)

    assert float(Sure(9)(images).diff(dim=1).abs().median()) > 14
    direction = (2 * labels - 1)[:, None] * weights.sign()
    expected = images + EPS * direction.reshape(images.shape)
    for scale in (1, 9):
        adversarial = ir.PGD(eps=EPS, steps=20)(Sure(scale), images, labels)
        torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)
