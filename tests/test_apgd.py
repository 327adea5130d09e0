"""Auto-PGD: its losses, its schedule against the algorithm written out, exact answers on linear models, its cost."""

import random as python_random
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Array, InDouble, Linear, array, pixels
from torch import Tensor, nn

from interpret_robust.attacks.apgd import APGD, LossName, TargetedAPGD, ascend, dlr, list_judged_steps, targeted_dlr
from interpret_robust.attacks.noise import Noise, per_image_noise
from interpret_robust.attacks.norms import Linf
from interpret_robust.core.errors import UserError

SHAPE = (3, 4, 5)
EPS = 0.06
SMALL_EPS = 0.008


class Waves(nn.Module):
    """Five logits, sines of a convolution: many optima, and a count of the images whose gradients were taken."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.kernel = nn.Parameter(4 * torch.randn(6, SHAPE[0], 3, 3, generator=random))
        self.mix = nn.Parameter(torch.randn(5, 6, generator=random))
        self.dropout = nn.Dropout(0.5)
        self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        self.gradients += len(images) * images.requires_grad
        waves = F.conv2d(images, self.kernel.to(images.dtype), padding=1).sin().mean((2, 3))
        logits: Tensor = self.dropout(waves) @ self.mix.T.to(images.dtype)
        return logits


def noise_for(images: Tensor, first: int = 0) -> Noise:
    return per_image_noise(0, range(first, first + len(images)))


def answers(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        classes: Tensor = model(images).argmax(1)
    return classes


def eval_waves(seed: int = 0) -> Any:
    return InDouble(Waves(seed)).eval()


# --- losses


def test_losses_are_those_of_the_paper() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, -1.0, 0.0], [2.0, 6.0, 5.0, 1.0, 0.0]])
    labels = torch.tensor([0, 2])
    # -(z_y - max other) / (first - third)
    np.testing.assert_allclose(dlr(logits, labels), [-(4 - 3) / (4 - 1), -(5 - 6) / (6 - 2)], rtol=1e-6)
    # -(z_y - z_t) / (first - (third + fourth) / 2)
    expected = [-(4 - 1) / (4 - 0.5), -(5 - 0) / (6 - 1.5)]
    np.testing.assert_allclose(targeted_dlr(logits, labels, torch.tensor([1, 4])), expected, rtol=1e-6)


def test_dlr_is_the_same_whatever_the_scale_and_the_offset_of_the_logits() -> None:
    logits, labels = pixels(7, 5, low=-1), torch.arange(7) % 5
    affine = 1000 * logits.double() - 3
    np.testing.assert_allclose(dlr(affine, labels), dlr(logits, labels), rtol=1e-4)
    targets = (labels + 2) % 5
    np.testing.assert_allclose(
        targeted_dlr(affine, labels, targets), targeted_dlr(logits, labels, targets), rtol=1e-4, atol=1e-5
    )


# --- schedule


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 100, 333])
def test_step_sizes_are_judged_at_the_checkpoints_of_the_paper(steps: int) -> None:
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert list_judged_steps(steps) == tuple(sorted({ceil(share * steps) for share in shares[1:] if share <= 1}))
    if steps == 100:
        assert list_judged_steps(steps) == (22, 41, 57, 70, 80, 87, 93, 99)


def loss_of(model: nn.Module, image: Array, label: int, loss: LossName) -> tuple[float, Array, int]:
    """One image's loss, its gradient and the model's answer, written out."""
    variable = torch.tensor(image, dtype=torch.float64, requires_grad=True)
    logits = model(variable[None])[0]
    ranking = logits.sort(descending=True).values
    other = torch.cat([logits[:label], logits[label + 1 :]]).max()
    cross_entropy = logits.exp().sum().log() - logits[label]
    value = cross_entropy if loss == "cross-entropy" else (other - logits[label]) / (ranking[0] - ranking[2])
    (gradient,) = torch.autograd.grad(value, variable)
    return value.item(), array(gradient), int(logits.argmax())


def by_the_algorithm(
    model: nn.Module, image: Array, label: int, start: Array, loss: LossName, steps: int
) -> tuple[Array, int]:
    """Algorithm 1 on one image, every iterate kept; the answer and how often the step size was halved."""
    low, high = np.maximum(image - EPS, 0), np.minimum(image + EPS, 1)
    points, losses, wrong = [start], [], []
    size, halvings, last_judgment = 2 * EPS, 0, 0
    sizes_at, bests_at = [size], []
    value, gradient, answer = loss_of(model, start, label, loss)
    losses.append(value)
    wrong.append((answer != label, value, start))
    bests_at.append(value)
    best = (value, start, gradient)
    for k in range(steps):
        share = 0.75 if k else 1.0
        ahead = np.clip(points[k] + size * np.sign(gradient), low, high)
        move = share * (ahead - points[k]) + ((1 - share) * (points[k] - points[k - 1]) if k else 0)
        points.append(np.clip(points[k] + move, low, high))
        value, gradient, answer = loss_of(model, points[-1], label, loss)
        losses.append(value)
        wrong.append((answer != label, value, points[-1]))
        if value > best[0]:
            best = (value, points[-1], gradient)
        if k + 1 in list_judged_steps(steps):
            rises = sum(losses[i + 1] > losses[i] for i in range(last_judgment, k + 1))
            seldom = rises < 0.75 * (k + 1 - last_judgment)
            is_stuck = len(sizes_at) > 1 and sizes_at[-1] == sizes_at[-2] and bests_at[-1] == best[0]
            sizes_at.append(size)
            bests_at.append(best[0])
            last_judgment = k + 1
            if seldom or is_stuck:
                size, halvings = size / 2, halvings + 1
                losses[-1], points[-1], gradient = best
            sizes_at[-1] = size
    return max(wrong, key=lambda entry: entry[:2])[2], halvings


@pytest.mark.parametrize("loss", ["cross-entropy", "dlr"])
def test_apgd_is_the_algorithm_written_out(loss: LossName) -> None:
    count, steps = 7, 40
    model, images = eval_waves(), pixels(count, *SHAPE)
    labels = answers(model, images)
    adversarial = APGD(EPS, steps, loss)(model, images, labels, noise_for(images)).adversarial
    low, high = (images - EPS).clamp_min(0), (images + EPS).clamp_max(1)
    starts = torch.clamp(images + EPS * noise_for(images)(images), low, high)
    halvings = set()
    for image, label, start, point in zip(images, labels, starts, adversarial, strict=True):
        expected, times = by_the_algorithm(model, array(image), int(label), array(start), loss, steps)
        halvings.add(times)
        np.testing.assert_allclose(array(point), expected, atol=1e-5)
    assert len(halvings) > 1 and max(halvings) >= 3  # images differ in when their step is halved


# --- exact answers


def test_apgd_finds_the_optimum_of_a_linear_model() -> None:
    images, labels = pixels(6, *SHAPE), torch.arange(6) % 2
    model = Linear(60)
    weight = model.layer.weight.detach()
    direction = (weight[1 - labels] - weight[labels]).sign().reshape(6, *SHAPE)
    adversarial = APGD(EPS, 10)(model, images, labels, noise_for(images)).adversarial
    torch.testing.assert_close(adversarial, (images + EPS * direction).clamp(0, 1), rtol=0, atol=1e-6)


def test_targeted_apgd_breaks_just_the_images_of_a_linear_model_that_can_be_broken() -> None:
    images, model = pixels(40, *SHAPE), Linear(60, classes=5)
    labels = answers(model, images)
    eps = 0.02
    weight, bias = model.layer.weight.detach(), model.layer.bias.detach()
    directions = weight[None] - weight[labels][:, None]  # image, class, pixel
    flat = images.flatten(1)[:, None]
    furthest = torch.where(directions > 0, (flat + eps).clamp_max(1), (flat - eps).clamp_min(0))
    leads = (directions * furthest).sum(2) + bias[None] - bias[labels][:, None]
    breakable = leads.scatter(1, labels[:, None], -torch.inf).amax(1) > 0
    result = TargetedAPGD(eps, 20)(model, images, labels, noise_for(images))
    assert 5 < breakable.sum() < 35
    np.testing.assert_array_equal(answers(model, result.adversarial) != labels, breakable)


# --- what it costs and what it leaves alone


def test_gradients_are_counted_for_each_image_and_broken_images_cost_no_more() -> None:
    model, images = Waves().eval(), pixels(9, *SHAPE)
    labels = answers(model, images)
    labels[:2] = (labels[:2] + 1) % 5  # wrong without an attack
    model.gradients = 0
    result = TargetedAPGD(SMALL_EPS, 6)(model, images, labels, noise_for(images))
    assert result.gradients.sum() == model.gradients
    assert result.gradients[:2].tolist() == [0, 0] and torch.equal(result.adversarial[:2], images[:2])
    wrong = answers(model, result.adversarial) != labels
    assert set(result.gradients[~wrong].tolist()) == {4 * 6}
    assert 0 < result.gradients[2:][wrong[2:]].min() < 24
    model.gradients = 0
    assert APGD(EPS, 6)(model, images, labels, noise_for(images)).gradients.tolist() == [6] * 9
    assert model.gradients == 9 * 6


def test_of_fewer_targets_the_likeliest_is_aimed_at() -> None:
    model, images = eval_waves(), pixels(9, *SHAPE)
    labels, runner_up = model(images).topk(2).indices.T
    result = TargetedAPGD(SMALL_EPS, 20, targets=1)(model, images, labels, noise_for(images))
    start = (images + SMALL_EPS * noise_for(images)(images)).clamp(0, 1)
    expected = ascend(
        model, images, labels, start, lambda logits: targeted_dlr(logits, labels, runner_up), Linf(SMALL_EPS), 20
    )
    torch.testing.assert_close(result.adversarial, expected, rtol=0, atol=1e-6)
    assert result.gradients.tolist() == [20] * 9 and 0 < (answers(model, result.adversarial) != labels).sum() < 9


@pytest.mark.parametrize("attack", [APGD(EPS, 12), APGD(EPS, 12, "dlr"), TargetedAPGD(EPS, 12)])
def test_an_image_is_attacked_alike_in_any_batch(attack: APGD | TargetedAPGD) -> None:
    model, images = eval_waves(), pixels(7, *SHAPE)
    labels = answers(model, images)
    whole = attack(model, images, labels, noise_for(images))
    for part in (slice(0, 2), slice(2, 7)):
        alone = attack(model, images[part], labels[part], noise_for(images[part], part.start))
        torch.testing.assert_close(alone.adversarial, whole.adversarial[part], rtol=0, atol=1e-6)
        assert torch.equal(alone.gradients, whole.gradients[part])


@pytest.mark.parametrize("attack", [APGD(EPS, 3), TargetedAPGD(EPS, 3)])
def test_mode_weights_and_random_state_are_left_as_found(attack: APGD | TargetedAPGD) -> None:
    model, images = Waves().train(), pixels(4, *SHAPE)
    labels, originals = answers(Waves().eval(), images), images.clone()
    states = torch.get_rng_state(), python_random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    attack(model, images, labels, noise_for(images))
    assert model.training and model.dropout.training and model.kernel.requires_grad and model.kernel.grad is None
    assert torch.equal(torch.get_rng_state(), states[0]) and python_random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # type: ignore[index]
    assert torch.equal(images, originals)


# --- another implementation


def test_apgd_breaks_what_another_implementation_breaks() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, images = Waves(seed=1).eval(), pixels(150, *SHAPE)
    labels, eps, steps = answers(model, images), 0.005, 50
    adversarial = [
        APGD(eps, steps)(model, images, labels, noise_for(images)).adversarial,
        TargetedAPGD(eps, steps)(model, images, labels, noise_for(images)).adversarial,
    ]
    with torch.random.fork_rng(devices=[]):
        reference = [
            torchattacks.APGD(model, eps=eps, steps=steps, loss="ce")(images, labels),
            torchattacks.APGDT(model, eps=eps, steps=steps, n_classes=5)(images, labels),
        ]
    for first, other in zip(adversarial, reference, strict=True):
        wrong, broken_there = (answers(model, points) != labels for points in (first, other))
        assert 30 < wrong.sum() < 120
        assert (wrong != broken_there).sum() <= 3


# --- bad input


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: APGD(8.0), "eps is 8: it must lie within 0 and 1"),
        (lambda: TargetedAPGD(0.1, steps=0), "APGD of 0 steps: there must be at least one"),
        (lambda: TargetedAPGD(0.1, targets=0), "targets is 0"),
        (lambda: APGD(0.1, loss="margin"), "margin"),  # type: ignore[arg-type]
    ],
)
def test_what_is_out_of_range_is_said(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


def test_too_few_classes_are_said() -> None:
    images, labels = pixels(2, *SHAPE), torch.tensor([0, 1])
    with pytest.raises(UserError, match="the DLR loss needs 3 classes and the model has 2"):
        APGD(EPS, 2, "dlr")(Linear(60), images, labels, noise_for(images))
    model = Linear(60, classes=3)
    with pytest.raises(UserError, match="APGD-T needs 4 classes and the model has 3"):
        TargetedAPGD(EPS, 2)(model, images, answers(model, images), noise_for(images))


@pytest.mark.parametrize("attack", [APGD(EPS, 4), APGD(EPS, 1), TargetedAPGD(EPS, 4)])
def test_gradients_that_are_not_numbers_are_said(attack: APGD | TargetedAPGD) -> None:
    class Divergent(Waves):
        def forward(self, images: Tensor) -> Tensor:
            # Right on every image, and with no gradient that is a number.
            return super().forward(images) + (images.sum((1, 2, 3)) * 0).sqrt()[:, None]

    model, images = Divergent().eval(), pixels(3, *SHAPE)
    with pytest.raises(UserError, match="not finite numbers"):
        attack(model, images, answers(model, images), noise_for(images))
